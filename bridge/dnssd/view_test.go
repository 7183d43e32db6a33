package dnssd

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"osaurus/engine/discovery"
)

const agentID = "11111111-1111-4111-8111-111111111111"

var (
	zero = time.Unix(1800000000, 0)
	here = netip.MustParseAddr("10.0.0.1")
)

type harness struct {
	*view
	t     *testing.T
	now   time.Time
	got   []string
	again int
	gone  int
}

func newHarness(t *testing.T) *harness {
	h := &harness{t: t, now: zero}
	h.view = newView(func(e discovery.Event) {
		h.got = append(h.got, fmt.Sprintf("%v %s %s:%d %v", e.Lost, e.Instance.Name, e.Instance.Host, e.Instance.Port, e.Instance.IPs))
	})
	return h
}

// pass lets time go by, tick after tick.
func (h *harness) pass(d time.Duration) {
	h.t.Helper()
	for end := h.now.Add(d); ; {
		again, gone, next := h.tick(h.now)
		h.again, h.gone = h.again+len(again), h.gone+len(gone)
		if next.IsZero() || next.After(end) {
			h.now = end
			return
		}
		if !next.After(h.now) {
			h.t.Fatalf("tick asks to be called again at once")
		}
		h.now = next
	}
}

func (h *harness) events(want ...string) {
	h.t.Helper()
	if !slices.Equal(h.got, want) {
		h.t.Errorf("events %q, want %q", h.got, want)
	}
	h.got = nil
}

func (h *harness) whole() {
	h.sighted("Ada", h.now)
	h.resolved("Ada", "host.local.", 1337, map[string]string{"id": agentID, "name": "Ada"}, h.now)
	h.address("host.local.", here, true, h.now)
}

const found, lost = "false Ada host.local:1337 [10.0.0.1]", "true Ada host.local:1337 [10.0.0.1]"

func TestFound(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.whole()
	h.events()
	h.pass(settle)
	h.events(found)
	h.address("HOST.local.", netip.MustParseAddr("fe80::1%eth0"), true, h.now)
	h.address("host.local.", netip.MustParseAddr("0.0.0.0"), true, h.now)
	h.address("host.local.", netip.MustParseAddr("224.0.0.1"), true, h.now)
	h.address("host.local.", netip.MustParseAddr("2001:db8::1"), true, h.now)
	h.pass(settle)
	h.events("false Ada host.local:1337 [10.0.0.1 2001:db8::1 fe80::1%eth0]")
	h.address("host.local.", here, false, h.now)
	h.resolved("ADA", "host.local.", 1338, map[string]string{"id": agentID, "name": "Ada"}, h.now)
	h.pass(settle)
	h.events("false Ada host.local:1338 [2001:db8::1 fe80::1%eth0]")
	h.pass(time.Hour)
	h.events()
}

func TestSightings(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	if !h.sighted("Ada", h.now) || h.sighted("ada", h.now) {
		t.Error("it is resolved once for all interfaces")
	}
	h.whole()
	h.pass(time.Minute)
	h.events(found)
	for range 2 {
		h.unsighted("Ada", h.now)
	}
	h.pass(time.Minute)
	h.events() // one interface still has it
	h.unsighted("Ada", h.now)
	h.pass(discovery.Grace - 1)
	h.events()
	if !h.sighted("Ada", h.now) {
		t.Error("one that is back is not resolved anew")
	}
	h.resolved("Ada", "host.local.", 1337, map[string]string{"id": agentID, "name": "Ada"}, h.now)
	h.pass(time.Hour)
	h.events() // it was never away
	h.unsighted("Ada", h.now)
	h.unsighted("Ada", h.now) // once too often
	h.unsighted("nobody", h.now)
	h.pass(discovery.Grace)
	h.events(lost)
	if h.usedHosts(); len(h.instances) != 0 || len(h.hosts) != 0 || h.gone != 1 {
		t.Errorf("left are %d instances and %d hosts, %d were told to be gone", len(h.instances), len(h.hosts), h.gone)
	}
}

func TestAway(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.whole()
	h.pass(time.Second)
	h.away(h.now)
	h.pass(discovery.Grace / 2)
	h.whole()
	h.pass(time.Hour)
	h.events(found) // as before: nothing is told twice
	h.away(h.now)
	h.away(h.now.Add(time.Second)) // failing again starts no new grace
	h.pass(discovery.Grace)
	h.events(lost)
}

// TestOneRetry: an instance that is not resolved is asked for once more.
func TestOneRetry(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.sighted("Ada", h.now)
	h.pass(time.Hour)
	if h.again != 1 {
		t.Errorf("asked %d times again", h.again)
	}
	h.resolved("nobody", "host.local.", 1, nil, h.now)
	if len(h.instances) != 1 {
		t.Error("an answer made an instance")
	}
}

func TestSaysNothing(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		txt  map[string]string
		port uint16
		add  bool
	}{
		"no agent":   {map[string]string{"name": "Ada"}, 1, true},
		"bad id":     {map[string]string{"id": "../../etc"}, 1, true},
		"port 0":     {map[string]string{"id": agentID}, 0, true},
		"no address": {map[string]string{"id": agentID}, 1, false},
	} {
		h := newHarness(t)
		h.sighted("x", h.now)
		h.resolved("x", "host.local.", c.port, c.txt, h.now)
		h.address("host.local.", here, c.add, h.now)
		h.pass(time.Minute)
		if len(h.got) != 0 {
			t.Errorf("%s: %q", what, h.got)
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for n := range discovery.MaxInstances + 10 {
		h.sighted(fmt.Sprint(n), h.now)
	}
	for n := range discovery.MaxHosts + 10 {
		h.address(fmt.Sprintf("h%d.local.", n), here, true, h.now)
	}
	for n := range discovery.MaxAddresses + 10 {
		h.address("h1.local.", netip.AddrFrom4([4]byte{10, 2, 0, byte(n)}), true, h.now)
	}
	if len(h.instances) != discovery.MaxInstances || len(h.hosts) != discovery.MaxHosts || len(h.hosts["h1.local."]) != discovery.MaxAddresses {
		t.Errorf("%d instances, %d hosts, %d addresses", len(h.instances), len(h.hosts), len(h.hosts["h1.local."]))
	}
}
