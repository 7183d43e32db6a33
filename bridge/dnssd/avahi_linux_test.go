package dnssd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"osaurus/engine/address"
	"osaurus/engine/discovery"
	"osaurus/engine/discovery/discoverytest"
	"osaurus/engine/discovery/mdns"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><auth>EXTERNAL</auth><listen>unix:path=%s</listen>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="method_return"/><allow send_type="error"/><allow send_type="signal"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>`

const avahiConfig = `[server]
host-name=%s
use-ipv4=yes
use-ipv6=no
allow-interfaces=%s
enable-dbus=yes
[wide-area]
enable-wide-area=no
[publish]
publish-hinfo=no
publish-workstation=no
`

// avahi is a host with a system bus and an Avahi of its own. The daemon writes
// to a fixed place in /run, so its namespace has a /run of its own.
type avahi struct {
	dir, conf string
	bus       *exec.Cmd
	daemon    *exec.Cmd
	exited    chan struct{}
}

func avahiSide() discoverytest.Side {
	h, r := &avahi{}, New()
	return discoverytest.Side{Advertiser: r, Browser: r, Start: h.start, Do: h.do, Stop: h.stop}
}

func mdnsSide() discoverytest.Side {
	m := mdns.New(mdns.Options{Host: "embedded"})
	return discoverytest.Side{Advertiser: m, Browser: m}
}

func TestMain(m *testing.M) {
	discoverytest.Main(map[string]func() discoverytest.Side{"avahi": avahiSide, "mdns": mdnsSide})
	goleak.VerifyTestMain(m)
}

func child(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (h *avahi) start(iface string) (err error) {
	if err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("none", "/run", "tmpfs", 0, "")); err != nil {
		return fmt.Errorf("a /run of its own: %w", err)
	}
	h.dir = "/run"
	socket := filepath.Join(h.dir, "bus.sock")
	conf := filepath.Join(h.dir, "bus.conf")
	h.conf = filepath.Join(h.dir, "avahi.conf")
	if err := errors.Join(os.WriteFile(conf, fmt.Appendf(nil, busConfig, socket), 0o600), os.WriteFile(h.conf, fmt.Appendf(nil, avahiConfig, "host-"+iface, iface), 0o600)); err != nil {
		return err
	}
	if err := os.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket); err != nil {
		return err
	}
	h.bus = child("dbus-daemon", "--config-file="+conf, "--nofork", "--print-address")
	out, err := h.bus.StdoutPipe()
	if err != nil {
		return err
	}
	if err := h.bus.Start(); err != nil {
		return err
	}
	if _, err := out.Read(make([]byte, 1024)); err != nil { // its address: it listens
		return fmt.Errorf("the bus does not start: %w", err)
	}
	return h.up()
}

// up starts the daemon and waits until it serves.
func (h *avahi) up() error {
	h.daemon = child("avahi-daemon", "--no-drop-root", "--no-chroot", "--no-rlimits", "--no-proc-title", "-f", h.conf)
	log, err := h.daemon.StderrPipe()
	if err != nil {
		return err
	}
	if err := h.daemon.Start(); err != nil {
		return err
	}
	ready, exited, daemon := make(chan error, 1), make(chan struct{}), h.daemon
	h.exited = exited
	go func() {
		defer close(exited)
		var seen strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := log.Read(buf)
			seen.Write(buf[:n])
			if strings.Contains(seen.String(), "Server startup complete") {
				select {
				case ready <- nil:
				default:
				}
			}
			if err != nil {
				break
			}
		}
		select {
		case ready <- fmt.Errorf("avahi-daemon does not start: %s", seen.String()):
		default:
		}
		_ = daemon.Wait()
	}()
	return <-ready
}

func (h *avahi) do(op string) error {
	switch op {
	case "stop": // it says goodbye for all
		return h.end(syscall.SIGTERM)
	case "kill":
		return h.end(syscall.SIGKILL)
	case "start":
		return h.up()
	}
	return errors.New("no such operation: " + op)
}

func (h *avahi) end(sig syscall.Signal) error {
	err := h.daemon.Process.Signal(sig)
	<-h.exited
	// A daemon that was killed leaves its pid file, which stops the next one.
	return errors.Join(err, os.RemoveAll("/run/avahi-daemon"))
}

func (h *avahi) stop() error {
	if h.bus == nil {
		return nil
	}
	_ = h.daemon.Process.Kill() // it may have ended
	<-h.exited
	err := h.bus.Process.Kill()
	_ = h.bus.Wait() // it was killed
	return err
}

// needAvahi skips where the machine lacks what a host is made of.
func needAvahi(t *testing.T) {
	t.Helper()
	for program, pkg := range map[string]string{"avahi-daemon": "avahi-daemon", "dbus-daemon": "dbus"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s (Debian package %s)", program, pkg)
		}
	}
	if errors.Is(load(), ErrNoLibrary) {
		t.Skip("needs libdns_sd.so.1 (Debian package libavahi-compat-libdnssd1)")
	}
}

func suite(t *testing.T, here discoverytest.Side, there *discoverytest.Far) {
	discoverytest.Run(t, there, here.Browser)
}

func TestAvahiToAvahi(t *testing.T) {
	t.Parallel()
	needAvahi(t)
	discoverytest.TwoHosts(t, "TestAvahiToAvahi", avahiSide(), "avahi", suite)
}

// TestAvahiToEmbedded: what Avahi advertises, the embedded browser finds.
func TestAvahiToEmbedded(t *testing.T) {
	t.Parallel()
	needAvahi(t)
	discoverytest.TwoHosts(t, "TestAvahiToEmbedded", mdnsSide(), "avahi", suite)
}

// TestEmbeddedToAvahi: what the embedded responder advertises, Avahi finds.
func TestEmbeddedToAvahi(t *testing.T) {
	t.Parallel()
	needAvahi(t)
	discoverytest.TwoHosts(t, "TestEmbeddedToAvahi", avahiSide(), "mdns", suite)
}

// TestDaemonsDie: advertisements come back with their daemon, and so does what
// was browsed; what is away for less than its grace was never away.
func TestDaemonsDie(t *testing.T) {
	t.Parallel()
	needAvahi(t)
	discoverytest.TwoHosts(t, "TestDaemonsDie", avahiSide(), "avahi", daemonsDie)
}

func daemonsDie(t *testing.T, here discoverytest.Side, there *discoverytest.Far) {
	ctx, cancel := context.WithCancel(t.Context())
	events, ended := make(chan discovery.Event, 100), make(chan error, 1)
	go func() { ended <- here.Browser.Browse(ctx, func(e discovery.Event) { events <- e }) }()
	expect := func(what string, lost bool, name string) {
		t.Helper()
		select {
		case e := <-events:
			if e.Lost != lost || e.Instance.Name != name {
				t.Fatalf("%s: got %+v", what, e)
			}
		case <-time.After(45 * time.Second):
			t.Fatalf("%s: not in time", what)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	one := discovery.Instance{AgentID: "00000000-0000-4000-8000-000000000001", Name: "Ada", Port: 4001, Address: address.Address{19: 1}}
	must(there.Publish(ctx, []discovery.Instance{one}))
	expect("published", false, "Ada")

	must(here.Do("kill"))
	must(here.Do("start"))
	one.Description = "our daemon died and is back"
	must(there.Publish(ctx, []discovery.Instance{one}))
	expect("after our daemon died", false, "Ada") // a loss would have come first

	must(there.Do("stop"))
	expect("their daemon stops", true, "Ada")
	must(there.Do("start"))
	expect("their daemon is back", false, "Ada")

	must(here.Do("stop"))
	expect("our daemon stops", true, "Ada")
	must(here.Do("start"))
	expect("our daemon is back", false, "Ada")

	must(there.Do("kill"))
	deadline := time.Now().Add(time.Minute)
	for there.Publish(ctx, []discovery.Instance{one}) == nil { // until the bus has told that the daemon is gone
		if time.Now().After(deadline) {
			t.Fatal("published without a daemon")
		}
		<-time.After(20 * time.Millisecond)
	}
	cancel()
	must(<-ended)
}

// TestTakenNames: a name that is taken on the same daemon gets a number.
func TestTakenNames(t *testing.T) {
	t.Parallel()
	needAvahi(t)
	discoverytest.TwoHosts(t, "TestTakenNames", avahiSide(), "avahi", func(t *testing.T, here discoverytest.Side, there *discoverytest.Far) {
		second := New()
		for n, a := range []discovery.Advertiser{here.Advertiser, there, second} {
			if err := a.Publish(t.Context(), []discovery.Instance{{AgentID: agentID, Name: "Ada", Port: 4001 + n}}); err != nil {
				t.Fatal(err)
			}
		}
		claimed := make(chan int, 1)
		second.a.loop.do(func() { claimed <- second.a.entries[agentID].tries })
		if tries := <-claimed; tries != 1 {
			t.Errorf("it came to its name after %d tries", tries)
		}
		for _, a := range []discovery.Advertiser{second, there, here.Advertiser} {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestWithoutDaemon: where nobody answers, everything says so at once. The
// bus it looks for is nowhere, whatever runs on this machine.
func TestWithoutDaemon(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	if err := Available(); err == nil {
		t.Fatal("a responder is said to run")
	}
	r := New()
	if err := r.Browse(t.Context(), func(discovery.Event) {}); err == nil {
		t.Error("browsed")
	}
	if err := r.Publish(t.Context(), nil); err != nil {
		t.Errorf("publishing nothing: %v", err)
	}
	if err := r.Publish(t.Context(), []discovery.Instance{{AgentID: agentID, Name: "Ada", Port: 1}}); err == nil {
		t.Error("published")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
