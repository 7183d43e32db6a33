# Build tags that engine/storage insists on; flags of the caller are kept.
export GOFLAGS := $(GOFLAGS) -tags=sqlite_fts5,sqlite_json

.PHONY: run build app demo test check bench bench-check fuzz soak clean

run: build
	@build/osaurus serve

build:
	@mkdir -p build
	@go build -trimpath -o build/osaurus ./app/osaurus

# On a Mac only: the app in the menu bar, unsigned. The steps of signing stand
# in scripts/bundle and .ci/macos.
VERSION ?= 0.0.0
app:
	@test "$$(uname)" = Darwin || { echo "make app needs a Mac" >&2; exit 1; }
	@mkdir -p build
	@MACOSX_DEPLOYMENT_TARGET=13.0 go build -trimpath -o build/Osaurus ./app/menubar
	@go run ./scripts/icons -to build/icons
	@go run ./scripts/bundle -exe build/Osaurus -version $(VERSION) -out build/Osaurus.app

demo:
	@go run ./scripts/demo

test:
	@go run ./scripts/suites

check: test

bench:
	@go run ./scripts/bench

bench-check:
	@go run ./scripts/bench -check

# TIME is the time given to each target.
TIME ?= 10s
fuzz:
	@go run ./scripts/fuzz -time $(TIME)

# Up to half an hour: kills, faults and large stores.
soak:
	@go run ./scripts/soak

clean:
	@rm -rf build
