package panes

import (
	"context"

	"osaurus/engine"
	"osaurus/engine/control"
	"osaurus/engine/relay"
)

// relaySection shows which agents are reached through the relay, and lets each
// be, or no longer (MB-4 on the panes).
func (m *Model) relaySection() Section {
	s := Section{ID: "relay", Title: m.t("menu.relay"), Caption: m.t("relay.caption"), Empty: m.t("relay.none")}
	if m.facts.relays.Domain != "" {
		s.Facts = []Fact{{Label: m.t("relay.domain"), Value: m.facts.relays.Domain, Mono: true}}
	}
	for _, a := range m.facts.agents {
		if relayable(a) {
			s.Rows = append(s.Rows, m.relayRow(a))
		}
	}
	return s
}

// relayable tells whether anybody could reach an agent.
func relayable(a control.Agent) bool { return !a.BuiltIn && !a.Address.IsZero() }

// relayOf returns how an agent is at the relay; one that is not enabled is not
// there.
func (m *Model) relayOf(id string) (engine.Relay, bool) {
	for _, r := range m.facts.relays.Agents {
		if r.Agent == id {
			return r, true
		}
	}
	return engine.Relay{}, false
}

func (m *Model) relayRow(a control.Agent) Row {
	on, off := Action{ID: "relay-on:" + a.ID, Label: m.t("relay.action")}, Action{ID: "relay-off:" + a.ID, Label: m.t("relay.off")}
	row := Row{ID: "relay-" + a.ID, Title: a.Name}
	r, enabled := m.relayOf(a.ID)
	if !enabled {
		row.Badges, row.Actions = []Badge{{m.t("relay.state.off"), Plain}}, []Action{on}
		return row
	}
	row.Badges, row.Text, row.Actions = []Badge{m.relayBadge(r.State)}, r.Detail, []Action{off}
	switch r.State {
	case relay.ServedElsewhere:
		on.Label = m.t("relay.again")
		row.Text, row.Actions = m.t("relay.elsewhere"), []Action{on, off}
	case relay.Failed:
		on.Label = m.t("common.retry")
		row.Actions = []Action{on, off}
	case relay.Disconnected:
		row.Text = m.t("relay.waits")
	case relay.Connected:
		row.Facts = []Fact{{Label: m.t("relay.url"), Value: r.URL, Mono: true, Copy: true}}
	case relay.Connecting:
	}
	return row
}

func (m *Model) relayBadge(s relay.State) Badge {
	switch s {
	case relay.Connected:
		return Badge{m.t("relay.state.connected"), Good}
	case relay.Connecting:
		return Badge{m.t("relay.state.connecting"), Warn}
	case relay.Failed:
		return Badge{m.t("relay.state.failed"), Danger}
	case relay.ServedElsewhere:
		return Badge{m.t("relay.state.elsewhere"), Warn}
	case relay.Disconnected:
	}
	return Badge{m.t("relay.state.disconnected"), Plain}
}

// relayItems are the lines of the menu: what is checked is enabled.
func (m *Model) relayItems() []Item {
	var items []Item
	for _, a := range m.facts.agents {
		if !relayable(a) {
			continue
		}
		i := Item{Action: Action{ID: "relay-on:" + a.ID, Label: a.Name, Off: m.working != nil}}
		if r, enabled := m.relayOf(a.ID); enabled {
			i.ID, i.Checked, i.Detail = "relay-off:"+a.ID, true, m.relayBadge(r.State).Text
		}
		items = append(items, i)
	}
	return items
}

// relayOnSheet confirms before an agent becomes reachable from the internet.
// Where that was confirmed already, its place at the relay is claimed again.
func (m *Model) relayOnSheet(id string) {
	if _, enabled := m.relayOf(id); enabled {
		m.switchRelay(id, true)
		return
	}
	a, _ := m.agentByID(id)
	s := Sheet{Kind: "relay", Tone: Danger, Title: m.t("relay.title", "name", a.Name), Text: []string{m.t("relay.text")}}
	m.confirm(s, m.t("relay.action"), func(Input) { m.switchRelay(id, true) })
}

func (m *Model) relayOff(id string) { m.switchRelay(id, false) }

func (m *Model) switchRelay(id string, on bool) {
	m.start(job{pane: Peers, title: m.t("menu.relay"), run: func(ctx context.Context) error {
		return m.host.EnableRelay(ctx, control.EnableRelay{Agent: id, On: on})
	}})
}
