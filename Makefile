# Build tags that engine/storage insists on; flags of the caller are kept.
export GOFLAGS := $(GOFLAGS) -tags=sqlite_fts5,sqlite_json

.PHONY: run build app sandbox runsc image kernel demo test check bench bench-check fuzz models soak screenshots release layers clean

run: build
	@build/osaurus serve

build:
	@mkdir -p build
	@go build -trimpath -o build/osaurus ./app/osaurus

# What agents run in: gVisor's program, minutes when nothing is cached, and
# the image. Where one differs from its pin, the pin in the tree follows, so the
# program is built last.
GUEST := linux/$(shell go env GOARCH)
sandbox: runsc image build

runsc:
	@mkdir -p build/libexec
	@cd scripts/runsc && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -ldflags "-s -w -buildid=" -o ../../build/libexec/osaurus-runsc gvisor.dev/gvisor/runsc
	@go run ./scripts/pins set -source libexec/osaurus-runsc -max 134217728 -note "built by make sandbox from scripts/runsc/go.mod" runsc $(GUEST) build/libexec/osaurus-runsc

image:
	@go run ./scripts/pins set -source libexec/image -max 134217728 -note "built by make image from busybox-static and the guest programs" sandbox-image $(GUEST) $$(go run ./scripts/image)

# The kernel of the driver qemu: Debian's for virtual machines, and its modules
# for the serial port in the order they are loaded.
MODULES := virtio/virtio virtio/virtio_ring virtio/virtio_pci_modern_dev virtio/virtio_pci_legacy_dev virtio/virtio_pci char/virtio_console
kernel:
	@[ -d build/kernel/boot ] || sh engine/sandbox/driver/qemu/testdata/fetch-kernel.sh
	@mkdir -p build/libexec
	@cp build/kernel/boot/vmlinuz-* build/libexec/vmlinuz
	@cd build/kernel/lib/modules/*/kernel/drivers && tar --format=ustar --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=0400 -cf $(CURDIR)/build/libexec/modules.tar $(MODULES:=.ko)
	@go run ./scripts/pins set -source libexec/vmlinuz -max 134217728 -note "linux-image-cloud-amd64 of Debian, by make kernel" kernel linux/amd64 build/libexec/vmlinuz
	@go run ./scripts/pins set -source libexec/modules.tar -max 134217728 -note "virtio modules of that kernel" kernel-modules linux/amd64 build/libexec/modules.tar

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

# Pictures of every pane, light and dark, narrow and wide, in build/screenshots.
screenshots:
	@go run ./scripts/screenshots

# Built twice in different folders and compared; written to dist/.
release:
	@go run ./scripts/release $(RELEASE)

# The picture of the layers in resources/ARCHITECTURE.md.
layers:
	@go run ./scripts/layers

clean:
	@rm -rf build dist
