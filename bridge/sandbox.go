package bridge

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
)

// GuestPlatform is that of the guests this machine runs.
const GuestPlatform = "linux/" + runtime.GOARCH

// SandboxDrivers returns what this system runs sandboxes with, its own first.
// libexec is where what was built with this program lies.
func SandboxDrivers(home, libexec string) []sandbox.Driver {
	var all []sandbox.Driver
	for _, name := range []string{"gvisor", "qemu", "vz"} {
		if d, err := SandboxDriver(name, home, libexec); err == nil {
			all = append(all, d)
		}
	}
	return all
}

// besideProgram returns the drivers of a home, with libexec beside this
// program.
func besideProgram(home string) []sandbox.Driver {
	program, err := os.Executable()
	if err != nil {
		return nil
	}
	return SandboxDrivers(home, filepath.Join(filepath.Dir(program), "libexec"))
}

// SandboxDriver returns the driver that a host's settings name, "" for the
// system's own. It does not look whether the driver can run; nothing weaker
// takes its place where it cannot. libexec is where what was built with this
// program lies.
func SandboxDriver(name, home, libexec string) (sandbox.Driver, error) {
	store, err := artifact.Open(home, libexec)
	if err != nil {
		return nil, err
	}
	// Sockets lie below, so the path is short.
	state := filepath.Join(home, "container", "vm")
	if d := systemDriver(name, store, state); d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("%w: there is no driver %q on this system", sandbox.ErrUnavailable, name)
}
