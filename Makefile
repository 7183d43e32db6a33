# Build tags that engine/storage insists on; flags of the caller are kept.
export GOFLAGS := $(GOFLAGS) -tags=sqlite_fts5,sqlite_json

.PHONY: run build demo test check bench bench-check fuzz models soak release layers clean

run: build
	@build/osaurus serve

build:
	@mkdir -p build
	@go build -trimpath -o build/osaurus ./app/osaurus

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

models:
	@go run ./scripts/models

# Up to half an hour: kills, faults and large stores.
soak:
	@go run ./scripts/soak

# Built twice in different folders and compared; written to dist/.
release:
	@go run ./scripts/release $(RELEASE)

# The picture of the layers in resources/ARCHITECTURE.md.
layers:
	@go run ./scripts/layers

clean:
	@rm -rf build dist
