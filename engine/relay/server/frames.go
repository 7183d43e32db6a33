package server

import (
	"strings"

	"osaurus/engine/address"
	"osaurus/engine/relay/wire"
)

// handle takes one frame of an authenticated host.
func (t *tunnel) handle(raw []byte) {
	f, err := t.s.parse(raw)
	if err != nil {
		t.invalid(f.ID)
		return
	}
	switch f.Type {
	case wire.Response, wire.StreamStart, wire.StreamChunk, wire.StreamEnd:
		t.answer(&f)
	case wire.Pong:
		t.missed.Store(0)
		t.refresh()
	case wire.RequestChallenge:
		t.challenge()
	case wire.AddAgent:
		t.addAgent(&f)
	case wire.RemoveAgent:
		t.removeAgent(f.Address)
	}
}

// invalid counts a frame that breaks the protocol, and fails the request that
// it was about (section 3.3).
func (t *tunnel) invalid(id string) {
	t.s.stats.invalidFrames.Add(1)
	e := t.call(id)
	if e == nil {
		return
	}
	t.remove(id)
	e.fail(badFrame)
	t.cancel(id)
}

// cancel tells the host to abandon a request.
func (t *tunnel) cancel(id string) { t.send(&wire.Frame{Type: wire.Cancel, ID: id}) }

// answer hands a frame to the request that it answers.
func (t *tunnel) answer(f *wire.Frame) {
	e := t.call(f.ID)
	if e == nil {
		return
	}
	over, cancel := e.deliver(f)
	if over {
		t.remove(f.ID)
	}
	if cancel {
		t.cancel(f.ID)
	}
}

// limited counts a control frame. It answers when there were too many.
func (t *tunnel) limited() bool {
	if t.control.Take(controlFrames, minute, t.s.c.Now()) {
		return false
	}
	t.refuse(wire.RateLimited)
	return true
}

func (t *tunnel) refuse(word string) { t.send(&wire.Frame{Type: wire.Error, Error: word}) }

// challenge makes a nonce for add_agent, in place of an earlier one.
func (t *tunnel) challenge() {
	if t.limited() {
		return
	}
	t.nonce, t.nonceAt = newNonce(), t.s.c.Now()
	t.send(&wire.Frame{Type: wire.Challenge, Nonce: t.nonce})
}

// addAgent checks in the order of section 4: rate, number, nonce, proof.
func (t *tunnel) addAgent(f *wire.Frame) {
	if !f.WellFormedAddition() {
		t.invalid("")
		return
	}
	if t.limited() {
		return
	}
	if len(t.s.hosts.of(t)) >= wire.MaxAgents {
		t.refuse(wire.MaxAgentsReached)
		return
	}
	if t.nonce == "" || f.Nonce != t.nonce || t.s.c.Now().Sub(t.nonceAt) > nonceLifetime {
		t.refuse(wire.InvalidNonce)
		return
	}
	t.nonce = "" // spent, whatever follows
	a, ok := wire.Verify(wire.Agent{Address: f.Address, Signature: f.Signature}, f.Nonce, f.Timestamp)
	if !ok || !t.s.current(f.Timestamp) {
		t.refuse(wire.InvalidSignature)
		return
	}
	lost, ok := t.s.hosts.claim(t, wire.MaxAgents, a)
	if !ok {
		return // it is closing
	}
	t.send(&wire.Frame{Type: wire.AgentAdded, Address: a.Lower(), URL: t.s.url(a), Region: t.s.c.Region})
	t.s.superseded(lost)
	t.s.cluster.claim(t, []address.Address{a})
}

// removeAgent gives an agent up. One that the tunnel does not hold is passed
// over in silence.
func (t *tunnel) removeAgent(text string) {
	a, err := address.Parse(strings.ToLower(text))
	if err != nil {
		return
	}
	if had, _ := t.s.hosts.release(t, a); !had {
		return
	}
	t.send(&wire.Frame{Type: wire.AgentRemoved, Address: a.Lower()})
	t.fail(func(e *exchange) bool { return e.agent == a })
	t.s.cluster.release(t, []address.Address{a})
}

// refresh keeps the tunnel's addresses in the directory, beside the reading.
// Those that another relay has by now are given up.
func (t *tunnel) refresh() {
	addrs := t.s.hosts.of(t)
	if t.s.cluster == nil || len(addrs) == 0 || t.refreshing.Swap(true) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed {
		return
	}
	t.work.Go(func() {
		defer t.refreshing.Store(false)
		var lost []loss
		for _, a := range t.s.cluster.refresh(t, addrs) {
			if had, empty := t.s.hosts.release(t, a); had {
				lost = append(lost, loss{t, a, empty})
			}
		}
		t.s.superseded(lost)
	})
}
