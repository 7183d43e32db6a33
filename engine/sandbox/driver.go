package sandbox

import (
	"context"
	"errors"
	"net"

	"osaurus/engine/sandbox/wire"
)

// Driver runs sandboxes of one kind. Everything above it is written once and
// does not know which it is. It is safe for concurrent use.
type Driver interface {
	// Name is "gvisor", "qemu" or "vz".
	Name() string

	// Available says why this machine cannot run the driver, nil when it can.
	// There is no other driver to fall back to.
	Available(ctx context.Context) error

	// Provision makes ready what outlives a sandbox: the verified image, the
	// kernel, the runtime. It may run again and then only verifies.
	Provision(ctx context.Context) error

	// Start boots a sandbox. Its listener is open before the guest's first
	// process starts. Start returns once that process runs; whether the guest
	// works shows when its control stream arrives. An error leaves nothing
	// behind.
	Start(ctx context.Context, spec Spec) (Sandbox, error)

	// Sweep ends and removes every sandbox that an earlier process left in
	// this driver's state. It is called before the first Start.
	Sweep(ctx context.Context) error
}

// Sandbox is one running guest. Users, files and commands go over the control
// stream, which is written once above the drivers (type Guest).
type Sandbox interface {
	// ID is Spec.ID.
	ID() string

	// BridgeListener is where this guest's relay connects to, and nobody else:
	// which sandbox a stream came from is known by the listener. Every stream,
	// bridge, proxy and control, arrives here raw, before its first line (see
	// package wire). Its Accept fails once the sandbox ended.
	BridgeListener() net.Listener

	// Done is closed when the guest has ended, for whatever reason.
	Done() <-chan struct{}

	// Err says why the guest ended; nil before Done, and after Stop.
	Err() error

	// Stop kills the guest and removes everything it had but the workspace. It
	// returns when no process and no socket is left, and may be called again.
	Stop(ctx context.Context) error
}

// ErrUnavailable is wrapped by Driver.Available and Driver.Start when this
// machine lacks what the driver needs. It is never answered by a weaker driver.
var ErrUnavailable = errors.New("sandbox: the driver is not available here")

// Spec is what a guest is started with.
type Spec struct {
	// ID names the sandbox: "osr-", the first 8 hex digits of the agent (or
	// "shared00"), "-", 8 random hex digits. Drivers use it as it is.
	ID string

	// Boot is handed to the guest's first process, osaurus-guest, as a JSON
	// file that only root reads. The driver sets Boot.Transport, and nothing
	// else, to where the guest reaches BridgeListener.
	Boot wire.Boot

	Network  Network
	CPUs     int // 1 to 8
	MemoryMB int // at least 64
	PIDs     int // for the whole sandbox, gVisor's own threads included

	// Workspace is the host directory that is mounted at /workspace, the only
	// one ever mounted. "" mounts none: homes are then carried through the
	// control stream.
	Workspace string

	// BestEffortLimits starts the guest also where CPUs, MemoryMB and PIDs
	// cannot be enforced. Otherwise that is ErrUnavailable.
	BestEffortLimits bool
}

// Network is what the guest can reach.
type Network uint8

// The networks. A guest with NetworkProxy has loopback alone, as with
// NetworkNone: what it reaches, it reaches through the relay.
const (
	invalidNetwork Network = iota
	NetworkNone
	NetworkProxy
	NetworkOutbound
)

// String returns the name used in sandbox.json.
func (n Network) String() string {
	switch n {
	case NetworkNone:
		return "none"
	case NetworkProxy:
		return "proxy"
	case NetworkOutbound:
		return "outbound"
	}
	return "invalid"
}
