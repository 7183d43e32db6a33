package panes

import (
	"context"
	"errors"
	"io/fs"
	"strconv"

	"osaurus/engine"
	"osaurus/engine/control"
	"osaurus/engine/settings"
)

// Phase is what the host of this machine is doing.
type Phase uint8

// The phases. The zero value is stopped.
const (
	Stopped Phase = iota
	Starting
	Running
	Failed
)

// Failure is why the host did not start.
type Failure uint8

// The failures that have words of their own.
const (
	OtherFailure Failure = iota
	PortInvalid          // not 1 to 65535
	PortInUse
	PortForbidden // the system does not allow it
)

// ServingState is the host as whoever starts it sees it.
type ServingState struct {
	Phase   Phase
	Port    int
	Failure Failure
	Err     error
}

// FailedState says why the host did not start.
func FailedState(err error) ServingState {
	s := ServingState{Phase: Failed, Err: err}
	at, ok := errors.AsType[*engine.PortError](err)
	if ok {
		s.Port = at.Port
	}
	switch {
	case errors.Is(err, settings.ErrPort):
		s.Failure = PortInvalid
	case ok && errors.Is(err, engine.ErrPortInUse):
		s.Failure = PortInUse
	case ok && errors.Is(err, fs.ErrPermission):
		s.Failure = PortForbidden
	}
	return s
}

// Serving starts and stops the host in this process.
type Serving interface {
	Start()
	Stop()
}

// SetServing says how the host is. Where nobody calls it, the host is what
// answers on the socket.
func (m *Model) SetServing(s ServingState) {
	m.update(func() {
		if s.Phase == Running && m.serving.Phase != Running {
			m.refresh()
		}
		m.serving = s
	})
}

// Menu is the status item and its menu, MB-1 to MB-5.
type Menu struct {
	Line    string // stopped, starting, running on port N, or what is wrong
	Tone    Tone
	URL     string // a click copies it; "" while nothing is served
	Running bool   // a request runs: a dot on the icon
	Waiting bool   // a request to pair waits: another dot
	Items   []Item
}

// Item is one line of the menu.
type Item struct {
	Action
	Shortcut string // with the command key
	Checked  bool
	Detail   string // behind the label
	Items    []Item
}

// Menu returns the menu as it is to be drawn now.
func (m *Model) Menu() Menu {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := Menu{Waiting: m.approval.prompt != nil, Running: m.facts.status.InFlight > 0, Items: m.menuItems()}
	v.Line, v.Tone = m.stateLine()
	if s := m.hostState(); s.Phase == Running {
		v.URL = "http://127.0.0.1:" + strconv.Itoa(s.Port)
	}
	return v
}

// hostState is what was said, or what answers.
func (m *Model) hostState() ServingState {
	if m.env.Serving == nil && m.facts.known && m.facts.err == nil {
		return ServingState{Phase: Running, Port: m.facts.status.Port}
	}
	return m.serving
}

func (m *Model) stateLine() (string, Tone) {
	s := m.hostState()
	switch s.Phase {
	case Starting:
		return m.t("menu.starting"), Plain
	case Running:
		return m.t("menu.running", "port", strconv.Itoa(s.Port)), Good
	case Failed:
		return m.failure(s), Danger
	case Stopped:
	}
	return m.t("menu.stopped"), Plain
}

func (m *Model) failure(s ServingState) string {
	port := strconv.Itoa(s.Port)
	switch s.Failure {
	case PortInvalid:
		return m.t("menu.port.invalid")
	case PortInUse:
		return m.t("menu.port.used", "port", port)
	case PortForbidden:
		return m.t("menu.port.forbidden", "port", port)
	case OtherFailure:
	}
	if s.Err != nil {
		return m.explain(s.Err)
	}
	return m.t("menu.failed")
}

func (m *Model) menuItems() []Item {
	waiting := 0
	if m.approval.prompt != nil {
		waiting = 1
	}
	items := []Item{
		{Action: Action{ID: "settings", Label: m.t("menu.settings"), Effect: Go, Text: string(Identity)}, Shortcut: ","},
		{Action: Action{ID: "requests", Label: m.t("menu.requests", "n", strconv.Itoa(waiting)), Effect: Go, Text: string(Requests)}},
		{Action: Action{ID: "nearby", Label: m.t("menu.nearby"), Effect: Go, Text: string(Peers)}},
	}
	running := m.hostState().Phase == Running
	if running {
		items = append(items, Item{Action: Action{ID: "expose", Label: m.t("menu.expose"), Off: m.working != nil}, Checked: m.facts.settings.Expose})
		items = append(items, Item{Action: Action{Label: m.t("menu.relay")}, Items: m.relayItems()})
	}
	if m.env.Serving != nil {
		items = append(items, m.startItem())
	}
	return append(items, Item{Action: Action{ID: "about", Label: m.t("menu.about")}}, Item{Action: Action{ID: "quit", Label: m.t("menu.quit")}, Shortcut: "q"})
}

// startItem starts, stops, or tries again after an error.
func (m *Model) startItem() Item {
	switch m.serving.Phase {
	case Running:
		return Item{Action: Action{ID: "host-stop", Label: m.t("menu.stop"), Off: m.working != nil}}
	case Starting:
		return Item{Action: Action{ID: "host-start", Label: m.t("menu.start"), Off: true}}
	case Failed:
		return Item{Action: Action{ID: "host-start", Label: m.t("common.retry")}}
	case Stopped:
	}
	return Item{Action: Action{ID: "host-start", Label: m.t("menu.start")}}
}

// menuActions are those of the menu that the model carries out.
func (m *Model) menuActions() []Action {
	var list []Action
	var walk func([]Item)
	walk = func(items []Item) {
		for _, i := range items {
			if _, ours := handlers[verbOf(i.ID)]; ours && i.Effect == "" {
				list = append(list, i.Action)
			}
			walk(i.Items)
		}
	}
	walk(m.menuItems())
	return list
}

// PassphraseQuestion asks for the passphrase of a sealed keystore, before there
// is a host that could be asked anything. The first action gives it.
func (m *Model) PassphraseQuestion(again bool) Sheet {
	text := m.t("passphrase.text")
	if again {
		text = m.t("passphrase.again")
	}
	return Sheet{Kind: "passphrase", Title: m.t("passphrase.title"), Text: []string{text}, Actions: []Action{{ID: "confirm", Label: m.t("passphrase.open"), Primary: true}, {ID: "cancel", Label: m.t("common.cancel")}}}
}

func (m *Model) startHost(string) {
	if m.env.Serving != nil {
		m.serving.Phase = Starting
		m.work.Go(m.env.Serving.Start)
	}
}

func (m *Model) stopHost(string) {
	if m.env.Serving != nil {
		m.work.Go(m.env.Serving.Stop)
	}
}

// exposeSheet warns before the host listens on every network; going back needs
// no question.
func (m *Model) exposeSheet(string) {
	set := m.facts.settings
	set.Expose = !set.Expose
	save := func(Input) {
		m.start(job{pane: Identity, title: m.t("menu.expose"), run: func(ctx context.Context) error { return m.host.SetSettings(ctx, set) }, done: func() { m.say(Identity, Banner{Tone: Good, Title: m.t("expose.saved")}) }})
	}
	if !set.Expose {
		save(Input{})
		return
	}
	m.confirm(Sheet{Kind: "expose", Tone: Danger, Title: m.t("expose.title"), Text: []string{m.t("expose.text")}}, m.t("expose.action"), save)
}

var _ Host = (*control.Client)(nil)
