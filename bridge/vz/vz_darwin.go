//go:build darwin && cgo

package vz

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/Code-Hex/vz/v3"

	"osaurus/engine/atomicfile"
	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
	"osaurus/engine/sandbox/initramfs"
	"osaurus/engine/sandbox/wire"
)

const (
	// hostPort is the vsock port the guest dials. Each machine has a socket
	// device of its own, so the port tells nothing and need not differ.
	hostPort  = 1024
	shareTag  = "workspace"
	idPrefix  = "osr-"
	minMemory = 128 // MB: kernel and image do not fit into less
)

var errGone = errors.New("vz: the sandbox ended by itself")

type driver struct{ o Options }

// New returns the driver of macOS.
func New(o Options) sandbox.Driver { return &driver{o} }

func (d *driver) Name() string { return "vz" }

func (d *driver) runs() string { return filepath.Join(d.o.State, "vz") }

// MountsWorkspace says that Spec.Workspace may name a folder.
func (d *driver) MountsWorkspace() bool { return true }

func (d *driver) Available(context.Context) error {
	if _, err := d.o.Artifacts.File(artifact.Kernel, d.o.Platform); err != nil {
		return absent(err)
	}
	return nil
}

func (d *driver) Provision(ctx context.Context) error {
	for _, name := range []string{artifact.SandboxImage, artifact.Kernel} {
		pin, err := d.o.Artifacts.Pins.Find(name, d.o.Platform)
		if err == nil {
			err = d.o.Artifacts.Pull(ctx, pin)
		}
		if err != nil {
			return absent(err)
		}
	}
	return nil
}

// Sweep removes folders alone: a machine ends with the process that made it.
func (d *driver) Sweep(context.Context) error {
	names, err := os.ReadDir(d.runs())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, n := range names {
		if wire.ValidSandbox(n.Name()) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(d.runs(), n.Name())))
		}
	}
	return err
}

func (d *driver) Start(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	if !wire.ValidSandbox(spec.ID) || len(spec.ID) <= len(idPrefix) || spec.ID[:len(idPrefix)] != idPrefix {
		return nil, fmt.Errorf("vz: the sandbox id %q is malformed", spec.ID)
	}
	if spec.CPUs < 1 || spec.MemoryMB < minMemory || spec.PIDs < 1 || spec.Network.String() == "invalid" {
		return nil, errors.New("vz: the sandbox has no processors, memory, processes or network")
	}
	m := &machine{id: spec.ID, dir: filepath.Join(d.runs(), spec.ID), done: make(chan struct{})}
	if err := errors.Join(atomicfile.MkdirAll(d.runs()), os.Mkdir(m.dir, atomicfile.DirMode)); err != nil {
		return nil, fmt.Errorf("vz: %w", err)
	}
	if err := m.boot(ctx, d.o, spec); err != nil {
		return nil, errors.Join(absent(err), m.Stop(context.WithoutCancel(ctx)))
	}
	return m, nil
}

// machine is one sandbox.
type machine struct {
	id, dir  string
	vm       *vz.VirtualMachine
	listener *listener
	started  bool
	done     chan struct{}

	stopping atomic.Bool
	mu       sync.Mutex // one stop at a time
	stopped  bool
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) boot(ctx context.Context, o Options, spec sandbox.Spec) error {
	if err := m.prepare(ctx, o, spec); err != nil {
		return err
	}
	config, err := m.configuration(spec)
	if err != nil {
		return err
	}
	if m.vm, err = vz.NewVirtualMachine(config); err != nil {
		return err
	}
	devices := m.vm.SocketDevices()
	if len(devices) != 1 {
		return errors.New("the machine has no socket device")
	}
	// It listens before the guest's first process starts.
	inner, err := devices[0].Listen(hostPort)
	if err != nil {
		return err
	}
	m.listener = newListener(inner)
	if err := m.vm.Start(); err != nil {
		return err
	}
	m.started = true
	go m.watch()
	return nil
}

// prepare writes the kernel, from the very bytes that were hashed, and the
// initramfs into the sandbox's own folder.
func (m *machine) prepare(ctx context.Context, o Options, spec sandbox.Spec) (err error) {
	pin, err := o.Artifacts.Pins.Find(artifact.Kernel, o.Platform)
	if err != nil {
		return err
	}
	kernel, err := artifact.ReadSHA256(o.Artifacts.Path(pin), pin.SHA256, pin.MaxBytes)
	if err != nil {
		return err
	}
	img, err := o.Artifacts.Image(artifact.SandboxImage, o.Platform)
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(m.path("kernel"), kernel, atomicfile.Mode), img.Unpack(ctx, m.path("rootfs"), artifact.DefaultLimits)); err != nil {
		return err
	}
	fs := initramfs.Machine{Boot: spec.Boot, WorkspaceMB: spec.MemoryMB / 2}
	fs.Boot.Transport, fs.Boot.Init = fmt.Sprintf("vsock:2:%d", hostPort), true
	if spec.Workspace != "" {
		fs.Share = shareTag
	}
	if o.Programs != nil {
		if fs.Programs, err = o.Programs(); err != nil {
			return err
		}
	}
	root, err := os.OpenRoot(m.path("rootfs"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close(), os.RemoveAll(m.path("rootfs"))) }()
	f, err := os.OpenFile(m.path("initramfs"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, atomicfile.Mode)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	return errors.Join(fs.Write(w, root), w.Flush(), f.Close())
}

// configuration has a console into a file, a source of entropy, the socket
// device, and a share or a network where the spec has one.
func (m *machine) configuration(spec sandbox.Spec) (*vz.VirtualMachineConfiguration, error) {
	loader, err := vz.NewLinuxBootLoader(m.path("kernel"), vz.WithInitrd(m.path("initramfs")), vz.WithCommandLine("console=hvc0 quiet panic=-1 rdinit="+initramfs.InitPath))
	if err != nil {
		return nil, err
	}
	config, err := vz.NewVirtualMachineConfiguration(loader, uint(spec.CPUs), uint64(spec.MemoryMB)<<20)
	if err != nil {
		return nil, err
	}
	output, err := vz.NewFileSerialPortAttachment(m.path("output"), false)
	if err != nil {
		return nil, err
	}
	console, err := vz.NewVirtioConsoleDeviceSerialPortConfiguration(output)
	if err != nil {
		return nil, err
	}
	entropy, err := vz.NewVirtioEntropyDeviceConfiguration()
	if err != nil {
		return nil, err
	}
	socket, err := vz.NewVirtioSocketDeviceConfiguration()
	if err != nil {
		return nil, err
	}
	config.SetSerialPortsVirtualMachineConfiguration([]*vz.VirtioConsoleDeviceSerialPortConfiguration{console})
	config.SetEntropyDevicesVirtualMachineConfiguration([]*vz.VirtioEntropyDeviceConfiguration{entropy})
	config.SetSocketDevicesVirtualMachineConfiguration([]vz.SocketDeviceConfiguration{socket})
	if err := errors.Join(share(config, spec.Workspace), network(config, spec.Network)); err != nil {
		return nil, err
	}
	if ok, err := config.Validate(); err != nil || !ok {
		return nil, errors.Join(errors.New("the framework refuses the machine"), err)
	}
	return config, nil
}

func share(config *vz.VirtualMachineConfiguration, folder string) error {
	if folder == "" {
		return nil
	}
	device, err := vz.NewVirtioFileSystemDeviceConfiguration(shareTag)
	if err != nil {
		return err
	}
	directory, err := vz.NewSharedDirectory(folder, false)
	if err != nil {
		return err
	}
	single, err := vz.NewSingleDirectoryShare(directory)
	if err != nil {
		return err
	}
	device.SetDirectoryShare(single)
	config.SetDirectorySharingDevicesVirtualMachineConfiguration([]vz.DirectorySharingDeviceConfiguration{device})
	return nil
}

func network(config *vz.VirtualMachineConfiguration, n sandbox.Network) error {
	if n != sandbox.NetworkOutbound {
		return nil
	}
	nat, err := vz.NewNATNetworkDeviceAttachment()
	if err != nil {
		return err
	}
	device, err := vz.NewVirtioNetworkDeviceConfiguration(nat)
	if err != nil {
		return err
	}
	config.SetNetworkDevicesVirtualMachineConfiguration([]*vz.VirtioNetworkDeviceConfiguration{device})
	return nil
}

// watch waits for the machine's end.
func (m *machine) watch() {
	for state := range m.vm.StateChangedNotify() {
		if state == vz.VirtualMachineStateStopped || state == vz.VirtualMachineStateError {
			break
		}
	}
	_ = m.listener.Close() // nothing was written
	close(m.done)
}

func (m *machine) ID() string                   { return m.id }
func (m *machine) BridgeListener() net.Listener { return m.listener }
func (m *machine) Done() <-chan struct{}        { return m.done }

func (m *machine) Err() error {
	select {
	case <-m.done:
	default:
		return nil
	}
	if m.stopping.Load() {
		return nil
	}
	return errGone
}

func (m *machine) Stop(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return nil
	}
	if err := m.end(ctx); err != nil {
		return err
	}
	err := os.RemoveAll(m.dir)
	m.stopped = err == nil || !m.started
	return err
}

func (m *machine) end(ctx context.Context) error {
	if !m.started {
		if m.listener != nil {
			_ = m.listener.Close() // nothing was written
		}
		close(m.done) // nobody else has it
		return nil
	}
	select {
	case <-m.done: // by itself, which Err goes on saying
		return nil
	default:
	}
	m.stopping.Store(true)
	stopErr := m.vm.Stop() // it may have ended meanwhile
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("vz: %s does not end: %w", m.id, ctx.Err()), stopErr)
	}
}
