package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/relay/wire"
)

// TestSilence: a relay that no longer pings is gone.
func TestSilence(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 1)
		c := r.open()
		pass(maxSilence - time.Second)
		c.put(`{"type":"ping","ts":1}`)
		pass(maxSilence - time.Second)
		if c.isClosed() {
			t.Fatal("given up too early")
		}
		pass(2 * time.Second)
		if got := r.tunnel.Status()[0].Detail; !c.isClosed() || !strings.Contains(got, "pinging") {
			t.Errorf("closed %v, %q", c.isClosed(), got)
		}
	})
}

// TestFlood: a relay that asks and does not read gets no memory of ours.
func TestFlood(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 1)
		c := r.open()
		for range cap(c.out) {
			c.out <- nil
		}
		for range maxUrgent {
			c.put(`{"type":"ping","ts":1}`)
		}
		if c.isClosed() {
			t.Fatal("closed at the limit")
		}
		for range 2 {
			c.put(`{"type":"ping","ts":1}`)
		}
		for range cap(c.out) / 2 {
			<-c.out
		}
		if !c.isClosed() {
			t.Error("the queue grew without bound")
		}
	})
}

// TestBodies: what callers send is bounded over all sockets, and a request's
// share is given back.
func TestBodies(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		let := make(chan struct{})
		r, c := serving(t, func(http.ResponseWriter, *http.Request) { <-let })
		body := strings.Repeat("x", maxBodies/4)
		for i := range 4 {
			r.ask(c, fmt.Sprint(i), "POST", "/", body)
		}
		r.ask(c, "empty", "GET", "/", "")
		if f := c.take(t); f.Type != "" {
			t.Fatalf("at the limit: %+v", f)
		}
		r.ask(c, "more", "POST", "/", "x")
		if f := c.take(t); f.ID != "more" || f.Status != http.StatusServiceUnavailable {
			t.Fatalf("beyond: %+v", f)
		}
		close(let)
		for range 5 {
			c.take(t)
		}
		r.ask(c, "more", "POST", "/", body)
		if f := c.take(t); f.Status != http.StatusOK || r.tunnel.bodies.Load() != 0 {
			t.Errorf("afterwards: %+v, %d bytes", f, r.tunnel.bodies.Load())
		}
	})
}

// TestAnswersHoldTheirPlace: until it is sent an answer counts as a request,
// so that a relay that does not read cannot have many of them made.
func TestAnswersHoldTheirPlace(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r, c := serving(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "an answer") })
		for range cap(c.out) {
			c.out <- nil
		}
		for i := range MaxInFlight + 2 { // the writer holds one
			r.ask(c, fmt.Sprint(i), "GET", "/", "")
		}
		for range cap(c.out) {
			<-c.out
		}
		statuses := map[int]int{}
		for f := c.take(t); f.Type != ""; f = c.take(t) {
			statuses[f.Status]++
		}
		if statuses[200] != MaxInFlight+1 || statuses[503] != 1 {
			t.Errorf("%v", statuses)
		}
	})
}

// TestFirstRequestOfAnAgent may follow the relay's word at once.
func TestFirstRequestOfAnAgent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newIdleRig(t, 2)
		r.served = func(w http.ResponseWriter, q *http.Request) {
			_, _ = io.WriteString(w, q.Header.Get("X-Osaurus-Agent-Id"))
		}
		all := r.keys.list
		r.wanted = all[:1]
		r.run()
		c := r.open()
		r.want(all...)
		c.take(t)
		c.put(`{"type":"challenge","nonce":"%064x"}`, 9)
		c.take(t)
		c.in <- fmt.Appendf(nil, `{"type":"agent_added","address":%q,"url":"https://x"}`, all[1].Address.Lower())
		c.put(`{"type":"request","id":"1","method":"GET","path":"/","headers":{"x-agent-address":%q},"body":""}`, all[1].Address.Lower())
		if f := c.take(t); f.Status != 200 || *f.Body != "agent-1" {
			t.Errorf("%+v", f)
		}
		// Once it is to go, nothing is served for it, whatever the relay says.
		r.want(all[0])
		c.take(t)
		c.put(`{"type":"request","id":"2","method":"GET","path":"/","headers":{"x-agent-address":%q},"body":""}`, all[1].Address.Lower())
		if f := c.take(t); f.Status != 502 {
			t.Errorf("%+v", f)
		}
	})
}

// TestOvertaken: a request that the relay sends before its auth_ok is served.
func TestOvertaken(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 1)
		r.served = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") }
		c := r.dialled()
		c.put(`{"type":"challenge","nonce":"00"}`)
		c.take(t)
		r.ask(c, "1", "GET", "/", "")
		a := r.keys.list[0].Address.Lower()
		c.put(`{"type":"auth_ok","agents":[{"address":%q,"url":"https://x"}]}`, a)
		if f := c.take(t); f.ID != "1" || f.Status != 200 {
			t.Errorf("%+v", f)
		}
	})
}

// TestClockSet: a clock that was put right is a reason to sign again.
func TestClockSet(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var ahead atomic.Int64
		r := newRig(t, 1, func(c *Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		})
		for range maxRefusals {
			c := r.latest()
			c.put(`{"type":"challenge","nonce":"00"}`)
			c.take(t)
			c.put(`{"type":"auth_error","error":"signature_verification_failed"}`)
			pass(10 * time.Second)
		}
		pass(time.Hour)
		if r.dialled() != nil {
			t.Fatal("tried again without a reason")
		}
		ahead.Store(int64(time.Minute))
		pass(clockInterval)
		if r.dialled() == nil {
			t.Error("not tried with another clock")
		}
	})
}

// TestOlderRelayMoves: many changes open a new socket, which an older relay
// refuses for whom the last one still has. They follow one by one, and not
// with another socket each time.
func TestOlderRelayMoves(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newIdleRig(t, 12)
		all := r.keys.list
		r.wanted = all[:6]
		r.run()
		old := r.open()
		r.want(all...)
		fresh := r.dialled()
		fresh.put(`{"type":"challenge","nonce":"%064x"}`, 7)
		fresh.take(t)
		var taken []string
		for _, a := range all[6:] {
			taken = append(taken, fmt.Sprintf(`{"address":%q,"url":"https://x"}`, a.Address.Lower()))
		}
		fresh.put(`{"type":"auth_ok","agents":[%s]}`, strings.Join(taken, ","))
		if !old.isClosed() {
			t.Fatal("the old socket stays")
		}
		refused := true
		for added := 0; added < 6; {
			f := fresh.take(t)
			switch f.Type {
			case wire.RequestChallenge:
				fresh.put(`{"type":"challenge","nonce":"%064x"}`, 8)
			case wire.AddAgent:
				if refused {
					fresh.put(`{"type":"error","error":"address_already_registered"}`)
					refused = false
					continue
				}
				fresh.put(`{"type":"agent_added","address":%q,"url":"https://x"}`, f.Address)
				added++
			case wire.Pong:
			default:
				pass(againDelay)
				fresh.put(`{"type":"ping","ts":1}`)
			}
		}
		if got := r.states(); strings.Count(got, "connected") != 12 || r.dialled() != nil {
			t.Error(got)
		}
	})
}

// TestPlace: where callers are sent is not the relay's to say.
func TestPlace(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 2, func(c *Config) {
			list := c.Agents()
			c.Place = func(a address.Address, url string) (string, error) {
				if a == list[0].Address {
					return "", errors.New("the relay names another place")
				}
				return url + "/ours", nil
			}
			c.Probe = func(context.Context, string) error { return nil }
		})
		r.open()
		if got := r.tunnel.URL(r.keys.list[0].Address); got != "" {
			t.Errorf("URL %q", got)
		}
		if got := r.tunnel.URL(r.keys.list[1].Address); !strings.HasSuffix(got, "/ours") {
			t.Errorf("URL %q", got)
		}
		if got := r.states(); !strings.Contains(got, "error") || !strings.Contains(got, "connected") {
			t.Error(got)
		}
	})
}

// FuzzFrames: whatever a relay sends, the tunnel goes on or is dropped; it
// does not panic, and asks nothing of the handler but for its own agent.
func FuzzFrames(f *testing.F) {
	for _, seed := range []string{
		`{"type":"ping"}`, `{"type":"request","id":"1","method":"GET","path":"/","headers":{"x-agent-address":"AGENT"},"body":"x"}`, `{"type":"request","id":"1","method":"GET","path":"@evil.example/","headers":{"x-agent-address":"AGENT"}}`,
		`{"type":"agent_removed","address":"AGENT","reason":"superseded"}`, `{"type":"cancel","id":"1"}`, `{"type":"error","error":"relay_restarting"}`, `{"type":"auth_error","error":"x"}`, "\xff", `{"type":"request","id":"1","headers":null}`,
		`{"type":"request","id":"1","method":"PUT","path":"/\u0000","headers":{"x-agent-address":"AGENT","connection":"x-forwarded-for"},"body":"AAAA","bodyEncoding":"base64"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, 1)
			ours := r.keys.list[0]
			r.served = func(w http.ResponseWriter, q *http.Request) {
				if q.Header.Get("X-Osaurus-Agent-Id") != ours.ID || q.URL.Host != "" || !strings.HasPrefix(q.RequestURI, "/") || q.Header.Get("X-Osaurus-Relay-Origin") != "" {
					t.Errorf("the handler was given %v %v", q.URL, q.Header)
				}
			}
			c := r.open()
			for range 2 {
				c.put("%s", strings.ReplaceAll(string(raw), "AGENT", ours.Address.Lower()))
			}
			c.put(`{"type":"ping","ts":77}`)
			for f := c.take(t); f.Type != ""; f = c.take(t) {
				if f.Type == wire.Pong && f.TS != nil && *f.TS == 77 {
					return
				}
			}
			if !c.isClosed() {
				t.Error("neither answered nor closed")
			}
		})
	})
}
