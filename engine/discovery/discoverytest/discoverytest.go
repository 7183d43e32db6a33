// Package discoverytest is the suite that every pair of an Advertiser and a
// Browser passes, each on a machine or in a network namespace of its own.
package discoverytest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/discovery"
)

// Patience bounds how long an event may take.
const Patience = 30 * time.Second

// Run advertises on one side and looks from the other.
func Run(t *testing.T, advertiser discovery.Advertiser, browser discovery.Browser) {
	ctx, cancel := context.WithCancel(t.Context())
	events, ended := make(chan discovery.Event, 1000), make(chan error, 1)
	go func() { ended <- browser.Browse(ctx, func(e discovery.Event) { events <- e }) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("browsing: %v", err)
		}
	}()
	l := &look{t: t, events: events, known: map[string]discovery.Instance{}}
	publish := func(want ...discovery.Instance) {
		t.Helper()
		if err := advertiser.Publish(ctx, want); err != nil {
			t.Fatalf("publishing: %v", err)
		}
	}

	one := instance(1, "Ada")
	publish(one)
	l.until("the first is found", func() bool { return l.shows(one) })
	first := l.known[one.AgentID]
	if len(first.IPs) == 0 || !first.IPs[0].Is4() || !strings.HasSuffix(first.Host, ".local") {
		t.Errorf("it is at %v, %q", first.IPs, first.Host)
	}

	one.Description = "now with a description = \"quoted\", \\ and ü"
	publish(one)
	l.until("its record is updated in place", func() bool { return l.shows(one) })
	if l.lost != 0 {
		t.Error("an update in place lost the instance")
	}

	two := instance(2, "Ada") // the same name
	none := discovery.Instance{AgentID: id(3), Name: "without address", Port: 4003}
	publish(one, two, none)
	l.until("others join, one of the same name", func() bool { return l.shows(one) && l.shows(two) && l.shows(none) })

	var many []discovery.Instance
	for n := range 5 {
		many = append(many, instance(10+n, strings.Repeat("é", 30)))
	}
	publish(append(many, one)...)
	l.until("many are there", func() bool {
		for _, m := range many {
			if !l.shows(m) {
				return false
			}
		}
		return true
	})

	one.Port = 5001
	publish(one)
	l.until("the port changes and the rest goes", func() bool { return l.shows(one) && len(l.known) == 1 })

	gone := time.Now()
	if err := advertiser.Close(); err != nil {
		t.Fatalf("closing: %v", err)
	}
	l.until("the last says goodbye", func() bool { return len(l.known) == 0 })
	if took := time.Since(gone); took < Grace-time.Second {
		t.Errorf("it was gone after %s, before its grace ended", took)
	}
}

// Grace is the least time between a goodbye and the loss (PROTOCOL.md of
// discovery, section 3).
const Grace = 12 * time.Second

// look is what the browsing side knows.
type look struct {
	t      *testing.T
	events <-chan discovery.Event
	known  map[string]discovery.Instance
	lost   int
}

func (l *look) until(what string, ok func() bool) {
	l.t.Helper()
	deadline := time.After(Patience)
	for !ok() {
		select {
		case e := <-l.events:
			if e.Lost {
				l.lost++
				delete(l.known, e.Instance.AgentID)
			} else {
				l.known[e.Instance.AgentID] = e.Instance
			}
		case <-deadline:
			l.t.Fatalf("%s: not within %s; known are %+v", what, Patience, l.known)
		}
	}
}

func (l *look) shows(want discovery.Instance) bool {
	got := l.known[want.AgentID]
	return got.Name == want.Name && got.Description == want.Description && got.Address == want.Address && got.Port == want.Port && !got.Unverifiable
}

func id(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

func instance(n int, name string) discovery.Instance {
	return discovery.Instance{AgentID: id(n), Name: name, Address: address.Address{19: byte(n)}, Port: 4000 + n}
}
