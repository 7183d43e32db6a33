package server

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/agents"
	"osaurus/engine/channel"
	"osaurus/engine/identity"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/ratelimit"
	"osaurus/engine/settings"
	"osaurus/engine/signature"
)

// gateInput is one random request and the settings it meets.
type gateInput struct {
	set           settings.Server
	configured    bool // some key was minted
	tunnel        bool // it enters through the relay's tunnel
	inside        bool // it comes out of the channel
	remote, host  string
	header        http.Header // of the outer request
	authorization []string
	bearer        string // the kind of the first of them
	agentHeader   string
	method        string
	target        string
	declared      int64 // Content-Length; -1 is the body's own
}

// gateChoices reads an input from bytes, one for each choice; a free text
// replaces a choice of 255.
func gateChoices(raw []byte, free [3]string, h *host, tokens map[string]string) (in gateInput) {
	next := func() int {
		if len(raw) == 0 {
			return 0
		}
		b := raw[0]
		raw = raw[1:]
		return int(b)
	}
	flag := func() bool { return next()&1 == 1 }
	pick := func(list ...string) string { return list[next()%len(list)] }
	local := fmt.Sprintf("127.0.0.1:%d", h.port)
	port := strconv.Itoa(h.port)
	in.set = settings.DefaultServer()
	in.set.Expose, in.set.LoopbackTrust, in.set.PeerInference, in.set.RequireChannel = next()%4 == 1, next()%4 != 1, flag(), next()%4 == 1
	in.set.CORS = [][]string{nil, {"*"}, {"https://good.example"}, {"https://good.example", "app://obsidian.md", "null"}}[next()%4]
	in.configured, in.tunnel, in.inside = next()%8 != 1, next()%4 == 1, next()%4 == 1
	in.remote = pick("127.0.0.1:9", "127.0.0.1:9", "127.0.0.1:9", "127.0.0.1:9", "127.200.3.4:9", "[::1]:9", "[::ffff:127.0.0.1]:9", "192.0.2.1:9", "[fe80::1%lo]:9", "[2001:db8::1]:9", "@", "0.0.0.0:9")
	in.host = pick(local, local, local, local, local, local, "localhost:"+port, "LOCALHOST:"+port, "[::1]:"+port, "127.0.0.1", "localhost", "[::1]", "localhost:1", "evil.example:"+port, "localhost.evil.example:"+port, "127.0.0.2:"+port, "localhost.:"+port, "localhost:0"+port, "localhost:+"+port, "[localhost]:"+port, "[127.0.0.1]:"+port, free[1])
	in.header = http.Header{}
	for range []int{0, 0, 0, 0, 1, 2}[next()%6] {
		in.header.Add("Origin", pick("http://localhost:3000", "https://127.9.9.9", "http://[::1]:1", "https://evil.example", "null", "https://good.example", "app://obsidian.md", "http://localhost.evil.example", "http://evil@localhost", "ftp://localhost", "http://localhost/", "http://localhost?x", "http://localhost#x", "http://localhost:0x50", "http://localhost:99999", "http://127.1", "http://[::ffff:127.0.0.1]", "", "*", free[0]))
	}
	if next()%8 == 1 {
		in.header.Add("Sec-Fetch-Site", pick("cross-site", "Cross-Site", "same-origin", "same-site", "none", " cross-site"))
	}
	if next()%8 == 1 {
		in.header.Add(pick("Forwarded", "Via", "X-Real-Ip", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-", "X-Forwardedx"), pick("127.0.0.1", "", "x"))
	}
	if next()%8 == 1 {
		in.header.Add(relayHeader, pick("1", "0", "x"))
	}
	for range []int{0, 1, 1, 1, 1, 1, 1, 2}[next()%8] {
		kind := pick("master", "master", "master", "agent", "agent", "agent", "agent", "other", "other", "revoked", "expired", "both", "foreign", "audience", "issuer", "signature", "encoding", "payload", "two", "v2", "empty")
		if in.authorization == nil {
			in.bearer = kind
		}
		in.authorization = append(in.authorization, pick("Bearer ", "Bearer ", "Bearer ", "Bearer ", "Bearer ", "Bearer ", "bearer ", "BEARER ", "Basic ", "Bearer", "")+tokens[kind])
	}
	if next()%4 == 1 {
		in.agentHeader = pick(h.agent.ID, strings.ToLower(h.agent.ID), " "+h.agent.ID, h.agent.Address.String(), h.other.ID, h.other.Address.Lower(), "11111111-1111-4111-8111-111111111111", agents.DefaultID, "nonsense")
	}
	in.method = pick("GET", "POST", "GET", "POST", "GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT")
	id := pick(h.agent.ID, h.agent.Address.Lower(), strings.ToLower(h.other.ID), h.other.Address.String(), agents.DefaultID, "11111111-1111-4111-8111-111111111111", "nonsense")
	path := pick("/", "/health", "/models", "/chat/completions", "/agents", "/agents/"+id, "/agents/"+id+"/run", "/agents/"+id+"/run", "/agents/"+id+"/dispatch", "/agents/"+id+"/", "/agents/"+id+"/run/x",
		"/agents/", "/memory/ingest", "/pair/challenge", "/pair", "/pair-invite", "/secure/session", "/secure/call", "/admin/status", "/admin", "/adminx", "/tasks/"+id, "/models/", "/Models", "//models", "/%6dodels", "", free[2])
	in.target = pick("", "", "", "", "/v1", "/v1", "/api", "/v1/api", "/v1/v1", "/v1x") + path + pick("", "", "", "?x=/pair", "?")
	if !strings.HasPrefix(in.target, "/") {
		in.target = "/" + in.target
	}
	in.declared = []int64{-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, MaxPairingBody, MaxPairingBody + 1, MaxBody + 1}[next()%15]
	if next()%32 == 1 {
		for n := range MaxHeaderFields + 1 {
			in.header.Add("X-Many", strconv.Itoa(n))
		}
	}
	if in.inside {
		// The way through the channel is plain; what differs is what it leads to.
		in.declared = -1
		in.header.Del("X-Many")
		in.target = strings.TrimSuffix(in.target, "?")
		if strings.Contains(in.target, "secure") || strings.Contains(in.target, free[2]) && free[2] != "" || strings.HasPrefix(in.target, "//") || strings.Contains(in.target, "%") || in.host == free[1] || len(in.authorization) > 1 || len(in.header["Origin"]) > 1 {
			in.inside = false
		}
	}
	return in
}

// gateTokens are a bearer of each kind.
func gateTokens(t testing.TB, h *host) map[string]string {
	t.Helper()
	master, err := h.account.Unlock(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer master.Destroy()
	mine, err := h.agents.Signer(t.Context(), h.agent.Address)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := h.agents.Signer(t.Context(), h.other.Address)
	if err != nil {
		t.Fatal(err)
	}
	raw := func(signer identity.Signer, payload string) string {
		sig, err := signer.Sign(t.Context(), signature.SignedAccess.Digest([]byte(payload)))
		if err != nil {
			t.Fatal(err)
		}
		return accesskey.Prefix + "." + base64url.Encode([]byte(payload)) + "." + sig.Hex()
	}
	claims := func(aud, iss, nonce string, exp int64) string {
		issued := 100
		if nonce == "revoked" {
			issued = 1
		}
		return fmt.Sprintf(`{"aud":%q,"cnt":1,"exp":%d,"iat":%d,"iss":%q,"nonce":%q}`, aud, exp, issued, iss, nonce)
	}
	later, past := time.Now().Add(time.Hour).Unix(), int64(2)
	agent, other := h.agent.Address.String(), h.other.Address.String()
	if err := h.keys.RefuseBefore(t.Context(), time.Unix(50, 0)); err != nil {
		t.Fatal(err)
	}
	good := raw(mine, claims(agent, agent, "good", later))
	parts := strings.Split(good, ".")
	return map[string]string{
		"master": h.key(nil), "agent": good, "other": raw(theirs, claims(other, other, "o", later)),
		"revoked": raw(mine, claims(agent, agent, "revoked", later)), "expired": raw(mine, claims(agent, agent, "e", past)), "both": raw(mine, claims(agent, agent, "revoked", past)),
		"foreign": raw(theirs, claims(agent, other, "f", later)), "audience": raw(mine, claims("0x0000000000000000000000000000000000000001", agent, "a", later)),
		"issuer": raw(theirs, claims(agent, agent, "i", later)), "signature": parts[0] + "." + parts[1] + ".zz", "encoding": parts[0] + ".=*." + parts[2],
		"payload": raw(mine, `{"aud":1}`), "two": parts[0] + "." + parts[1], "v2": "osk-v2." + parts[1] + "." + parts[2], "empty": "",
	}
}

// direct is a transport that calls a handler as if over a socket, and lends the
// outer request what an input says of it.
type direct struct {
	h  http.Handler
	in *gateInput
}

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.RequestURI, r.RemoteAddr, r.Host = r.URL.RequestURI(), d.in.remote, d.in.host
	for name, values := range d.in.header {
		r.Header[name] = values
	}
	if d.in.tunnel {
		r = r.WithContext(WithOrigin(r.Context(), Relay))
	}
	w := httptest.NewRecorder()
	d.h.ServeHTTP(w, r)
	return w.Result(), nil
}

// gateAnswer sends an input to the real server.
func gateAnswer(t *testing.T, h *host, in gateInput) (status int, body string, header http.Header) {
	t.Helper()
	reader := io.Reader(strings.NewReader(gateBody(in)))
	if in.method == http.MethodGet || in.method == http.MethodHead {
		reader = http.NoBody
	}
	req, err := http.NewRequestWithContext(t.Context(), in.method, "http://x/", reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range in.authorization {
		req.Header.Add("Authorization", a)
	}
	if in.agentHeader != "" {
		req.Header.Set("X-Osaurus-Agent-Id", in.agentHeader)
	}
	if in.inside {
		peer := &url.URL{Scheme: "http", Host: in.host}
		path, query, _ := strings.Cut(in.target, "?")
		req.URL = &url.URL{Scheme: "http", Host: in.host, Path: path, RawQuery: query}
		line := channel.NewTransport(channel.TransportConfig{Base: direct{h, &in}, Peer: peer, Pinned: h.agent.Address})
		defer line.Close()
		resp, err := line.RoundTrip(req)
		if err != nil {
			t.Fatalf("%+v through the channel: %v", in, err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(raw), nil
	}
	for name, values := range in.header {
		req.Header[name] = values
	}
	req.RequestURI, req.RemoteAddr, req.Host = in.target, in.remote, in.host
	if in.declared >= 0 {
		req.ContentLength = in.declared
	}
	ctx := req.Context()
	if in.tunnel {
		ctx = WithOrigin(ctx, Relay)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req.WithContext(ctx))
	return w.Code, w.Body.String(), w.Header()
}

// FuzzGate compares the server with a slow model of the table of server.md that
// shares no code with it.
func FuzzGate(f *testing.F) {
	random := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // the same requests each time
	seeds := 2000
	if flag.Lookup("test.fuzz").Value.String() != "" {
		seeds = 100 // the fuzzer goes on from there
	}
	for range seeds {
		raw := make([]byte, 40)
		for i := range raw {
			raw[i] = byte(random.Uint32())
		}
		f.Add(raw, "http://localhost", "localhost", "/agents")
	}
	fresh, h := newHost(f), newHost(f)
	for _, to := range []*host{fresh, h} { // it knows its port once it serves
		to.expect("banner", 200, "", "GET", "/", "")
	}
	tokens := gateTokens(f, h)
	answers := map[int]int{}
	f.Cleanup(func() {
		total := 0
		for _, n := range answers {
			total += n
		}
		if total < 1000 { // one of the corpus, or a worker that only began
			return
		}
		for _, status := range []int{200, 204, 400, 401, 403, 404, 413, 426, 431} {
			if answers[status] == 0 {
				f.Errorf("no request of %v was answered %d: they are not random enough", answers, status)
			}
		}
	})
	f.Fuzz(func(t *testing.T, raw []byte, origin, host, path string) {
		if !plain(origin) || !plain(host) || !plain(path) || strings.ContainsAny(path+host, " ") {
			t.Skip("no such header or request line reaches a handler")
		}
		in := gateChoices(raw, [3]string{origin, host, path}, h, tokens)
		to := h
		if !in.configured {
			// Its agents and port are others: only what needs neither is asked.
			if to = fresh; in.inside || in.agentHeader != "" || strings.Contains(in.target, "/agents/") {
				return // a request that this host cannot be asked
			}
			in.host = strings.ReplaceAll(in.host, strconv.Itoa(h.port), strconv.Itoa(fresh.port))
		}
		to.change(func(s *settings.Server) { *s = in.set })
		s := to.Server
		for _, l := range []**ratelimit.Limiter{&s.pairs, &s.handshakes, &s.relayed, &s.failures} {
			*l = ratelimit.New(ratelimit.Options{Limit: 100, Window: time.Minute})
		}
		status, body, header := gateAnswer(t, to, in)
		want := gateModel(in, to)
		answers[status]++
		if status != want.status || !want.matches(body) {
			t.Errorf("%s %s answers %d %.300s\nwant %d %s\n%s", in.method, in.target, status, body, want.status, want.body, in)
		}
		if got := header.Get("Access-Control-Allow-Origin"); header != nil && got != want.origin {
			t.Errorf("%s %s lets %q read it, want %q\n%s", in.method, in.target, got, want.origin, in)
		}
	})
}

// plain texts are those that a header's value or a target may be.
func plain(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x20 || c >= 0x7f {
			return false
		}
	}
	return len(s) < 200
}

func (in gateInput) String() string {
	raw, err := json.Marshal(map[string]any{"expose": in.set.Expose, "trust": in.set.LoopbackTrust, "inference": in.set.PeerInference, "channelOnly": in.set.RequireChannel, "cors": in.set.CORS, "configured": in.configured, "tunnel": in.tunnel, "inside": in.inside, "remote": in.remote, "host": in.host, "header": in.header, "bearer": in.bearer, "authorization": in.authorization, "agent": in.agentHeader, "declared": in.declared})
	if err != nil {
		return err.Error()
	}
	return string(raw)
}
