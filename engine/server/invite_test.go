package server

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"osaurus/engine/agents"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/pairing"
)

func invitedAgent(a agents.Agent) pairing.InvitedAgent {
	return pairing.InvitedAgent{ID: a.ID, Name: a.Name, Address: a.Address, BuiltIn: a.BuiltIn}
}

func (h *host) invite() pairing.Invite {
	h.t.Helper()
	in, err := h.invites.Issue(h.t.Context(), invitedAgent(h.agent), time.Hour)
	if err != nil {
		h.t.Fatal(err)
	}
	return in
}

// redemption is the body for an invite with members changed.
func (h *host) redemption(in pairing.Invite, change map[string]any) string {
	h.t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	m := map[string]any{"v": in.V, "addr": in.Addr, "name": in.Name, "url": in.URL, "nonce": in.Nonce, "exp": in.Exp, "sig": in.Sig, "encPub": base64url.Encode(key.PublicKey().Bytes())}
	for k, v := range change {
		m[k] = v
	}
	raw, err := json.Marshal(m)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(raw)
}

// way is how a request reaches the host; every test of the route goes all of
// them.
type way func(h *host, path, body string) (status int, answer string)

var ways = map[string]way{
	"plain": func(h *host, path, body string) (int, string) {
		status, answer, _ := h.call("POST", path, body)
		return status, answer
	},
	"relay": func(h *host, path, body string) (int, string) { return h.relayed(path, body, "203.0.113.1, 10.0.0.1") },
	"channel": func(h *host, path, body string) (int, string) {
		resp, err := h.through(h.agent.Address).Post(h.base+path, "application/json", strings.NewReader(body))
		if err != nil {
			h.t.Fatal(err)
		}
		defer resp.Body.Close()
		var raw bytes.Buffer
		if _, err := raw.ReadFrom(resp.Body); err != nil {
			h.t.Fatal(err)
		}
		return resp.StatusCode, raw.String()
	},
}

// relayed posts like the tunnel does.
func (h *host) relayed(path, body, forwarded string) (int, string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(WithOrigin(h.t.Context(), Relay), "POST", h.base+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.RequestURI, req.RemoteAddr = path, "127.0.0.1:1"
	if forwarded != "" {
		req.Header.Set("X-Forwarded-For", forwarded)
	}
	rec := &recorder{header: http.Header{}}
	h.ServeHTTP(rec, req)
	return rec.status, rec.body.String()
}

func TestPairInvite(t *testing.T) {
	t.Parallel()
	for name, send := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for row, c := range map[string]struct {
				do      func(h *host) string
				status  int
				answer  string
				penalty bool
			}{
				"payload":   {func(*host) string { return "{" }, 400, `{"error":"Invalid invite payload"}`, false},
				"team":      {func(*host) string { return `{"team_redeem":{}}` }, 400, `{"error":"Invalid invite payload"}`, false},
				"version":   {func(h *host) string { return h.redemption(h.invite(), map[string]any{"v": 2}) }, 400, `{"error":"Unsupported invite version"}`, false},
				"encPub":    {func(h *host) string { return h.redemption(h.invite(), map[string]any{"encPub": ""}) }, 400, `{"error":"Invalid encryption key"}`, false},
				"signature": {func(h *host) string { return h.redemption(h.invite(), map[string]any{"exp": 1}) }, 401, `{"error":"Signature verification failed"}`, true},
				"revoked": {func(h *host) string {
					in := h.invite()
					if err := h.invites.Revoke(h.t.Context(), h.agent.ID, in.Nonce); err != nil {
						h.t.Error(err)
					}
					return h.redemption(in, nil)
				}, 403, `{"error":"Invite was revoked"}`, true},
				"used": {func(h *host) string {
					in := h.invite()
					if _, err := h.invites.Redeem(h.t.Context(), []byte(h.redemption(in, nil)), ""); err != nil {
						h.t.Error(err)
					}
					return h.redemption(in, nil)
				}, 409, `{"error":"Invite has already been redeemed"}`, false},
				"owner": {func(h *host) string {
					return `{"owner_redeem":{"v":1,"agent_address":"` + h.agent.Address.Lower() + `","device_id":"d","nonce":"n","wallet_signature":"0x","encPub":"_y7kVgHsG2cxDHeQQEWFrmlzMe7hwfjPJBlzHB__Pms"}}`
				}, 401, `{"error":"Unknown or expired challenge nonce"}`, true},
				"too large": {func(*host) string { return strings.Repeat("x", MaxPairingBody+1) }, 413, `{"error":{"message":"Request body too large (65537 > 65536 bytes)","type":"payload_too_large"}}`, false},
				"granted":   {func(h *host) string { return h.redemption(h.invite(), nil) }, 200, "", false},
			} {
				h := newHost(t)
				status, answer := send(h, "/v1/pair-invite", c.do(h))
				if status != c.status || c.answer != "" && answer != c.answer {
					t.Errorf("%s: %d %s, want %d %s", row, status, answer, c.status, c.answer)
				}
				next, _ := send(h, "/pair-invite", "{")
				if (next == 429) != c.penalty {
					t.Errorf("%s: then %d, penalty %v", row, next, c.penalty)
				}
			}
		})
	}
}

func TestPairInviteAtItsLimit(t *testing.T) {
	t.Parallel()
	for name, send := range ways {
		h := newHost(t)
		body := h.redemption(h.invite(), nil)
		body += strings.Repeat(" ", MaxPairingBody-len(body))
		if status, answer := send(h, "/pair-invite", body); status != 200 {
			t.Errorf("%s: exactly the limit: %d %s", name, status, answer)
		}
	}
}

func TestPairInviteLimiter(t *testing.T) {
	t.Parallel()
	for name, send := range ways {
		h := newHost(t)
		for i := range pairingLimit + 1 {
			want, text := 400, "Invalid invite payload"
			if i == pairingLimit {
				want, text = 429, "Too many pairing attempts. Try again shortly."
			}
			if status, answer := send(h, "/pair-invite", "{"); status != want || answer != `{"error":"`+text+`"}` {
				t.Errorf("%s: attempt %d: %d %s", name, i+1, status, answer)
			}
		}
	}
	// Callers of the relay are told apart by their first hop, and are never the
	// machine that the tunnel ends on.
	h := newHost(t)
	bad := h.redemption(h.invite(), map[string]any{"exp": 1})
	if status, _ := h.relayed("/pair-invite", bad, "203.0.113.1"); status != 401 {
		t.Fatal(status)
	}
	for from, want := range map[string]int{"203.0.113.1": 429, "203.0.113.1, 198.51.100.1": 429, "198.51.100.1, 203.0.113.1": 400, "": 400, strings.Repeat("9", 5000): 400} {
		if status, _ := h.relayed("/pair-invite", "{", from); status != want {
			t.Errorf("from %.20q: %d, want %d", from, status, want)
		}
	}
	if status, _, _ := h.call("POST", "/pair-invite", "{"); status != 400 {
		t.Error("this machine:", status)
	}
	if status, _, _ := h.call("POST", "/pair-invite", "{", "X-Forwarded-For", "203.0.113.1"); status != 400 {
		t.Error("a header of a caller that is no relay counted:", status)
	}
}

func TestRedeemer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ctx  func(context.Context) context.Context
		xff  string
		want string
	}{
		"relay":             {relayContext, "203.0.113.1, 10.0.0.1", "203.0.113.1"},
		"relay, no hop":     {relayContext, "", "a.relay.example"},
		"header on the LAN": {func(c context.Context) context.Context { return c }, "203.0.113.1", "192.0.2.7"},
	} {
		r, err := http.NewRequestWithContext(c.ctx(t.Context()), "POST", "http://a.relay.example/pair-invite", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = "192.0.2.7:9"
		r.Header.Set("X-Forwarded-For", c.xff)
		if got := redeemer(r); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func relayContext(c context.Context) context.Context { return WithOrigin(c, Relay) }

// TestTwin: the log keeps what names, and nothing that opens (behaviours 43).
func TestTwin(t *testing.T) {
	t.Parallel()
	const hidden = "hunter2"
	for _, member := range []string{"attestation", "wallet_signature", "sig", "signature", "nonce", "encPub", "enc_pub", "device_id", "apiKey", "sealedApiKey"} {
		for _, form := range []string{`{"%s":"%s"}`, `{"owner_redeem":{"%s":"%s"}}`, `{"a":[{"%s":"%s"}]}`, `{"%s":{"deep":["%s"]}}`} {
			if got := twin(fmt.Appendf(nil, form, member, hidden)); strings.Contains(got, hidden) || !strings.Contains(got, member) {
				t.Errorf("%s shows as %s", member, got)
			}
		}
	}
	for in, want := range map[string]string{
		"": "", "not json": nonJSON, "{": nonJSON, `{"a":1,"a":2}`: nonJSON,
		`{"addr":"0x1","name":"n","v":1,"exp":1762000000,"nonce":"x"}`: `{"addr":"0x1","exp":1762000000,"name":"n","nonce":"[redacted]","v":1}`,
	} {
		if got := twin([]byte(in)); got != want {
			t.Errorf("%s became %s", in, got)
		}
	}
}

func TestPairInviteInTheRing(t *testing.T) {
	t.Parallel()
	for name, send := range ways {
		h := newHost(t)
		in := h.invite()
		body := h.redemption(in, nil)
		_, answer := send(h, "/pair-invite", body)
		var reply pairing.InviteReply
		if err := json.Unmarshal([]byte(answer), &reply); err != nil || reply.SealedAPIKey.CT == "" {
			t.Fatalf("%s: %s, %v", name, answer, err)
		}
		_, _ = send(h, "/pair-invite", "osk-v1.plain")
		raw, err := json.Marshal(h.Requests())
		if err != nil {
			t.Fatal(err)
		}
		log := string(raw)
		for _, secret := range []string{in.Nonce, in.Sig, reply.SealedAPIKey.CT, reply.SealedAPIKey.Enc, "osk-v1"} {
			if strings.Contains(log, secret) {
				t.Errorf("%s: the log holds %s", name, secret)
			}
		}
		if !strings.Contains(log, in.Addr) || !strings.Contains(log, "redacted: non-JSON body") || strings.Contains(log, "secure/call") {
			t.Errorf("%s: %s", name, log)
		}
	}
}
