package relay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/identity"
	"osaurus/engine/relay/wire"
)

func TestConnects(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var probed []string
		failing := true
		r := newRig(t, 2, func(c *Config) {
			c.Probe = func(_ context.Context, url string) error {
				probed = append(probed, url)
				if failing {
					return errors.New("HTTP 502")
				}
				return nil
			}
		})
		if got := r.states(); got != "connecting,connecting" {
			t.Errorf("before: %s", got)
		}
		c := r.open()
		a := r.keys.list[0].Address
		if got := r.tunnel.URL(a); got != "https://"+a.Lower()+".relay.test" {
			t.Errorf("URL %q", got)
		}
		pass(time.Minute)
		if got := r.states(); got != "connecting,connecting" || len(probed) != 2*probeTries || !strings.Contains(r.tunnel.Status()[0].Detail, "HTTP 502") {
			t.Errorf("a link that does not answer: %s, %d probes", got, len(probed))
		}
		failing = false
		c.put(`{"type":"ping","ts":7}`)
		if f := c.take(t); f.Type != wire.Pong || f.TS == nil || *f.TS != 7 {
			t.Errorf("pong: %+v", f)
		}
		_ = c.Close(1001, "")
		pass(2 * time.Second)
		r.open()
		if got := r.states(); got != "connected,connected" {
			t.Errorf("after: %s", got)
		}
	})
}

// TestOneCannotSign: it does not keep the others away.
func TestOneCannotSign(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var wrong address.Address
		r := newRig(t, 3, func(c *Config) {
			signer := c.Signer
			c.Signer = func(ctx context.Context, a address.Address) (identity.Signer, error) {
				switch a {
				case c.Agents()[0].Address:
					return nil, errors.New("locked")
				case c.Agents()[1].Address:
					wrong = a
					return signer(ctx, c.Agents()[2].Address)
				}
				return signer(ctx, a)
			}
		})
		c := r.dialled()
		auth := r.accept(c)
		if len(auth.Agents) != 1 || strings.Count(r.states(), "error") != 2 || strings.Count(r.states(), "connected") != 1 {
			t.Errorf("%d signed, %s", len(auth.Agents), r.states())
		}
		if r.tunnel.URL(wrong) != "" {
			t.Error("an agent with another's key has a URL")
		}
	})
}

// TestBackoff: the delays of decisions D21.
func TestBackoff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 1)
		c := r.open()
		_ = c.Close(1006, "")
		synctest.Wait()
		r.refused(errors.New("no network"))
		began := time.Now()
		for _, want := range []int{1, 2, 4, 8, 16, 32, 60, 60} {
			pass(time.Duration(want)*time.Second - time.Millisecond)
			before := r.states()
			pass(2 * time.Millisecond)
			if before != "connecting" {
				t.Fatalf("%s: %s", time.Since(began), before)
			}
		}
		r.refused(nil)
		pass(time.Minute)
		c = r.open()
		pass(healthyAfter - 2*time.Second)
		_ = c.Close(1006, "") // not yet healthy: the delay goes on
		pass(59 * time.Second)
		if r.dialled() != nil {
			t.Fatal("the delay was reset too early")
		}
		pass(2 * time.Second)
		c = r.open()
		pass(healthyAfter)
		_ = c.Close(1006, "")
		pass(time.Second + time.Millisecond)
		c = r.open()
		c.put(`{"type":"error","error":"relay_restarting"}`)
		_ = c.Close(1001, "")
		pass(restartDelay)
		if r.dialled() == nil {
			t.Error("a relay that restarts is not dialled soon")
		}
	})
}

// TestJitter: a fifth to either side, whatever the random number.
func TestJitter(t *testing.T) {
	t.Parallel()
	for _, j := range []float64{0, 0.5, 0.999999} {
		b := backoff{jitter: func() float64 { return j }}
		for want := time.Second; want < time.Hour; want *= 2 {
			base := min(want, maxDelay)
			got := b.next(errProtocol)
			if got < base*8/10 || got > base*12/10 {
				t.Errorf("jitter %v: %s for %s", j, got, base)
			}
		}
		if got := b.next(errRestarting); got <= 0 || got > restartDelay {
			t.Errorf("restarting: %s", got)
		}
	}
}

// TestSignatureRefused: three times, then it waits for a key or a clock.
func TestSignatureRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 1)
		for range maxRefusals {
			c := r.dialled()
			if c == nil {
				t.Fatal("not tried again")
			}
			c.put(`{"type":"challenge","nonce":"00"}`)
			c.take(t)
			c.put(`{"type":"auth_error","error":"signature_verification_failed"}`)
			pass(10 * time.Second)
		}
		pass(24 * time.Hour)
		if r.dialled() != nil {
			t.Fatal("it does not wait")
		}
		r.tunnel.Changed()
		r.open()
		if got := r.states(); got != "connected" {
			t.Error(got)
		}
	})
}

// TestChanges: one at a time, each answered before the next.
func TestChanges(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newIdleRig(t, 4)
		all := r.keys.list
		r.wanted = all[:1]
		r.run()
		c := r.dialled()
		if auth := r.accept(c); len(auth.Agents) != 1 {
			t.Fatalf("%d agents", len(auth.Agents))
		}
		r.want(all[0], all[1], all[2])
		for range 2 {
			if f := c.take(t); f.Type != wire.RequestChallenge {
				t.Fatalf("%+v", f)
			}
			if f := c.take(t); f.Type != "" {
				t.Fatalf("before the challenge: %+v", f)
			}
			c.put(`{"type":"challenge","nonce":"%064x"}`, 9)
			f := c.take(t)
			if _, ok := wire.Verify(wire.Agent{Address: f.Address, Signature: f.Signature}, f.Nonce, f.Timestamp); f.Type != wire.AddAgent || !ok {
				t.Fatalf("%+v", f)
			}
			c.put(`{"type":"agent_added","address":%q,"url":"https://x"}`, strings.ToLower(f.Address))
		}
		if got := r.states(); strings.Count(got, "connected") != 3 {
			t.Error(got)
		}
		r.want(all[1], all[2])
		f := c.take(t)
		if f.Type != wire.RemoveAgent || f.Address != all[0].Address.Lower() {
			t.Fatalf("%+v", f)
		}
		c.put(`{"type":"agent_removed","address":%q}`, f.Address)
		// A relay that says "not so fast" is asked again later.
		r.want(all[1], all[2], all[3])
		c.take(t)
		c.put(`{"type":"error","error":"rate_limited"}`)
		if f := c.take(t); f.Type != "" {
			t.Fatalf("at once: %+v", f)
		}
		pass(rateWait)
		if f := c.take(t); f.Type != wire.RequestChallenge {
			t.Fatalf("later: %+v", f)
		}
		c.put(`{"type":"error","error":"max_agents_reached"}`)
		if got := r.states(); strings.Count(got, "error") != 1 {
			t.Error(got)
		}
		// No answer within ten seconds drops the socket.
		r.want(all[1], all[2])
		r.want(all[1], all[2], all[0])
		for c.take(t).Type != "" {
		}
		pass(replyTimeout + time.Second)
		if !c.isClosed() {
			t.Error("the socket stays without an answer")
		}
	})
}

// TestManyChanges open a new socket with everybody; that the old one is
// superseded is no news.
func TestManyChanges(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newIdleRig(t, 12)
		all := r.keys.list
		r.wanted = all[:2]
		r.run()
		old := r.open()
		r.want(all[:2+maxChanges+1]...)
		fresh := r.dialled()
		if auth := r.accept(fresh); len(auth.Agents) != 2+maxChanges+1 {
			t.Fatalf("%d agents", len(auth.Agents))
		}
		for _, a := range all[:2] {
			if !old.isClosed() {
				old.put(`{"type":"agent_removed","address":%q,"reason":"superseded"}`, a.Address.Lower())
			}
		}
		if got := r.states(); strings.Count(got, "connected") != 2+maxChanges+1 || !old.isClosed() {
			t.Errorf("%s, closed %v", got, old.isClosed())
		}
		if c := r.dialled(); c != nil {
			t.Error("one socket more than needed")
		}
	})
}

// TestManyAgents: fifty to a socket, five sockets.
func TestManyAgents(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, MaxAgents+1)
		synctest.Wait()
		counts := map[int]int{}
		for range MaxSockets {
			counts[len(r.accept(r.dialled()).Agents)]++
		}
		if counts[wire.MaxAgents] != MaxSockets || r.dialled() != nil {
			t.Errorf("sockets: %v", counts)
		}
		if got := r.states(); strings.Count(got, "connected") != MaxAgents || strings.Count(got, "error") != 1 {
			t.Error(got)
		}
	})
}

// TestSuperseded: another host has it now. Nothing takes it back by itself.
func TestSuperseded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 2)
		c := r.open()
		a, b := r.keys.list[0].Address, r.keys.list[1].Address
		c.put(`{"type":"agent_removed","address":%q,"reason":"superseded"}`, a.Lower())
		if got := r.states(); !strings.Contains(got, "served elsewhere") || !strings.Contains(got, "connected") || r.tunnel.URL(a) != "" {
			t.Errorf("%s", got)
		}
		_ = c.Close(1006, "")
		pass(2 * time.Second)
		c = r.dialled()
		if auth := r.accept(c); len(auth.Agents) != 1 || auth.Agents[0].Address != b.String() {
			t.Fatalf("it was taken back: %+v", auth.Agents)
		}
		c.put(`{"type":"agent_removed","address":%q,"reason":"superseded"}`, b.Lower())
		pass(24 * time.Hour)
		if r.dialled() != nil || !c.isClosed() {
			t.Fatal("a socket for nobody")
		}
		r.tunnel.Reclaim(a)
		if auth := r.accept(r.dialled()); len(auth.Agents) != 1 || auth.Agents[0].Address != a.String() {
			t.Error("not taken back when asked for")
		}
	})
}

// TestGivenUp: the relay no longer carries an agent, and nobody asked for it.
func TestGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 2)
		ended := make(chan error, 1)
		r.served = func(_ http.ResponseWriter, q *http.Request) {
			<-q.Context().Done()
			ended <- q.Context().Err()
		}
		c := r.open()
		r.ask(c, "1", "GET", "/", "")
		c.put(`{"type":"agent_removed","address":%q}`, r.keys.list[0].Address.Lower())
		if err := <-ended; err == nil {
			t.Error("its request goes on")
		}
		if got := r.states(); !strings.Contains(got, "disconnected") || !strings.Contains(got, ",connected") && !strings.Contains(got, "connected,") || r.tunnel.URL(r.keys.list[0].Address) != "" {
			t.Error(got)
		}
		r.ask(c, "2", "GET", "/", "")
		if f := c.take(t); f.ID != "2" || f.Status != http.StatusBadGateway {
			t.Errorf("a request for it: %+v", f)
		}
	})
}

// TestOddFrames are answered as far as they can be: requests with long ids, and
// pings whose time is none.
func TestOddFrames(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 1)
		r.served = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
		c := r.open()
		r.ask(c, strings.Repeat("i", wire.MaxID), "GET", "/", "")
		if f := c.take(t); f.Status != http.StatusOK {
			t.Errorf("an id at the limit: %+v", f)
		}
		r.ask(c, strings.Repeat("i", 10_000), "GET", "/", "")
		synctest.Wait()
		if raw := <-c.out; !strings.Contains(string(raw), `"status":200`) {
			t.Errorf("a long id: %.100s", raw)
		}
		for _, ts := range []string{`1.5`, `"5"`, `{}`, `null`} {
			c.put(`{"type":"ping","ts":%s}`, ts)
			if f := c.take(t); f.Type != wire.Pong || f.TS == nil || *f.TS != time.Now().Unix() {
				t.Errorf("a ping at %s: %+v", ts, f)
			}
		}
		for _, frame := range []string{`{"type":"request","id":"1","path":"/","headers":{}}`, `{"type":"request","id":"1","method":null,"path":"","headers":{}}`, `{"type":"request","id":"1","method":"GET","path":"/"}`} {
			c.put("%s", frame)
			if f := c.take(t); f.Type != "" {
				t.Errorf("%s: %+v", frame, f)
			}
		}
	})
}

// TestOlderRelayTakesNobody: it keeps the socket, and each is asked for again.
func TestOlderRelayTakesNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 1)
		c := r.dialled()
		a := r.keys.list[0].Address
		c.put(`{"type":"challenge","nonce":"%064x"}`, 7)
		c.take(t)
		c.put(`{"type":"auth_ok","agents":[],"rejected":[{"address":%q,"reason":"already_registered"}]}`, a.Lower())
		if f := c.take(t); f.Type != wire.RequestChallenge || c.isClosed() {
			t.Fatalf("%+v", f)
		}
		c.put(`{"type":"challenge","nonce":"%064x"}`, 8)
		if f := c.take(t); f.Type != wire.AddAgent {
			t.Fatalf("%+v", f)
		}
		c.put(`{"type":"error","error":"address_already_registered"}`)
		if got := r.states(); got != "error" {
			t.Error(got)
		}
	})
}

// TestRefusalShows: after the last try the status is the error.
func TestRefusalShows(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 1)
		for range maxRefusals {
			c := r.latest()
			c.put(`{"type":"challenge","nonce":"%064x"}`, 7)
			c.take(t)
			c.put(`{"type":"auth_error","error":"signature_verification_failed"}`)
		}
		pass(24 * time.Hour)
		if got := r.states(); got != "error" || r.dialled() != nil {
			t.Error(got)
		}
	})
}

// TestOlderRelay turns away who has another tunnel, and has no region.
func TestOlderRelay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 2)
		c := r.dialled()
		a, b := r.keys.list[0].Address.Lower(), r.keys.list[1].Address.Lower()
		c.put(`{"type":"challenge","nonce":"%064x"}`, 7)
		c.take(t)
		c.put(`{"type":"auth_ok","agents":[{"address":%q,"url":"https://x"},{"address":%q,"url":"https://x"}],"rejected":[{"address":%q,"reason":"already_registered"}]}`, a, a, b)
		if got := r.states(); !strings.Contains(got, "connected") || !strings.Contains(got, "error") {
			t.Error(got)
		}
	})
}

// TestHostileRelay: what it sends costs it nothing and us neither.
func TestHostileRelay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 1)
		for _, bad := range []string{
			`{"type":"auth_ok","agents":[]}`, `{"type":"auth_error","error":"no"}`, `{"type":"error","error":"relay_restarting"}`,
			`{"type":"auth_ok","agents":[{"address":"0x0000000000000000000000000000000000000001","url":"https://x"}]}`,
		} {
			c := r.latest()
			c.put(`{"type":"challenge","nonce":"00"}`)
			if f := c.take(t); f.Type != wire.Auth {
				t.Fatalf("%+v", f)
			}
			c.put("%s", bad)
			if !c.isClosed() {
				t.Fatalf("%s: still open", bad)
			}
			pass(2 * time.Minute)
		}
		c := r.latest() // silence
		pass(replyTimeout + time.Second)
		if !c.isClosed() {
			t.Error("a relay that says nothing is waited for")
		}
		pass(2 * time.Minute)
		c = r.latest()
		r.accept(c)
		for i := range 100 {
			for _, junk := range []string{"", "{", "null", "[]", `{"type":"challenge","nonce":"1"}`, `{"type":"agent_added","address":"0x1"}`, `{"type":"agent_removed","address":"nobody","reason":"superseded"}`,
				`{"type":"cancel","id":"none"}`, `{"type":"error","error":"what"}`, `{"type":"request","id":"x"}`, `{"type":"whatever","id":"x"}`, `{"type":"auth_ok"}`} {
				c.put("%s", junk)
			}
			if f := c.take(t); f.Type != "" {
				t.Fatalf("%d: %+v", i, f)
			}
		}
		if got := r.states(); got != "connected" {
			t.Error(got)
		}
	})
}

// TestADay: pings, drops, restarts and changes for a day of fake time leave
// one socket, all agents connected, and nothing behind.
func TestADay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, 3)
		c := r.open()
		for minute := range 24 * 60 {
			pass(time.Minute)
			c.put(`{"type":"ping","ts":%d}`, minute)
			if f := c.take(t); f.Type != wire.Pong {
				t.Fatalf("minute %d: %+v", minute, f)
			}
			switch {
			case minute%97 == 0:
				c.put(`{"type":"error","error":"relay_restarting"}`)
				fallthrough
			case minute%31 == 0:
				_ = c.Close(1006, "")
				pass(2 * time.Second)
				c = r.open()
			}
			if got := r.states(); got != "connected,connected,connected" {
				t.Fatalf("minute %d: %s", minute, got)
			}
		}
		r.tunnel.mu.Lock()
		lines := len(r.tunnel.lines)
		r.tunnel.mu.Unlock()
		if lines != 1 || r.dialled() != nil {
			t.Errorf("%d lines", lines)
		}
	})
}

func TestStateText(t *testing.T) {
	t.Parallel()
	for s := Disconnected; s <= ServedElsewhere; s++ {
		var back State
		text, err := s.MarshalText()
		if err != nil || back.UnmarshalText(text) != nil || back != s {
			t.Errorf("%s %v", text, fmt.Sprint(back))
		}
	}
}
