package panes_test

import (
	"slices"
	"testing"

	"osaurus/app/panes"
	"osaurus/engine"
	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/control"
	"osaurus/engine/relay"
)

// actions lists what a row offers.
func actions(r panes.Row) (list []string) {
	for _, a := range r.Actions {
		list = append(list, a.ID)
	}
	return list
}

func TestRelay(t *testing.T) { // MB-4, on the panes
	t.Parallel()
	on, off := "relay-on:A1", "relay-off:A1"
	for state, want := range map[relay.State]struct {
		badge   string
		tone    panes.Tone
		text    bool
		actions []string
	}{
		relay.Disconnected:    {"Waits", panes.Plain, true, []string{off}},
		relay.Connecting:      {"Connecting", panes.Warn, false, []string{off}},
		relay.Connected:       {"Connected", panes.Good, false, []string{off}},
		relay.Failed:          {"Failed", panes.Danger, false, []string{on, off}},
		relay.ServedElsewhere: {"Served elsewhere", panes.Warn, true, []string{on, off}},
	} {
		h := newScripted()
		h.relays = control.Relays{Domain: "relay.example", Agents: []engine.Relay{{Status: relay.Status{Agent: "A1", State: state, URL: "https://rex.example"}, Name: "Rex"}}}
		d := drive(t, h, panes.Env{})
		s := d.mustSection(panes.Peers, "relay")
		r := s.Rows[0]
		if len(r.Badges) != 1 || r.Badges[0] != (panes.Badge{Text: want.badge, Tone: want.tone}) || (r.Text != "") != want.text || !slices.Equal(actions(r), want.actions) || fact(s.Facts, "Relay server") != "relay.example" {
			t.Errorf("%s: %+v", state, s)
		}
		if url := fact(r.Facts, "Public address"); (url == "https://rex.example") != (state == relay.Connected) {
			t.Errorf("%s shows the address %q", state, url)
		}
		for _, i := range d.Menu().Items {
			for _, below := range i.Items {
				if below.ID != off || !below.Checked || below.Detail != want.badge {
					t.Errorf("%s: the menu has %+v", state, below)
				}
			}
		}
		if len(want.actions) == 2 { // its place is claimed again without a question
			d.do(on)
			if d.sheet() != nil || h.called("relay") != 1 {
				t.Errorf("%s: enabling again: %v", state, h.calls)
			}
		}
	}
}

func TestRelayIsSwitched(t *testing.T) {
	t.Parallel()
	h := newScripted()
	h.agents = append(h.agents, control.Agent{Agent: agents.Agent{ID: "A2", Name: "Nobody"}}, control.Agent{Agent: agents.Agent{ID: "A3", Name: "Osaurus", Address: address.Address{19: 3}, BuiltIn: true}})
	d := drive(t, h, panes.Env{})
	rows := d.mustSection(panes.Peers, "relay").Rows
	if len(rows) != 1 || badges(rows[0])[0] != "Off" || !slices.Equal(actions(rows[0]), []string{"relay-on:A1"}) {
		t.Fatalf("%+v", rows)
	}
	for _, not := range []string{"relay-off:A1", "relay-on:A2", "relay-on:A3"} {
		if d.refused(not) == nil {
			t.Errorf("%s is offered", not)
		}
	}
	d.do("relay-on:A1")
	if s := d.sheet(); s == nil || s.Tone != panes.Danger || h.called("relay") != 0 {
		t.Fatalf("nothing asks before an agent is reached from the internet: %+v", s)
	}
	if d.Do(panes.Input{Action: "confirm", Via: panes.Return}) == nil {
		t.Error("Return confirms")
	}
	d.do("confirm")
	if h.called("relay-on A1") != 1 {
		t.Errorf("%v", h.calls)
	}
	h.mu.Lock()
	h.relays.Agents = []engine.Relay{{Status: relay.Status{Agent: "A1", State: relay.Connected}, Name: "Rex"}}
	h.mu.Unlock()
	d.Refresh()
	d.settled()
	d.choose(panes.Peers, "relay-off:")
	if d.sheet() != nil || h.called("relay-off A1") != 1 {
		t.Errorf("%v", h.calls)
	}
}
