package server

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"osaurus/engine/relay/wire"
)

// TestAuth: section 2, every way that an auth frame is right.
func TestAuth(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := agentN(0), agentN(1)
	zeroV := func(p wire.Agent) wire.Agent {
		v := map[string]string{"1b": "00", "1c": "01"}[p.Signature[130:]]
		p.Signature = p.Signature[:130] + v
		return p
	}
	for name, c := range map[string]struct {
		proofs func(nonce string, ts int64) []wire.Agent
		shift  int64
		want   int
	}{
		"checksummed": {func(n string, ts int64) []wire.Agent { return []wire.Agent{a.proof(n, ts)} }, 0, 1},
		"lower case":  {func(n string, ts int64) []wire.Agent { return []wire.Agent{a.proofAs(a.addr.Lower(), n, ts)} }, 0, 1},
		"v is 0 or 1": {func(n string, ts int64) []wire.Agent { return []wire.Agent{zeroV(a.proof(n, ts))} }, 0, 1},
		"two":         {func(n string, ts int64) []wire.Agent { return []wire.Agent{a.proof(n, ts), b.proof(n, ts)} }, 0, 2},
		"one twice": {func(n string, ts int64) []wire.Agent {
			return []wire.Agent{a.proof(n, ts), a.proofAs(a.addr.Lower(), n, ts)}
		}, 0, 1},
		"a clock ahead":  {func(n string, ts int64) []wire.Agent { return []wire.Agent{a.proof(n, ts)} }, clockSkew - 1, 1},
		"a clock behind": {func(n string, ts int64) []wire.Agent { return []wire.Agent{a.proof(n, ts)} }, -clockSkew + 1, 1},
		"the wrong checksum": {func(n string, ts int64) []wire.Agent {
			return []wire.Agent{a.proofAs("0x"+strings.ToUpper(a.addr.Lower()[2:]), n, ts)}
		}, 0, 1},
	} {
		h := r.dial()
		nonce := h.want(wire.Challenge).Nonce
		ts := now() + c.shift
		h.send(&wire.Frame{Type: wire.Auth, Nonce: nonce, Timestamp: ts, Agents: c.proofs(nonce, ts)})
		f := h.want(wire.AuthOK)
		if len(f.Agents) != c.want || f.Region != "here" || f.Agents[0].Address != a.addr.Lower() || f.Agents[0].URL != "https://"+a.addr.Lower()+"."+testDomain {
			t.Errorf("%s: %+v", name, f)
		}
		_ = h.c.CloseNow()
	}
}

// TestAuthRefused: section 2, one auth_error and the close that follows.
func TestAuthRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.TrustProxy = loopback })
	a := agentN(0)
	good := func(n string) string {
		p := a.proof(n, now())
		return fmt.Sprintf(`{"address":%q,"signature":%q}`, p.Address, p.Signature)
	}
	frame := func(agents, nonce, ts string) string {
		return fmt.Sprintf(`{"type":"auth","agents":[%s],"nonce":%q,"timestamp":%s}`, agents, nonce, ts)
	}
	stamp := func(shift int64) string { return fmt.Sprint(now() + shift) }
	signed := func(n string, shift int64) string {
		p := a.proof(n, now()+shift)
		return fmt.Sprintf(`{"address":%q,"signature":%q}`, p.Address, p.Signature)
	}
	for name, c := range map[string]struct {
		frame      func(nonce string) string
		word, shut string
		code       websocket.StatusCode
	}{
		"no JSON":       {func(string) string { return "{" }, "invalid_json", "invalid json", 4000},
		"empty":         {func(string) string { return "" }, "invalid_json", "invalid json", 4000},
		"an array":      {func(string) string { return "[]" }, "expected_auth_frame", "expected auth frame", 4000},
		"another frame": {func(string) string { return `{"type":"pong"}` }, "expected_auth_frame", "expected auth frame", 4000},
		"no agents key": {func(n string) string { return `{"type":"auth","nonce":"` + n + `","timestamp":` + stamp(0) + `}` }, "expected_auth_frame", "expected auth frame", 4000},
		"text time":     {func(n string) string { return frame(good(n), n, `"`+stamp(0)+`"`) }, "expected_auth_frame", "expected auth frame", 4000},
		"half a second": {func(n string) string { return frame(good(n), n, stamp(0)+".5") }, "expected_auth_frame", "expected auth frame", 4000},
		"no 0x on the signature": {func(n string) string {
			return frame(strings.Replace(good(n), `"signature":"0x`, `"signature":"`, 1), n, stamp(0))
		}, "expected_auth_frame", "expected auth frame", 4000},
		"a short address": {func(n string) string {
			return frame(strings.Replace(good(n), `"address":"0x`, `"address":"`, 1), n, stamp(0))
		}, "expected_auth_frame", "expected auth frame", 4000},
		"a long nonce":              {func(n string) string { return frame(good(n), strings.Repeat("a", 129), stamp(0)) }, "expected_auth_frame", "expected auth frame", 4000},
		"another nonce":             {func(n string) string { return frame(good(n), strings.Repeat("0", 64), stamp(0)) }, "invalid_nonce", "invalid nonce", 4000},
		"nobody":                    {func(n string) string { return frame("", n, stamp(0)) }, "no_agents", "no agents", 4000},
		"nobody, and another nonce": {func(string) string { return frame("", "x", stamp(0)) }, "invalid_nonce", "invalid nonce", 4000},
		"51": {func(n string) string {
			return frame(strings.Join(slices.Repeat([]string{good(n)}, wire.MaxAgents+1), ","), n, stamp(0))
		}, "too_many_agents", "too many agents", 4000},
		"another's signature": {func(n string) string {
			return frame(strings.Replace(good(n), a.addr.String(), agentN(1).addr.String(), 1), n, stamp(0))
		}, "signature_verification_failed", "auth failed", 4001},
		"one of two is wrong": {func(n string) string {
			return frame(good(n)+","+strings.Replace(good(n), a.addr.String(), agentN(1).addr.String(), 1), n, stamp(0))
		}, "signature_verification_failed", "auth failed", 4001},
		"lower case, signed in mixed": {func(n string) string {
			return frame(strings.Replace(good(n), a.addr.String(), a.addr.Lower(), 1), n, stamp(0))
		}, "signature_verification_failed", "auth failed", 4001},
		"too old": {func(n string) string { return frame(signed(n, -clockSkew-2), n, stamp(-clockSkew-2)) }, "signature_verification_failed", "auth failed", 4001},
		"too new": {func(n string) string { return frame(signed(n, clockSkew+2), n, stamp(clockSkew+2)) }, "signature_verification_failed", "auth failed", 4001},
	} {
		ip := strings.ReplaceAll(fmt.Sprintf("10.0.0.%d", len(name)), " ", "")
		h := r.dialAs(ip)
		nonce := h.want(wire.Challenge).Nonce
		h.raw(c.frame(nonce))
		if f := h.want(wire.AuthError); f.Error != c.word {
			t.Errorf("%s: %s", name, f.Error)
		}
		h.wantClose(c.code, c.shut)
	}
	if r.s.hosts.count() != 0 {
		t.Error("somebody got in")
	}
}

// TestChallenge: 64 hex digits, never the same, at once.
func TestChallenge(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	seen := map[string]bool{}
	for range 3 {
		n := r.dial().want(wire.Challenge).Nonce
		if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(n) || seen[n] {
			t.Errorf("nonce %q", n)
		}
		seen[n] = true
	}
}

// TestAuthTimeout: ten seconds, and binary messages count for nothing.
func TestAuthTimeout(t *testing.T) {
	inBubble(t, func(b *bubble) {
		m := b.connect()
		b.take(m)
		elapse(authTimeout - time.Millisecond)
		if got := b.says(m); got != "" {
			t.Errorf("too early: %s", got)
		}
		elapse(2 * time.Millisecond)
		if got := b.says(m); got != "auth_error auth_timeout" || b.closedWith(m) != "4001 auth timeout" {
			t.Errorf("%s, %s", got, b.closedWith(m))
		}
	})
}

func TestBinaryIsIgnored(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.dial()
	binary := func() {
		if err := h.c.Write(t.Context(), websocket.MessageBinary, []byte("{")); err != nil {
			t.Fatal(err)
		}
	}
	binary()
	h.authAs(agentN(0))
	binary()
	h.send(&wire.Frame{Type: wire.RequestChallenge})
	h.want(wire.Challenge)
	if n := r.s.stats.invalidFrames.Load(); n != 0 {
		t.Errorf("%d were counted", n)
	}
}

// TestLargeAuthFrame: nobody unknown may send much.
func TestLargeAuthFrame(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.dial()
	h.want(wire.Challenge)
	go func() { _ = h.c.Write(t.Context(), websocket.MessageText, []byte(strings.Repeat(" ", maxAuthFrame+1))) }()
	if _, code, _ := h.next(); code != websocket.StatusMessageTooBig {
		t.Errorf("close %d", code)
	}
}
