# Build tags that engine/storage insists on; flags of the caller are kept.
export GOFLAGS := $(GOFLAGS) -tags=sqlite_fts5,sqlite_json

.PHONY: run build sandbox runsc image demo test check bench bench-check fuzz soak clean

run: build
	@build/osaurus serve

build:
	@mkdir -p build
	@go build -trimpath -o build/osaurus ./app/osaurus

# What agents run in: gVisor's program, minutes when nothing is cached, and
# the image. Where one differs from its pin, the pin in the tree follows, and
# the program has to be built again.
GUEST := linux/$(shell go env GOARCH)
sandbox: runsc image

runsc:
	@mkdir -p build/libexec
	@cd scripts/runsc && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -ldflags "-s -w -buildid=" -o ../../build/libexec/osaurus-runsc gvisor.dev/gvisor/runsc
	@go run ./scripts/pins set -source libexec/osaurus-runsc -max 134217728 -note "built by make sandbox from scripts/runsc/go.mod" runsc $(GUEST) build/libexec/osaurus-runsc

image:
	@go run ./scripts/pins set -source libexec/image -max 134217728 -note "built by make image from busybox-static and the guest programs" sandbox-image $(GUEST) $$(go run ./scripts/image)

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
