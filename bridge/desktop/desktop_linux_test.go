package desktop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"go.uber.org/goleak"

	"osaurus/bridge/internal/plain"
	"osaurus/engine/address"
	"osaurus/engine/control"
	"osaurus/engine/pairing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bus starts a session bus of the test's own and makes it this process's.
func bus(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("needs dbus-daemon (Debian package dbus)")
	}
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--print-address", "--address=unix:path="+filepath.Join(t.TempDir(), "bus"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address = strings.TrimSpace(address)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
	return address
}

// shown is one notification as the service received it.
type shown struct {
	id          uint32
	app, icon   string
	title, text string
	actions     []string
	hints       map[string]dbus.Variant
	lasts       int32
}

// daemon is a notification service.
type daemon struct {
	conn         *dbus.Conn
	capabilities []string
	mu           sync.Mutex
	last         uint32
	shown        chan shown
	closed       chan uint32
	// early answers before Notify returned.
	early string
}

func startDaemon(t *testing.T, address string, capabilities ...string) *daemon {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{conn: conn, capabilities: capabilities, shown: make(chan shown, 10), closed: make(chan uint32, 10)}
	if err := conn.Export(d, objectPath, service); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(service, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("the name: %v, %v", reply, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return d
}

func (d *daemon) GetCapabilities() ([]string, *dbus.Error) { return d.capabilities, nil }

func (d *daemon) Notify(app string, _ uint32, icon, title, text string, actions []string, hints map[string]dbus.Variant, lasts int32) (uint32, *dbus.Error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	if d.early != "" {
		d.emit("ActionInvoked", d.last, d.early)
	}
	d.shown <- shown{d.last, app, icon, title, text, actions, hints, lasts}
	return d.last, nil
}

func (d *daemon) CloseNotification(id uint32) *dbus.Error {
	d.closed <- id
	return nil
}

func (d *daemon) emit(signal string, args ...any) {
	if err := d.conn.Emit(objectPath, service+"."+signal, args...); err != nil {
		panic(err)
	}
}

func connect(t *testing.T) *Notifier {
	t.Helper()
	n, err := Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func within[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("%s: not in time", what)
		panic("unreachable")
	}
}

func TestAnswers(t *testing.T) {
	d := startDaemon(t, bus(t), "actions", "body", "body-markup")
	n := connect(t)
	answers := make(chan string, 10)
	notice := Notice{Title: "A & B\x1b[31m", Text: "<b>&\x00", Actions: []Action{{"default", "Review"}, {"deny", "Deny"}}, Lasts: time.Minute, Urgent: true}
	show := func() (shown, func()) {
		t.Helper()
		remove, err := n.Show(t.Context(), notice, func(a string) { answers <- a })
		if err != nil {
			t.Fatal(err)
		}
		return within(t, "shown", d.shown), remove
	}
	got, _ := show()
	if got.title != "A & B[31m" || got.text != "&lt;b&gt;&amp;" || !reflect.DeepEqual(got.actions, []string{"default", "Review", "deny", "Deny"}) || got.lasts != 60000 || got.hints["urgency"].Value() != byte(2) {
		t.Errorf("shown as %+v", got)
	}
	d.emit("ActionInvoked", got.id+7, "deny") // of somebody else
	d.emit("ActionInvoked", got.id, "deny")
	d.emit("ActionInvoked", got.id, "default") // the first counts
	d.emit("NotificationClosed", got.id, uint32(2))
	if a := within(t, "an answer", answers); a != "deny" {
		t.Errorf("answered %q", a)
	}
	got, _ = show()
	d.emit("NotificationClosed", got.id, uint32(1)) // it expired
	d.emit("ActionInvoked", got.id, "deny")
	got, remove := show()
	remove()
	if id := within(t, "taken away", d.closed); id != got.id {
		t.Errorf("took away %d, not %d", id, got.id)
	}
	d.emit("ActionInvoked", got.id, "deny")
	remove() // once more
	d.mu.Lock()
	d.early = "default"
	d.mu.Unlock()
	show()
	if a := within(t, "an answer that overtakes the reply", answers); a != "default" {
		t.Errorf("answered %q", a)
	}
	if len(answers) != 0 || len(d.closed) != 0 {
		t.Errorf("%d more answers, %d more removals", len(answers), len(d.closed))
	}
}

// TestForeignSignals: what another program on the bus sends is no answer.
func TestForeignSignals(t *testing.T) {
	address := bus(t)
	d := startDaemon(t, address, "actions")
	n := connect(t)
	answers := make(chan string, 10)
	if _, err := n.Show(t.Context(), Notice{Title: "x"}, func(a string) { answers <- a }); err != nil {
		t.Fatal(err)
	}
	id := within(t, "shown", d.shown).id
	other, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Emit(objectPath, service+".ActionInvoked", id, "forged"); err != nil {
		t.Fatal(err)
	}
	// The other's signal is before this on the bus.
	if err := other.BusObject().Call("org.freedesktop.DBus.GetId", 0).Err; err != nil {
		t.Fatal(err)
	}
	d.emit("ActionInvoked", id, "real")
	if a := within(t, "an answer", answers); a != "real" {
		t.Errorf("answered %q", a)
	}
}

func TestPlainService(t *testing.T) {
	d := startDaemon(t, bus(t), "body")
	n := connect(t)
	if n.Offers() {
		t.Error("it offers buttons")
	}
	long := strings.Repeat("ü", plain.MaxText)
	if _, err := n.Show(t.Context(), Notice{Title: long, Text: "<b>", Actions: []Action{{"deny", "Deny"}}}, nil); err != nil {
		t.Fatal(err)
	}
	got := within(t, "shown", d.shown)
	if len(got.actions) != 0 || got.text != "<b>" || got.title != strings.Repeat("ü", plain.MaxText/2)+"…" || got.lasts != 0 {
		t.Errorf("shown as %+v", got)
	}
}

func TestNobodyThere(t *testing.T) {
	address := bus(t)
	for _, a := range []string{address, "", "autolaunch:", "unix:path=" + filepath.Join(t.TempDir(), "none")} {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", a)
		if n, err := Connect(t.Context()); !errors.Is(err, ErrUnavailable) || n != nil {
			t.Errorf("%q: %v", a, err)
		}
	}
}

// host is one with requests that wait.
type host struct {
	changes chan control.Approvals
	answers chan control.Answer
}

func (h *host) WatchApprovals(ctx context.Context, each func(control.Approvals) error) error {
	for {
		select {
		case s := <-h.changes:
			if err := each(s); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (h *host) Answer(_ context.Context, a control.Answer) error {
	h.answers <- a
	return nil
}

// TestApprovals: a request shows Review and Deny, and nothing approves it.
func TestApprovals(t *testing.T) {
	d := startDaemon(t, bus(t), "actions")
	n := connect(t)
	h := &host{make(chan control.Approvals), make(chan control.Answer, 10)}
	reviews := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Approvals(ctx, h, func(p pairing.Prompt) { reviews <- p.ID }) }()
	wait := func(n int) shown {
		t.Helper()
		s := control.Approvals{Current: &pairing.Prompt{ID: fmt.Sprint(n), AgentName: "Ada", Connector: address.Address{19: 1}, Source: "10.0.0.9", Expires: time.Now().Add(time.Minute)}}
		h.changes <- s
		h.changes <- s // told twice, shown once
		return within(t, "shown", d.shown)
	}
	got := wait(1)
	if !strings.Contains(got.title, "Ada") || !strings.Contains(got.text, "10.0.0.9") || !reflect.DeepEqual(got.actions, []string{"default", "Review", "review", "Review", "deny", "Deny"}) {
		t.Errorf("shown as %+v", got)
	}
	d.emit("ActionInvoked", got.id, "deny")
	if a := within(t, "the answer", h.answers); a != (control.Answer{ID: "1", Validity: "deny"}) {
		t.Errorf("answered %+v", a)
	}
	h.changes <- control.Approvals{}
	for i, action := range []string{"default", "review"} {
		got = wait(i + 2)
		d.emit("ActionInvoked", got.id, action)
		if id := within(t, "a review", reviews); id != fmt.Sprint(i+2) {
			t.Errorf("reviewed %s", id)
		}
	}
	got = wait(4)
	d.emit("ActionInvoked", got.id, "approve") // not ours
	got = wait(5)
	for len(d.closed) > 0 { // 4, if it was not answered before
		<-d.closed
	}
	h.changes <- control.Approvals{} // answered elsewhere
	if id := within(t, "taken away", d.closed); id != got.id {
		t.Errorf("took away %d, not %d", id, got.id)
	}
	got = wait(6)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if id := within(t, "taken away at the end", d.closed); id != got.id {
		t.Errorf("took away %d, not %d", id, got.id)
	}
	if len(d.shown)+len(h.answers)+len(reviews) != 0 {
		t.Error("more was shown, answered or reviewed")
	}
}
