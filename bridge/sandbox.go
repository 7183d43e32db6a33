package bridge

import (
	"fmt"
	"path/filepath"
	"runtime"

	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
)

// GuestPlatform is that of the guests this machine runs.
const GuestPlatform = "linux/" + runtime.GOARCH

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
