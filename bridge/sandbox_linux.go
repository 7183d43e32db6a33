package bridge

import (
	"runtime"

	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
	"osaurus/engine/sandbox/driver/gvisor"
	"osaurus/engine/sandbox/driver/qemu"
)

func systemDriver(name string, store *artifact.Store, state string) sandbox.Driver {
	switch name {
	case "", "gvisor":
		return gvisor.New(gvisor.Options{Artifacts: store, Platform: GuestPlatform, State: state})
	case "qemu":
		if runtime.GOARCH != "amd64" {
			return nil // the machine it makes is of no other kind
		}
		return qemu.New(qemu.Options{Program: qemuProgram, Artifacts: store, Platform: GuestPlatform, State: state})
	}
	return nil
}

const qemuProgram = "qemu-system-x86_64"
