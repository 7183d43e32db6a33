package desktop

import (
	"context"
	"errors"
	"fmt"
	"html"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"osaurus/bridge/internal/plain"
)

// ErrUnavailable says that nobody in this session shows notifications.
var ErrUnavailable = errors.New("nobody in this session shows notifications")

const (
	service    = "org.freedesktop.Notifications"
	objectPath = "/org/freedesktop/Notifications"
	// patience bounds one call of the service.
	patience = 10 * time.Second
)

// urgent keeps a notification on the screen until it is closed.
const urgent = byte(2)

// Action is a button. ID "default" is a click on the notification itself.
type Action struct{ ID, Label string }

// Notice is one notification. Its texts are plain.
type Notice struct {
	Title, Text string
	Actions     []Action
	Lasts       time.Duration // 0: until it is closed
	Urgent      bool
}

// Notifier is a connection to the service that shows notifications.
type Notifier struct {
	conn         *dbus.Conn
	capabilities []string
	done         chan struct{}

	mu    sync.Mutex
	shown map[uint32]func(action string)
}

// Connect finds the service. Close ends what it returns.
func Connect(ctx context.Context) (*Notifier, error) {
	// The library would start a bus of its own without an address.
	address := os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	if address == "" || strings.HasPrefix(address, "autolaunch:") {
		return nil, ErrUnavailable
	}
	conn, err := dbus.Connect(address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	n := &Notifier{conn: conn, done: make(chan struct{}), shown: map[uint32]func(string){}}
	signals := make(chan *dbus.Signal, 64)
	conn.Signal(signals)
	go n.listen(signals)
	// Signals of others are not ours to believe: the bus checks the sender.
	err = conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(service), dbus.WithMatchInterface(service), dbus.WithMatchObjectPath(objectPath))
	if err == nil {
		err = n.call(ctx, "GetCapabilities").Store(&n.capabilities)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnavailable, err), n.Close())
	}
	return n, nil
}

func (n *Notifier) call(ctx context.Context, method string, args ...any) *dbus.Call {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return n.conn.Object(service, objectPath).CallWithContext(ctx, service+"."+method, 0, args...)
}

// Offers reports whether notifications can carry buttons.
func (n *Notifier) Offers() bool { return slices.Contains(n.capabilities, "actions") }

// Show shows a notice. answered is called at most once, on a goroutine of its
// own, with the action that was chosen; closing, expiry and errors are no
// answer. The function it returns takes the notice away.
func (n *Notifier) Show(ctx context.Context, notice Notice, answered func(action string)) (remove func(), err error) {
	actions := []string{}
	if n.Offers() {
		for _, a := range notice.Actions {
			actions = append(actions, a.ID, a.Label)
		}
	}
	text := plain.Text(notice.Text)
	if slices.Contains(n.capabilities, "body-markup") {
		text = html.EscapeString(text)
	}
	hints := map[string]dbus.Variant{"desktop-entry": dbus.MakeVariant("osaurus")}
	if notice.Urgent {
		hints["urgency"] = dbus.MakeVariant(urgent)
	}
	lasts := int32(0) // never
	if notice.Lasts > 0 {
		lasts = int32(min(notice.Lasts, time.Hour) / time.Millisecond)
	}
	// Held until the id is known: an answer may overtake the reply.
	n.mu.Lock()
	defer n.mu.Unlock()
	var id uint32
	if err := n.call(ctx, "Notify", "Osaurus", uint32(0), "osaurus", plain.Text(notice.Title), text, actions, hints, lasts).Store(&id); err != nil {
		return nil, fmt.Errorf("showing a notification: %w", err)
	}
	n.shown[id] = answered
	return func() { n.remove(context.WithoutCancel(ctx), id) }, nil
}

func (n *Notifier) remove(ctx context.Context, id uint32) {
	n.mu.Lock()
	_, shown := n.shown[id]
	delete(n.shown, id)
	n.mu.Unlock()
	if shown {
		_ = n.call(ctx, "CloseNotification", id) // one that is gone is an error
	}
}

// listen takes answers until the connection ends.
func (n *Notifier) listen(signals <-chan *dbus.Signal) {
	defer close(n.done)
	for s := range signals {
		switch s.Name {
		case service + ".ActionInvoked":
			var id uint32
			var action string
			if dbus.Store(s.Body, &id, &action) == nil {
				if f := n.take(id); f != nil {
					go f(action)
				}
			}
		case service + ".NotificationClosed":
			var id, reason uint32
			if dbus.Store(s.Body, &id, &reason) == nil {
				n.take(id)
			}
		}
	}
}

func (n *Notifier) take(id uint32) func(string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.shown[id]
	delete(n.shown, id)
	return f
}

// Close ends the connection. What is shown stays, without answers.
func (n *Notifier) Close() error {
	err := n.conn.Close()
	<-n.done
	return err
}
