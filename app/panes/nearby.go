package panes

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"osaurus/engine/control"
	"osaurus/engine/discovery"
)

// nearby is what the local network announces.
type nearby struct {
	found  map[string]discovery.Instance // by the name of the service
	failed error
}

// watchNearby keeps looking at the local network until ctx ends. Nobody is
// asked anything: hosts announce themselves.
func (m *Model) watchNearby(ctx context.Context) {
	for ctx.Err() == nil {
		err := m.host.Discover(ctx, func(ev discovery.Event) error {
			m.update(func() { m.sawNearby(ev) })
			return nil
		})
		if ctx.Err() == nil {
			m.nearbyEnded(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryWatch):
		}
	}
}

func (m *Model) sawNearby(ev discovery.Event) {
	m.nearby.failed = nil
	name := ev.Instance.ServiceName()
	switch _, known := m.nearby.found[name]; {
	case ev.Lost:
		delete(m.nearby.found, name)
	case known || len(m.nearby.found) < discovery.MaxInstances:
		m.nearby.found[name] = ev.Instance
	}
}

// nearbyEnded forgets what was found: nobody says any more when it goes. An
// error that comes again is no change.
func (m *Model) nearbyEnded(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	same := (err == nil) == (m.nearby.failed == nil) && (err == nil || err.Error() == m.nearby.failed.Error())
	if same && len(m.nearby.found) == 0 {
		return
	}
	m.nearby.failed = err
	clear(m.nearby.found)
	m.touch()
}

func (m *Model) nearbySection() Section {
	s := Section{ID: "nearby", Title: m.t("nearby.title"), Caption: m.t("nearby.text"), Empty: m.t("nearby.none")}
	if m.nearby.failed != nil {
		s.Empty = m.explain(m.nearby.failed)
	}
	list := make([]discovery.Instance, 0, len(m.nearby.found))
	for _, in := range m.nearby.found {
		list = append(list, in)
	}
	slices.SortFunc(list, func(a, b discovery.Instance) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ServiceName(), b.ServiceName()))
	})
	for _, in := range list {
		s.Rows = append(s.Rows, m.nearbyRow(in))
	}
	return s
}

// nearbyRow offers to pair with what has an address to pin. Anything else
// shows and is refused.
func (m *Model) nearbyRow(in discovery.Instance) Row {
	r := Row{ID: "nearby-" + in.ServiceName(), Title: in.Name, Text: in.Description}
	if !pinnable(in) {
		r.Badges, r.Text = []Badge{{m.t("nearby.unverifiable"), Warn}}, m.t("nearby.unverifiable.text")
		return r
	}
	r.Address, r.Short = in.Address.String(), in.Address.Short()
	r.Facts = m.nearbyFacts(in)
	for _, p := range m.facts.peers {
		if p.Address == in.Address {
			r.Badges = []Badge{{m.t("peers.since"), Good}}
			return r
		}
	}
	r.Actions = []Action{{ID: "nearby-pair:" + nearbyID(in), Label: m.t("nearby.pair")}}
	return r
}

func (m *Model) nearbyFacts(in discovery.Instance) []Fact {
	return []Fact{{Label: m.t("common.address"), Value: in.Address.String(), Mono: true, Copy: true}, {Label: m.t("link.host"), Value: in.BaseURL(), Mono: true}}
}

func pinnable(in discovery.Instance) bool { return !in.Unverifiable && !in.Address.IsZero() }

func nearbyID(in discovery.Instance) string { return in.AgentID + "@" + in.Address.String() }

// nearbyPairSheet asks before another owner is asked. What is confirmed is
// what showed, whatever the network says meanwhile.
func (m *Model) nearbyPairSheet(id string) {
	for _, in := range m.nearby.found {
		if !pinnable(in) || nearbyID(in) != id {
			continue
		}
		s := Sheet{Kind: "nearby", Title: m.t("nearby.pair.title"), Text: []string{m.t("nearby.pair.text")}, Facts: append([]Fact{{Label: m.t("common.name"), Value: in.Name}}, m.nearbyFacts(in)...)}
		m.confirm(s, m.t("nearby.ask"), func(Input) {
			m.start(job{pane: Peers, title: m.t("nearby.asking"), cancels: true, run: func(ctx context.Context) error {
				_, err := m.host.Pair(ctx, control.Pair{BaseURL: in.BaseURL(), AgentID: in.AgentID, Address: in.Address, Name: in.Name, PQ: in.PQ})
				return err
			}, done: func() { m.say(Peers, Banner{Tone: Good, Title: m.t("link.done")}) }})
		})
		return
	}
}
