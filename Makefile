# Build tags that engine/storage insists on; flags of the caller are kept.
export GOFLAGS := $(GOFLAGS) -tags=sqlite_fts5,sqlite_json

.PHONY: run build demo test check bench bench-check fuzz models soak clean

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
	@mkdir -p resources
	@go run ./scripts/bench -svg resources/performance.svg

bench-check:
	@go run ./scripts/bench -check

# TIME is the time given to each target.
TIME ?= 10s
fuzz:
	@go run ./scripts/fuzz -time $(TIME)

models:
	@go run ./scripts/models

# Up to half an hour: kills, faults, large stores, and everything at once.
soak:
	@go run ./scripts/soak

clean:
	@rm -rf build
