//go:build linux

package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"osaurus/engine/atomicfile"
	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
	"osaurus/engine/sandbox/driver/process"
	"osaurus/engine/sandbox/wire"
)

// cleanup bounds what has to happen although the caller has gone.
const cleanup = 20 * time.Second

// maxSocketPath is what the system lets the path of a Unix socket have.
const maxSocketPath = 103

// Where the guest finds what is for its root alone.
const (
	guestDir   = "/run/host"
	socketName = "relay.sock"
	bootName   = "boot.json"
)

// maxDiagnostic bounds how much of runsc's own words an error carries.
const maxDiagnostic = 600

// errGone says that a sandbox ended without having been stopped.
var errGone = errors.New("gvisor: the sandbox ended by itself")

// Options of a Driver.
type Options struct {
	// Artifacts holds runsc and the image.
	Artifacts *artifact.Store
	// Platform is that of the guest, "linux/" and this machine's architecture.
	Platform string
	// State is a folder of this driver's own. Sockets lie in it, so its path
	// must be short.
	State string
}

// Driver implements sandbox.Driver. As root it limits memory and processes by
// cgroups and mounts the workspace; as anybody else it does neither.
type Driver struct {
	o        Options
	rootless bool
}

// New returns a driver for the user of this process.
func New(o Options) *Driver { return &Driver{o: o, rootless: os.Geteuid() != 0} }

// Name implements sandbox.Driver.
func (d *Driver) Name() string { return "gvisor" }

// MountsWorkspace says whether Spec.Workspace may name a folder. For an
// ordinary user it may not: runsc pretends to give files away, and keeps them.
func (d *Driver) MountsWorkspace() bool { return !d.rootless }

// Available implements sandbox.Driver.
func (d *Driver) Available(ctx context.Context) error {
	cmd, err := d.runsc(ctx, "--version")
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: gvisor: runsc does not run: %s", sandbox.ErrUnavailable, clip(out))
	}
	return nil
}

// Provision implements sandbox.Driver. All it needs was built with this
// program or is fetched once.
func (d *Driver) Provision(ctx context.Context) error {
	pin, err := d.o.Artifacts.Pins.Find(artifact.SandboxImage, d.o.Platform)
	if err != nil {
		return fmt.Errorf("gvisor: %w", err)
	}
	if err := d.o.Artifacts.Pull(ctx, pin); err != nil {
		return absent(err)
	}
	return d.Available(ctx)
}

func (d *Driver) runs() string    { return filepath.Join(d.o.State, "runsc") }
func (d *Driver) bundles() string { return filepath.Join(d.o.State, "run") }

// runsc makes a command of the verified program (decisions D17).
func (d *Driver) runsc(ctx context.Context, args ...string) (*exec.Cmd, error) {
	path, err := d.o.Artifacts.File(artifact.Runsc, d.o.Platform)
	if err != nil {
		return nil, absent(err)
	}
	flags := []string{"--root=" + d.runs(), "--platform=systrap", "--network=none", "--host-uds=open", "--overlay2=root:memory"}
	if d.rootless {
		flags = append(flags, "--rootless", "--ignore-cgroups")
	} else if !cgroupsUsable() {
		flags = append(flags, "--ignore-cgroups")
	}
	cmd := exec.CommandContext(ctx, path, append(flags, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.WaitDelay = time.Second
	return cmd, nil
}

// absent tells what has not been built from what differs from its pin.
func absent(err error) error {
	if errors.Is(err, artifact.ErrAbsent) || errors.Is(err, artifact.ErrPin) {
		return fmt.Errorf("%w: gvisor: %w (make sandbox builds it)", sandbox.ErrUnavailable, err)
	}
	return fmt.Errorf("gvisor: %w", err)
}

// Start implements sandbox.Driver.
func (d *Driver) Start(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	limited := !d.rootless && cgroupsUsable()
	if err := d.check(spec, limited); err != nil {
		return nil, err
	}
	img, err := d.o.Artifacts.Image(artifact.SandboxImage, d.o.Platform)
	if err != nil {
		return nil, absent(err)
	}
	if err := errors.Join(atomicfile.MkdirAll(d.runs()), atomicfile.MkdirAll(d.bundles())); err != nil {
		return nil, fmt.Errorf("gvisor: %w", err)
	}
	s := &Sandbox{d: d, id: spec.ID, dir: filepath.Join(d.bundles(), spec.ID), life: process.NewLife("gvisor: "+spec.ID, errGone)}
	if err := os.Mkdir(s.dir, atomicfile.DirMode); err != nil {
		return nil, fmt.Errorf("gvisor: %w", err)
	}
	if err := s.boot(ctx, spec, img, limited); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("gvisor: %w", err), s.Stop(stop))
	}
	return s, nil
}

// check refuses what this driver does not keep.
func (d *Driver) check(spec sandbox.Spec, limited bool) error {
	switch {
	case !validID(spec.ID):
		return fmt.Errorf("gvisor: the sandbox id %q is malformed", spec.ID)
	case spec.CPUs < 1 || spec.MemoryMB < minMemoryMB || spec.PIDs < 1:
		return errors.New("gvisor: the sandbox has no processors, memory or processes")
	case spec.Network != sandbox.NetworkNone && spec.Network != sandbox.NetworkProxy:
		return fmt.Errorf("%w: gvisor: the network %q would reach this machine's own services; choose proxy", sandbox.ErrUnavailable, spec.Network)
	case d.rootless && spec.Workspace != "":
		return fmt.Errorf("%w: gvisor: an ordinary user cannot mount a workspace for other users", sandbox.ErrUnavailable)
	case !limited && !spec.BestEffortLimits:
		return fmt.Errorf("%w: gvisor: memory and processes cannot be limited by this user. To start without:  osaurus sandbox config --limits best-effort", sandbox.ErrUnavailable)
	}
	return nil
}

// idPrefix begins every sandbox's id (decisions D17).
const idPrefix = "osr-"

const minMemoryMB = 64

func validID(id string) bool { return strings.HasPrefix(id, idPrefix) && wire.ValidSandbox(id) }

// Sandbox is one that runs.
type Sandbox struct {
	d        *Driver
	id, dir  string
	listener *net.UnixListener
	process  *process.Process // nil until it runs
	life     *process.Life

	mu      sync.Mutex // one stop at a time
	stopped bool
}

func (s *Sandbox) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Sandbox) boot(ctx context.Context, spec sandbox.Spec, img *artifact.Image, limited bool) error {
	if err := img.Unpack(ctx, s.path("rootfs"), artifact.DefaultLimits); err != nil {
		return err
	}
	// The root is read-only; users are kept in a copy of its /etc.
	if err := os.CopyFS(s.path("etc"), os.DirFS(s.path("rootfs/etc"))); err != nil {
		return err
	}
	if err := os.Chmod(s.path("etc"), 0o755); err != nil { //nolint:gosec // every agent reads /etc
		return err
	}
	// The listener is there before the first process is.
	if err := s.listen(spec.Boot); err != nil {
		return err
	}
	config, err := json.Marshal(s.d.config(s, spec, limited))
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("config.json"), config, atomicfile.Mode); err != nil {
		return err
	}
	if err := s.run(ctx); err != nil {
		return err
	}
	if s.process, err = s.find(); err != nil {
		return err
	}
	go func() {
		s.process.Wait()
		_ = s.listener.Close() // a second close says so, which nobody needs
		s.life.Over()
	}()
	if limited {
		return verifyMemoryLimit(s.process.PID, int64(spec.MemoryMB)<<20)
	}
	return nil
}

// listen makes the folder that only the guest's root may open: the socket to
// the host and the boot file.
func (s *Sandbox) listen(boot wire.Boot) error {
	if err := os.Mkdir(s.path("host"), atomicfile.DirMode); err != nil {
		return err
	}
	boot.Transport = "unix:" + guestDir + "/" + socketName
	raw, err := boot.Encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.path("host"), bootName), raw, atomicfile.Mode); err != nil {
		return err
	}
	sock := filepath.Join(s.path("host"), socketName)
	if len(sock) > maxSocketPath {
		return fmt.Errorf("the path of the sandbox's socket has %d bytes, more than %d: choose a shorter home", len(sock), maxSocketPath)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		return err
	}
	s.listener = l
	return os.Chmod(sock, atomicfile.Mode)
}

// run starts the sandbox and returns when its first process runs. Output goes
// to files: a pipe would stay open as long as the sandbox lives.
func (s *Sandbox) run(ctx context.Context) error {
	out, err := os.OpenFile(s.path("output"), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, atomicfile.Mode)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // the sandbox has its own
	cmd, err := s.d.runsc(ctx, "run", "-detach", "-bundle", s.dir, "-pid-file", s.path("pid"), s.id)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		said, _ := os.ReadFile(s.path("output"))
		return fmt.Errorf("runsc run: %w: %s", err, clip(said))
	}
	return nil
}

// find takes hold of the process that is the sandbox.
func (s *Sandbox) find() (*process.Process, error) {
	raw, err := os.ReadFile(s.path("pid"))
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return nil, errors.New("runsc named no process")
	}
	p, err := process.Hold(pid)
	if err != nil {
		return nil, fmt.Errorf("the sandbox ended at once: %w", err)
	}
	if !slices.Contains(process.Arguments(pid), s.id) {
		p.Release()
		return nil, errors.New("the sandbox ended at once")
	}
	return p, nil
}

// ID implements sandbox.Sandbox.
func (s *Sandbox) ID() string { return s.id }

// BridgeListener implements sandbox.Sandbox.
func (s *Sandbox) BridgeListener() net.Listener { return s.listener }

// Done implements sandbox.Sandbox.
func (s *Sandbox) Done() <-chan struct{} { return s.life.Done() }

// Err implements sandbox.Sandbox.
func (s *Sandbox) Err() error { return s.life.Err() }

// Output is the end of what the first process and runsc printed.
func (s *Sandbox) Output() string {
	raw, err := os.ReadFile(s.path("output"))
	if err != nil {
		return ""
	}
	return clip(raw)
}

// Stop implements sandbox.Sandbox. It kills the process that is the sandbox,
// which takes everything in it along, hung or not. One that failed can be
// called again.
func (s *Sandbox) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	if s.process == nil {
		s.life.Over() // it never ran, and nobody else has it
	} else if err := s.life.End(ctx, s.process.Kill); err != nil {
		return err
	}
	if s.listener != nil {
		_ = s.listener.Close() // it may be closed already
	}
	err := s.d.remove(ctx, s.id)
	s.stopped = err == nil || s.process == nil
	return err
}

// clip is the end of a text, which is where runsc says what went wrong.
func clip(b []byte) string {
	s := strings.TrimSpace(string(b))
	return s[max(0, len(s)-maxDiagnostic):]
}
