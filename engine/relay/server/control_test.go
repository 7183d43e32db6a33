package server

import (
	"strings"
	"testing"
	"time"

	"osaurus/engine/relay/wire"
)

// adding is an add_agent frame.
func adding(a agent, nonce string) *wire.Frame {
	p := a.proof(nonce, now())
	return &wire.Frame{Type: wire.AddAgent, Address: p.Address, Signature: p.Signature, Nonce: nonce, Timestamp: now()}
}

// TestAddAgent: section 4, each answer in its order.
func TestAddAgent(t *testing.T) {
	inBubble(t, func(b *bubble) {
		m := b.open(agentN(0))
		nonce := func() string {
			for range 3 { // the control rate is not what is tested
				b.put(m, &wire.Frame{Type: wire.Pong})
				elapse(20 * time.Second)
			}
			b.take(m)
			b.put(m, &wire.Frame{Type: wire.RequestChallenge})
			return b.take(m)[0].Nonce
		}
		try := func(f *wire.Frame) string { b.put(m, f); return b.says(m) }

		if got := try(adding(agentN(1), strings.Repeat("0", 64))); got != "error invalid_nonce" {
			t.Errorf("without a challenge: %s", got)
		}
		n := nonce()
		b.put(m, adding(agentN(1), n))
		f := b.take(m)[0]
		if f.Type != wire.AgentAdded || f.Address != agentN(1).addr.Lower() || f.Region != "here" || f.URL != "https://"+f.Address+"."+testDomain {
			t.Errorf("%+v", f)
		}
		if got := try(adding(agentN(2), n)); got != "error invalid_nonce" {
			t.Errorf("the same nonce again: %s", got)
		}
		if got := try(adding(agentN(1), nonce())); got != "agent_added" {
			t.Errorf("one that is there: %s", got)
		}
		first := nonce()
		b.put(m, &wire.Frame{Type: wire.RequestChallenge})
		b.take(m)
		if got := try(adding(agentN(2), first)); got != "error invalid_nonce" {
			t.Errorf("a nonce that was replaced: %s", got)
		}
		n = nonce()
		elapse(nonceLifetime + time.Second)
		b.take(m)
		if got := try(adding(agentN(2), n)); got != "error invalid_nonce" {
			t.Errorf("a nonce of 31 seconds: %s", got)
		}
		n = nonce()
		elapse(nonceLifetime - time.Second)
		b.take(m)
		if got := try(adding(agentN(2), n)); got != "agent_added" {
			t.Errorf("a nonce of 29 seconds: %s", got)
		}
		n = nonce()
		bad := adding(agentN(3), n)
		bad.Address = agentN(4).addr.String()
		if got := try(bad); got != "error invalid_signature" {
			t.Errorf("a wrong proof: %s", got)
		}
		if got := try(adding(agentN(3), n)); got != "error invalid_nonce" {
			t.Errorf("a nonce that a wrong proof spent: %s", got)
		}
		bad = adding(agentN(3), nonce())
		bad.Signature = bad.Signature[2:]
		if got := try(bad); got != "" || b.s.stats.invalidFrames.Load() != 1 {
			t.Errorf("a frame that is none: %q", got)
		}
	})
}

func TestFiftyAgents(t *testing.T) {
	inBubble(t, func(b *bubble) {
		var list []agent
		for i := range wire.MaxAgents {
			list = append(list, agentN(i))
		}
		m := b.open(list...)
		b.put(m, &wire.Frame{Type: wire.RequestChallenge})
		n := b.take(m)[0].Nonce
		b.put(m, adding(agentN(wire.MaxAgents), n))
		if got := b.says(m); got != "error max_agents_reached" {
			t.Error(got)
		}
		b.put(m, &wire.Frame{Type: wire.RemoveAgent, Address: list[0].addr.String()})
		b.put(m, adding(agentN(wire.MaxAgents), n))
		if got := b.says(m); got != "agent_removed, agent_added" {
			t.Error(got)
		}
	})
}

// TestControlRate: ten in a minute, challenges and additions together.
func TestControlRate(t *testing.T) {
	inBubble(t, func(b *bubble) {
		m := b.open(agentN(0))
		for range 12 {
			b.put(m, &wire.Frame{Type: wire.RequestChallenge})
		}
		got := b.says(m)
		if strings.Count(got, "challenge") != 10 || !strings.HasSuffix(got, "challenge, error rate_limited, error rate_limited") {
			t.Error(got)
		}
		elapse(6 * time.Second)
		b.put(m, adding(agentN(1), "x"))
		b.put(m, adding(agentN(1), "x"))
		if got := b.says(m); got != "error invalid_nonce, error rate_limited" {
			t.Errorf("after a tenth of a minute: %s", got)
		}
	})
}

func TestRemoveAgent(t *testing.T) {
	inBubble(t, func(b *bubble) {
		m := b.open(agentN(0), agentN(1))
		c := b.call("GET", agentN(0), "/", nil)
		other := b.call("GET", agentN(1), "/", nil)
		b.take(m)
		b.put(m, &wire.Frame{Type: wire.RemoveAgent, Address: agentN(0).addr.String()})
		f := b.take(m)
		if len(f) != 1 || f[0].Type != wire.AgentRemoved || f[0].Address != agentN(0).addr.Lower() || f[0].Reason != "" {
			t.Errorf("%+v", f)
		}
		if got := c.String(); got != `502 {"error":"tunnel_closed"}` || other.String() != "waiting" {
			t.Errorf("in flight: %s; the other agent's: %s", got, other)
		}
		b.put(m, &wire.Frame{Type: wire.RemoveAgent, Address: agentN(0).addr.String()})
		b.put(m, &wire.Frame{Type: wire.RemoveAgent, Address: "nobody"})
		if got := b.says(m); got != "" {
			t.Errorf("one that it does not hold: %s", got)
		}
		if got := b.call("GET", agentN(0), "/", nil).String(); got != `502 {"error":"agent_offline"}` {
			t.Error(got)
		}
		other.stop()
	})
}

// TestTakeover: the newest tunnel has the address.
func TestTakeover(t *testing.T) {
	inBubble(t, func(b *bubble) {
		old := b.open(agentN(0), agentN(1))
		c := b.call("GET", agentN(0), "/", nil)
		b.take(old)
		fresh := b.open(agentN(0))
		f := b.take(old)
		if len(f) != 1 || f[0].Type != wire.AgentRemoved || f[0].Reason != wire.Superseded || f[0].Address != agentN(0).addr.Lower() || b.closedWith(old) != "open" {
			t.Errorf("%+v, %s", f, b.closedWith(old))
		}
		if got := c.String(); got != `502 {"error":"tunnel_closed"}` {
			t.Errorf("in flight: %s", got)
		}
		b.put(fresh, &wire.Frame{Type: wire.RequestChallenge})
		b.put(fresh, adding(agentN(1), b.take(fresh)[0].Nonce))
		if got := b.says(old); got != "agent_removed superseded" || b.closedWith(old) != "1000 superseded" || b.says(fresh) != "agent_added" {
			t.Errorf("its last one: %s, %s", got, b.closedWith(old))
		}
		// That the old one ends takes nothing from the new one.
		c = b.call("GET", agentN(0), "/x", nil)
		got := b.take(fresh)
		if len(got) != 1 || got[0].Path != "/x" {
			t.Errorf("the request went elsewhere: %+v", got)
		}
		c.stop()
		if n := b.s.stats.takeovers.Load(); n != 2 {
			t.Errorf("%d takeovers", n)
		}
	})
}

// TestKeepalive: pings at 30, 60 and 90 s, the end at 120 s; a pong resets.
func TestKeepalive(t *testing.T) {
	inBubble(t, func(b *bubble) {
		m := b.open(agentN(0))
		for _, answered := range []bool{true, false, false, false} {
			elapse(pingEvery - time.Millisecond)
			if got := b.says(m); got != "" {
				t.Fatalf("early: %s", got)
			}
			elapse(time.Millisecond)
			f := b.take(m)
			if len(f) != 1 || f[0].Type != wire.Ping || f[0].TS == nil || *f[0].TS != now() {
				t.Fatalf("%+v", f)
			}
			if answered {
				b.put(m, &wire.Frame{Type: wire.Pong})
			}
		}
		elapse(pingEvery - time.Millisecond)
		if b.closedWith(m) != "open" {
			t.Error("closed early")
		}
		elapse(time.Millisecond)
		if got := b.closedWith(m); got != "1000 keepalive timeout" || b.s.hosts.count() != 0 {
			t.Error(got)
		}
	})
}
