//go:build linux

package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/sys/unix"

	"osaurus/engine/atomicfile"
	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
	"osaurus/engine/sandbox/driver/process"
	"osaurus/engine/sandbox/initramfs"
	"osaurus/engine/sandbox/wire"
)

// errGone says that a virtual machine ended without having been stopped.
var errGone = errors.New("qemu: the sandbox ended by itself")

// cleanup bounds what has to happen although the caller has gone.
const cleanup = 20 * time.Second

// maxConsole bounds how much of the console an error or Output carries.
const maxConsole = 2000

// Bounds of a Spec. A kernel and the image do not fit into less memory.
const (
	minMemoryMB = 128
	maxMemoryMB = 8 << 10
	maxCPUs     = 8
	idPrefix    = "osr-"
)

// Pinned is a file and the hash it must have.
type Pinned struct {
	Path   string
	SHA256 string
}

// Kernel is what the machine boots. Modules are loaded in their order before
// anything else runs; a kernel that has virtio built in needs none.
type Kernel struct {
	Image   Pinned
	Modules []Pinned
}

// Options of a Driver.
type Options struct {
	// Program is qemu-system-x86_64 or its path.
	Program string
	// Artifacts holds the image.
	Artifacts *artifact.Store
	// Platform is that of the guest.
	Platform string
	// Kernel is another one than the pinned kernel of Artifacts; nil is that.
	Kernel *Kernel
	// State is a folder of this driver's own.
	State string
}

// Driver implements sandbox.Driver.
type Driver struct{ o Options }

// New returns a driver.
func New(o Options) *Driver { return &Driver{o} }

// Name implements sandbox.Driver.
func (d *Driver) Name() string { return "qemu" }

// MountsWorkspace says that Spec.Workspace must be empty: homes are carried
// over the control stream.
func (d *Driver) MountsWorkspace() bool { return false }

func (d *Driver) runs() string { return filepath.Join(d.o.State, "qemu") }

// Available implements sandbox.Driver.
func (d *Driver) Available(ctx context.Context) error {
	program, err := exec.LookPath(d.o.Program)
	if err != nil {
		return fmt.Errorf("%w: qemu: no %s: install qemu-system-x86", sandbox.ErrUnavailable, d.o.Program)
	}
	if out, err := exec.CommandContext(ctx, program, "--version").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: qemu: it does not run: %s", sandbox.ErrUnavailable, clip(out))
	}
	_, err = d.kernel()
	if err != nil {
		return absent(err)
	}
	return nil
}

// absent tells what has not been built from what differs from its pin.
func absent(err error) error {
	if errors.Is(err, artifact.ErrAbsent) || errors.Is(err, artifact.ErrPin) {
		return fmt.Errorf("%w: qemu: %w (make sandbox kernel builds it)", sandbox.ErrUnavailable, err)
	}
	return fmt.Errorf("qemu: %w", err)
}

// Provision implements sandbox.Driver.
func (d *Driver) Provision(ctx context.Context) error {
	names := []string{artifact.SandboxImage}
	if d.o.Kernel == nil {
		names = append(names, artifact.Kernel)
		if _, err := d.o.Artifacts.Pins.Find(artifact.Modules, d.o.Platform); err == nil {
			names = append(names, artifact.Modules)
		}
	}
	for _, name := range names {
		pin, err := d.o.Artifacts.Pins.Find(name, d.o.Platform)
		if err == nil {
			err = d.o.Artifacts.Pull(ctx, pin)
		}
		if err != nil {
			return absent(err)
		}
	}
	return d.Available(ctx)
}

// Start implements sandbox.Driver.
func (d *Driver) Start(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	if err := d.check(spec); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &Sandbox{d: d, id: spec.ID, dir: filepath.Join(d.runs(), spec.ID), life: process.NewLife("qemu: "+spec.ID, errGone)}
	if err := errors.Join(atomicfile.MkdirAll(d.runs()), os.Mkdir(s.dir, atomicfile.DirMode)); err != nil {
		return nil, fmt.Errorf("qemu: %w", err)
	}
	if err := s.boot(ctx, spec); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("qemu: %w", err), s.Stop(stop))
	}
	return s, nil
}

// check refuses what this driver does not keep. Memory and processors are
// bounded by the machine, processes by its kernel.
func (d *Driver) check(spec sandbox.Spec) error {
	switch {
	case !validID(spec.ID):
		return fmt.Errorf("qemu: the sandbox id %q is malformed", spec.ID)
	case spec.CPUs < 1 || spec.CPUs > maxCPUs || spec.PIDs < 1:
		return fmt.Errorf("qemu: a sandbox has 1 to %d processors and at least one process", maxCPUs)
	case spec.MemoryMB < minMemoryMB || spec.MemoryMB > maxMemoryMB:
		return fmt.Errorf("qemu: a sandbox has %d to %d MB of memory", minMemoryMB, maxMemoryMB)
	case spec.Network != sandbox.NetworkNone && spec.Network != sandbox.NetworkProxy:
		return fmt.Errorf("%w: qemu: the network %q would reach this machine's own services; choose proxy", sandbox.ErrUnavailable, spec.Network)
	case spec.Workspace != "":
		return fmt.Errorf("%w: qemu: no workspace can be mounted", sandbox.ErrUnavailable)
	}
	return nil
}

func validID(id string) bool { return strings.HasPrefix(id, idPrefix) && wire.ValidSandbox(id) }

// Sandbox is one virtual machine.
type Sandbox struct {
	d       *Driver
	id, dir string
	cmd     *exec.Cmd
	session *yamux.Session
	life    *process.Life

	mu      sync.Mutex // one stop at a time
	stopped bool
}

func (s *Sandbox) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Sandbox) boot(ctx context.Context, spec sandbox.Spec) error {
	if err := s.prepare(ctx, spec); err != nil {
		return err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer func() { _ = theirs.Close() }() // qemu has its own
	if s.session, err = listen(ours); err != nil {
		return errors.Join(err, ours.Close())
	}
	program, err := exec.LookPath(s.d.o.Program)
	if err != nil {
		return err
	}
	console, err := os.OpenFile(s.path("output"), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, atomicfile.Mode)
	if err != nil {
		return err
	}
	defer func() { _ = console.Close() }()             // qemu has its own
	cmd := exec.Command(program, s.arguments(spec)...) //nolint:noctx // it outlives the start, and Stop ends it
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = console
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	go func() {
		_ = cmd.Wait()        // Err says that it ended
		_ = s.session.Close() // so does a second close
		s.life.Over()
	}()
	return nil
}

// prepare writes kernel and initramfs into the sandbox's own folder, the
// kernel from the very bytes that were hashed.
func (s *Sandbox) prepare(ctx context.Context, spec sandbox.Spec) error {
	k, err := s.d.kernel()
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("kernel"), k.image, atomicfile.Mode); err != nil {
		return err
	}
	img, err := s.d.o.Artifacts.Image(artifact.SandboxImage, s.d.o.Platform)
	if err != nil {
		return err
	}
	if err := img.Unpack(ctx, s.path("rootfs"), artifact.DefaultLimits); err != nil {
		return err
	}
	if err := s.writeInitramfs(spec, k); err != nil {
		return err
	}
	return os.RemoveAll(s.path("rootfs"))
}

// arguments of qemu. Devices are those named and no others.
func (s *Sandbox) arguments(spec sandbox.Spec) []string {
	accel, cpu := "tcg", "max"
	if hardware() {
		accel, cpu = "kvm", "host"
	}
	return []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none", "-nic", "none",
		"-machine", "q35,accel=" + accel, "-cpu", cpu, "-smp", fmt.Sprint(spec.CPUs), "-m", fmt.Sprint(spec.MemoryMB),
		"-kernel", s.path("kernel"), "-initrd", s.path("initramfs"),
		"-append", "console=ttyS0 quiet panic=-1 reboot=t rdinit=" + initramfs.InitPath,
		"-serial", "file:" + s.path("console"),
		"-device", "virtio-serial-pci", "-chardev", "socket,id=bridge,fd=3", "-device", "virtserialport,chardev=bridge,nr=1,name=" + portName,
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-name", spec.ID,
	}
}

// portName is the serial port's in the guest; nr=1 makes it /dev/vport0p1
// where nothing else is on the bus.
const (
	portName   = "org.osaurus.bridge"
	portDevice = "/dev/vport0p1"
)

// hardware says whether the processor's own virtualisation can be used: a
// device alone is not enough, since others hide behind its name.
func hardware() bool {
	if unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) != nil {
		return false
	}
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	flags := strings.Fields(string(raw))
	return slices.Contains(flags, "vmx") || slices.Contains(flags, "svm")
}

// socketPair is a wire that nobody else can hold an end of.
func socketPair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	mine := os.NewFile(uintptr(fds[0]), "bridge")
	theirs = os.NewFile(uintptr(fds[1]), "bridge")
	ours, err = net.FileConn(mine)
	if err = errors.Join(err, mine.Close()); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// listen waits for the guest to begin a yamux session. A machine that boots
// answers nothing for a while, so its silence means nothing: whether it lives
// is seen from its process.
func listen(c net.Conn) (*yamux.Session, error) {
	config := yamux.DefaultConfig()
	config.EnableKeepAlive = false
	config.LogOutput = io.Discard
	return yamux.Server(c, config)
}

// ID implements sandbox.Sandbox.
func (s *Sandbox) ID() string { return s.id }

// BridgeListener implements sandbox.Sandbox.
func (s *Sandbox) BridgeListener() net.Listener { return s.session }

// Done implements sandbox.Sandbox.
func (s *Sandbox) Done() <-chan struct{} { return s.life.Done() }

// Err implements sandbox.Sandbox.
func (s *Sandbox) Err() error { return s.life.Err() }

// Output is the end of what the console and qemu printed.
func (s *Sandbox) Output() string {
	console, _ := os.ReadFile(s.path("console")) // absent before the boot
	said, _ := os.ReadFile(s.path("output"))
	return clip(slices.Concat(console, said))
}

// Stop implements sandbox.Sandbox.
func (s *Sandbox) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	if s.cmd == nil {
		s.life.Over() // it never ran, and nobody else has it
		if s.session != nil {
			_ = s.session.Close() // nothing was written
		}
	} else if err := s.life.End(ctx, func() { _ = s.cmd.Process.Kill() }); err != nil {
		return err
	}
	err := os.RemoveAll(s.dir)
	s.stopped = err == nil || s.cmd == nil
	return err
}

// Sweep implements sandbox.Driver.
func (d *Driver) Sweep(ctx context.Context) error {
	prefix := d.runs() + string(filepath.Separator) + idPrefix
	err := process.KillAll(ctx, func(args []string) bool {
		i := slices.Index(args, "-kernel")
		return i >= 0 && i+1 < len(args) && strings.HasPrefix(args[i+1], prefix)
	})
	if err != nil {
		return fmt.Errorf("qemu: %w", err)
	}
	names, err := os.ReadDir(d.runs())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, n := range names {
		if validID(n.Name()) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(d.runs(), n.Name())))
		}
	}
	return err
}

func clip(b []byte) string {
	b = bytes.TrimSpace(b)
	return string(b[max(0, len(b)-maxConsole):])
}
