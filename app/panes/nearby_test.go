package panes_test

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"osaurus/app/panes"
	"osaurus/engine/address"
	"osaurus/engine/control"
	"osaurus/engine/discovery"
)

func instance(id, name string, last byte) discovery.Instance {
	return discovery.Instance{AgentID: id, Name: name, Address: address.Address{19: last}, PQ: true, Host: "studio.local", Port: 1337, IPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}}
}

func TestNearby(t *testing.T) { // MB-4, C22
	t.Parallel()
	watched(t, func(m *panes.Model, h *scripted) {
		d := driver{m, t}
		announce := func(in discovery.Instance, lost bool) {
			h.announced <- discovery.Event{Lost: lost, Instance: in}
			synctest.Wait()
		}
		rows := func() []panes.Row { return d.mustSection(panes.Peers, "nearby").Rows }
		if s := d.mustSection(panes.Peers, "nearby"); len(s.Rows) != 0 || s.Empty == "" {
			t.Errorf("%+v", s)
		}
		good, bare, lying, known := instance("B1", "<i>Ann</i>", 6), instance("B2", "Bare", 0), instance("B3", "Claims", 8), instance("B4", "Dora", 5)
		lying.Unverifiable = true
		for _, in := range []discovery.Instance{known, lying, bare, good} {
			announce(in, false)
		}
		list := rows()
		if len(list) != 4 || list[0].Title != "<i>Ann</i>" || list[0].Address != good.Address.String() || fact(list[0].Facts, "Host") != "http://192.0.2.7:1337" || len(list[0].Actions) != 1 {
			t.Fatalf("%+v", list)
		}
		for _, r := range list[1:3] {
			if badges(r)[0] != "Cannot be verified" || r.Text == "" || len(r.Actions) != 0 {
				t.Errorf("%+v", r)
			}
		}
		if r := list[3]; badges(r)[0] != "Paired" || len(r.Actions) != 0 {
			t.Errorf("%+v", r)
		}
		for _, in := range []discovery.Instance{bare, lying, known, instance("B1", "Ann", 7)} {
			if err := d.refused("nearby-pair:" + in.AgentID + "@" + in.Address.String()); !errors.Is(err, panes.ErrNotOffered) {
				t.Errorf("%s is paired with: %v", in.Name, err)
			}
		}
		if err := d.refused(list[0].Actions[0].ID); err != nil {
			t.Fatal(err)
		}
		if s := d.sheet(); s == nil || fact(s.Facts, "Address") != good.Address.String() || len(h.pairs) != 0 {
			t.Fatalf("%+v", s)
		}
		// What shows is what is asked, though it is announced otherwise now.
		moved := instance("B1", "<i>Ann</i>", 9)
		announce(moved, false)
		h.hold = time.Minute
		if err := d.refused("confirm"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if w := m.View(panes.Peers).Working; w == nil || w.Cancel == nil {
			t.Errorf("%+v", w)
		}
		pass(h.hold)
		synctest.Wait()
		if want := (control.Pair{BaseURL: "http://192.0.2.7:1337", AgentID: "B1", Address: good.Address, Name: good.Name, PQ: true}); len(h.pairs) != 1 || h.pairs[0] != want {
			t.Errorf("%+v", h.pairs)
		}
		if b := d.banner(panes.Peers, "result-"); b == nil || b.Tone != panes.Good {
			t.Errorf("%+v", b)
		}
		announce(moved, true)
		if len(rows()) != 3 {
			t.Errorf("%+v", rows())
		}
		close(h.announced) // nobody looks any more
		synctest.Wait()
		if s := d.mustSection(panes.Peers, "nearby"); len(s.Rows) != 0 || s.Empty != "no browser" {
			t.Errorf("%+v", s)
		}
		before, _ := m.Changed()
		pass(4 * time.Second) // it is tried again, before the next question
		synctest.Wait()
		if after, _ := m.Changed(); after > before+2 {
			t.Errorf("an error that stays changed the panes %d times", after-before)
		}
	})
}

func TestNearbyIsBounded(t *testing.T) {
	t.Parallel()
	watched(t, func(m *panes.Model, h *scripted) {
		for i := range discovery.MaxInstances + 1 {
			in := instance("B", string(rune('a'+i)), 6)
			h.announced <- discovery.Event{Instance: in}
		}
		synctest.Wait()
		if n := len((driver{m, t}).mustSection(panes.Peers, "nearby").Rows); n != discovery.MaxInstances {
			t.Errorf("%d rows", n)
		}
	})
}

func TestDots(t *testing.T) { // MB-2
	t.Parallel()
	watched(t, func(m *panes.Model, h *scripted) {
		if v := m.Menu(); v.Running || v.Waiting {
			t.Errorf("%+v", v)
		}
		running := func(n int) panes.Menu {
			h.mu.Lock()
			h.inFlight = n
			h.mu.Unlock()
			m.Refresh()
			synctest.Wait()
			return m.Menu()
		}
		if v := running(1); !v.Running || v.Waiting {
			t.Errorf("while a request runs: %+v", v)
		}
		h.approvals <- control.Approvals{Current: prompt("p1", time.Now())}
		synctest.Wait()
		if v := m.Menu(); !v.Running || !v.Waiting || v.Items[1].Label != "Pairing requests (1)" {
			t.Errorf("while an approval waits too: %+v", v)
		}
		h.approvals <- control.Approvals{}
		if v := running(0); v.Running || v.Waiting {
			t.Errorf("afterwards: %+v", v)
		}
	})
}

// pass lets fake time pass.
func pass(d time.Duration) { <-time.After(d) }

func TestPassphraseQuestion(t *testing.T) {
	t.Parallel()
	d := drive(t, newScripted(), panes.Env{})
	first, again := d.PassphraseQuestion(false), d.PassphraseQuestion(true)
	if len(first.Text) != 1 || len(again.Text) != 1 || first.Text[0] == again.Text[0] || len(first.Actions) != 2 || first.Actions[0].ID != "confirm" || first.Actions[1].ID != "cancel" {
		t.Errorf("%+v, %+v", first, again)
	}
}
