package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/agents"
	"osaurus/engine/pairing"
	"osaurus/engine/relay"
	"osaurus/engine/relay/server"
	"osaurus/engine/secret"
	"osaurus/engine/settings"
)

// relayHost is a relay of this machine: hosts and callers reach it through a
// recorder, so that what it could read is known.
type relayHost struct {
	t      testing.TB
	addr   string // where it listens
	domain string
	wire   recorder
	shift  atomic.Int64 // nanoseconds that the clock of its limits is ahead

	mu      sync.Mutex
	current *server.Server
	serving *http.Server
	front   func(next http.Handler) http.Handler
}

func startRelay(t testing.TB, front func(next http.Handler) http.Handler) *relayHost {
	t.Helper()
	r := &relayHost{t: t, front: front}
	r.listen(func(addr string) string { return r.wire.between(t, &url.URL{Host: addr}).Host })
	return r
}

// startBareRelay records nothing: its memory stays where it is.
func startBareRelay(t testing.TB) *relayHost {
	t.Helper()
	r := &relayHost{t: t}
	r.listen(func(addr string) string { return addr })
	return r
}

// listen serves until the test ends; place says where callers find addr.
func (r *relayHost) listen(place func(addr string) string) {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = l.Addr().String()
	_, port, err := net.SplitHostPort(place(r.addr))
	if err != nil {
		r.t.Fatal(err)
	}
	r.domain = "localhost:" + port
	r.serve(l)
	r.t.Cleanup(r.kill)
}

func (r *relayHost) serve(l net.Listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = server.New(server.Config{Domain: r.domain, Now: func() time.Time { return time.Now().Add(time.Duration(r.shift.Load())) }})
	var h http.Handler = r.current
	if r.front != nil {
		h = r.front(h)
	}
	r.serving = &http.Server{Handler: h} //nolint:gosec // on loopback, for the length of a test
	go func(s *http.Server) { _ = s.Serve(l) }(r.serving)
}

// kill ends the relay without a word to anybody.
func (r *relayHost) kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.serving.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.current.Drain(ctx)
}

// drain ends the relay as a deployment does.
func (r *relayHost) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current.Drain(context.Background())
	_ = r.serving.Close()
}

// again starts a relay where the last one was.
func (r *relayHost) again() {
	r.t.Helper()
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.serve(l)
}

// join lets a host's agent be reached through the relay.
func (r *relayHost) join(h *host) agents.Agent {
	r.t.Helper()
	s := h.Settings()
	s.RelayDomain = r.domain
	if err := h.SetSettings(s); err != nil {
		r.t.Fatal(err)
	}
	a, err := h.Agents.Resolve(h.agent().AgentID)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := h.EnableRelay(a, true); err != nil {
		r.t.Fatal(err)
	}
	await(r.t, "the agent is connected", func() bool { return h.relayState() == relay.Connected })
	return a
}

// use has a host find agents at the relay.
func (r *relayHost) use(h *host) {
	r.t.Helper()
	s := h.Settings()
	s.RelayDomain = r.domain
	if err := h.SetSettings(s); err != nil {
		r.t.Fatal(err)
	}
}

func (h *host) relayState() relay.State {
	for _, s := range h.RelayStatus() {
		return s.State
	}
	return relay.Disconnected
}

// await waits for what happens on other goroutines and sockets.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(2 * time.Minute)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("in vain: %s", what)
		}
	}
}

// invited pairs bob with alice's agent by an invite.
func (r *relayHost) invited(alice, bob *host, a agents.Agent) (pairing.Peer, string) {
	r.t.Helper()
	_, link, err := alice.Invite(r.t.Context(), a, pairing.DefaultInvite)
	if err != nil {
		r.t.Fatal(err)
	}
	r.use(bob)
	peer, err := bob.AcceptInvite(r.t.Context(), link, "")
	if err != nil || peer.Address != a.Address || peer.Name != a.Name {
		r.t.Fatalf("%+v %v", peer, err)
	}
	return peer, link
}

// TestThroughTheRelay is the main job for hosts that cannot see each other:
// invite, pair, run; through a relay's restart and its death.
func TestThroughTheRelay(t *testing.T) {
	t.Parallel()
	homes := [2]string{t.TempDir(), t.TempDir()}
	alice, bob := start(t, homes[0]), start(t, homes[1])
	r := startRelay(t, nil)
	a := r.join(alice)
	peer, link := r.invited(alice, bob, a)
	if _, err := bob.AcceptInvite(t.Context(), link, ""); err == nil || !strings.Contains(err.Error(), "already been redeemed") {
		t.Errorf("a second redemption: %v", err)
	}
	talk := func(when string) {
		t.Helper()
		if status, out, err := bob.ask(peer, "pumpernickel"); err != nil || status != http.StatusOK || !strings.Contains(out, `"content":"pumpernickel"`) || !strings.HasSuffix(out, "data: [DONE]\n\n") {
			t.Errorf("%s: %d %.300s, %v", when, status, out, err)
		}
	}
	talk("at first")
	r.kill()
	if _, _, err := bob.ask(peer, "x"); err == nil {
		t.Error("a run without a relay")
	}
	left := func() bool { return alice.relayState() != relay.Connected }
	await(t, "the host noticed", left)
	r.again()
	await(t, "the host is back", func() bool { return alice.relayState() == relay.Connected })
	talk("after the relay died")
	r.drain()
	await(t, "the host noticed", left)
	r.again()
	await(t, "the host is back", func() bool { return alice.relayState() == relay.Connected })
	talk("after the relay restarted")

	keys := alice.Keys.List()
	ledger, err := alice.Invites.List(a.ID)
	if err != nil || len(keys) != 1 || len(ledger) != 1 || ledger[0].AccessKeyID != keys[0].ID {
		t.Fatalf("%+v %+v %v", keys, ledger, err)
	}
	if err := alice.Invites.Revoke(t.Context(), a.ID, ledger[0].Nonce); err != nil {
		t.Fatal(err)
	}
	if status, out, err := bob.ask(peer, "x"); err != nil || status != http.StatusUnauthorized {
		t.Errorf("after the invite was revoked: %d %s %v", status, out, err)
	}
	alice.stop()
	bob.stop()
	r.kill()
	seen := r.wire.seen()
	for _, word := range []string{"pumpernickel", "osk-v1", "chat.completion", "Bearer", "messages"} {
		if bytes.Contains(seen, []byte(word)) {
			t.Errorf("the relay could read %q", word)
		}
	}
	if len(seen) < 10_000 {
		t.Errorf("only %d bytes were recorded", len(seen))
	}
	for _, home := range homes {
		nothingReadable(t, home, "pumpernickel", "osk-v1.")
		verifyLog(t, home)
	}
}

// slowProvider answers one token and then nothing until its caller goes away.
func slowProvider(t *testing.T, h *host) (asked *atomic.Int32, ended chan struct{}) {
	t.Helper()
	asked, ended = &atomic.Int32{}, make(chan struct{}, 64)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"slow","object":"model"}]}`)
	})
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, q *http.Request) {
		asked.Add(1)
		_, _ = io.Copy(io.Discard, q.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: {\"choices\":[{\"delta\":{\"content\":\"first\"}}]}\n\n")
		_ = http.NewResponseController(w).Flush()
		<-q.Context().Done()
		ended <- struct{}{}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux} //nolint:gosec // on loopback, for the length of a test
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	if err := h.UseProvider(t.Context(), settings.Provider{BaseURL: "http://" + l.Addr().String() + "/v1", Model: "slow"}, secret.Bytes{}); err != nil {
		t.Fatal(err)
	}
	return asked, ended
}

func (h *host) askSlowly(ctx context.Context, p pairing.Peer) (*http.Response, error) {
	return h.CallPeer(ctx, p, func(base *url.URL) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodPost, base.JoinPath("agents", p.Address.Lower(), "run").String(), strings.NewReader(`{"messages":[{"role":"user","content":"go"}]}`))
	})
}

// TestCancelThroughTheRelay: a caller that goes away ends the provider's work.
func TestCancelThroughTheRelay(t *testing.T) {
	t.Parallel()
	alice, bob := start(t, t.TempDir()), start(t, t.TempDir())
	r := startRelay(t, nil)
	peer, _ := r.invited(alice, bob, r.join(alice))
	asked, ended := slowProvider(t, alice)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resp, err := bob.askSlowly(ctx, peer)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 4096)
	for text := ""; !strings.Contains(text, "first"); {
		n, err := resp.Body.Read(buf)
		text += string(buf[:n])
		if err != nil {
			t.Fatalf("%s %v", text, err)
		}
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		t.Fatal("the provider goes on")
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
}

// TestTakenOver: the same identity on another machine takes the agent; the
// first one tells it and takes it back only when asked.
func TestTakenOver(t *testing.T) {
	t.Parallel()
	homes := [2]string{t.TempDir(), t.TempDir()}
	alice := start(t, homes[0])
	alice.stop()
	if err := os.CopyFS(homes[1], os.DirFS(homes[0])); err != nil {
		t.Fatal(err)
	}
	for _, home := range homes[1:] {
		if err := filepath.WalkDir(home, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				err = os.Chmod(path, 0o600)
			} else if err == nil && d.IsDir() {
				err = os.Chmod(path, 0o700)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	alice = start(t, homes[0])
	second := start(t, homes[1])
	r := startRelay(t, nil)
	a := r.join(alice)
	// The owner's other device gets access by the identity alone.
	r.use(second)
	peer, err := second.PairOwn(t.Context(), a.Address, "")
	if err != nil || peer.Name != a.Name {
		t.Fatalf("%+v %v", peer, err)
	}
	if status, out, err := second.ask(peer, "myself"); err != nil || status != http.StatusOK || !strings.Contains(out, "myself") {
		t.Errorf("%d %s %v", status, out, err)
	}
	if devices, err := alice.Invites.Devices(); err != nil || len(devices) != 1 {
		t.Errorf("%+v %v", devices, err)
	}
	r.join(second)
	await(t, "the first host is told", func() bool { return alice.relayState() == relay.ServedElsewhere })
	told := false
	for _, f := range alice.Status(t.Context()).Findings {
		told = told || f.ID == "relay" && strings.Contains(f.Next, "relay enable")
	}
	if !told {
		t.Error("doctor does not say so")
	}
	if err := alice.EnableRelay(a, true); err != nil {
		t.Fatal(err)
	}
	await(t, "it is taken back", func() bool {
		return alice.relayState() == relay.Connected && second.relayState() == relay.ServedElsewhere
	})
}

// TestRelayGate: what comes through the relay is nobody's friend, whatever it
// says of itself.
func TestRelayGate(t *testing.T) {
	t.Parallel()
	alice, bob := start(t, t.TempDir()), start(t, t.TempDir())
	r := startRelay(t, nil)
	a := r.join(alice)
	r.invited(alice, bob, a)
	token := mintFor(t, alice, a)
	ask := func(method, path, bearer, body string) (int, http.Header, string) {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+r.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = a.Address.Lower() + "." + r.domain
		for name, value := range map[string]string{"X-Osaurus-Relay-Origin": "0", "X-Forwarded-For": "127.0.0.1", "X-Osaurus-Secure-Channel": "1", "X-Osaurus-Agent-Id": "00000000-0000-0000-0000-000000000001", "Origin": "http://localhost:3000"} {
			req.Header.Set(name, value)
		}
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, resp.Header, string(raw)
	}
	run := `{"messages":[{"role":"user","content":"x"}],"model":"echo"}`
	for _, c := range []struct {
		method, path, bearer, body string
		status                     int
		text                       string
	}{
		{"GET", "/v1/health", "", "", 200, `"status":"healthy"`},
		{"GET", "/agents", "", "", 401, "Unrecognized token format"},
		{"GET", "/admin/status", "", "", 401, "Unrecognized token format"},
		{"GET", "/admin/status", token, "", 403, "agent_scope_denied"},
		{"GET", "/agents", token, "", 200, a.Address.Lower()},
		{"POST", "/agents/" + a.Address.Lower() + "/run", "", run, 401, "Unrecognized token format"},
		{"POST", "/agents/" + a.Address.Lower() + "/run", token, run, 426, "secure_channel_required"},
		{"POST", "/agents/" + a.Address.Lower() + "/dispatch", token, `{"prompt":"x"}`, 426, "secure_channel_required"},
		{"POST", "/pair-invite", "", `{"team_redeem":{}}`, 400, "Invalid invite payload"},
		{"GET", "/nowhere", token, "", 404, "Not Found"},
	} {
		status, header, text := ask(c.method, c.path, c.bearer, c.body)
		if status != c.status || !strings.Contains(text, c.text) {
			t.Errorf("%s %s: %d %.200s", c.method, c.path, status, text)
		}
		if c.path == "/v1/health" && strings.Contains(text, "version") {
			t.Errorf("the health of the host: %s", text)
		}
		if origin := header.Get("Access-Control-Allow-Origin"); origin != "*" && origin != "" {
			t.Errorf("%s: %q may read it", c.path, origin)
		}
	}
	if alice.Settings().Expose {
		t.Error("the host is exposed, so the test shows nothing")
	}
	for _, e := range alice.Server.Requests() {
		if !strings.HasPrefix(e.Transport, "relay") {
			t.Errorf("%s %s counts as %s", e.Method, e.Path, e.Transport)
		}
	}
}

func mintFor(t testing.TB, h *host, a agents.Agent) string {
	t.Helper()
	signer, err := h.Agents.Signer(t.Context(), a.Address)
	if err != nil {
		t.Fatal(err)
	}
	minted, err := h.Keys.Mint(t.Context(), signer, accesskey.MintRequest{Label: "test", Expiration: accesskey.Days90})
	if err != nil {
		t.Fatal(err)
	}
	defer minted.Token.Destroy()
	return string(minted.Token.Expose())
}

// TestHostileRelay forges what it can: statuses, lost sessions, answers, and
// the order of frames. It gets no key and has nothing done twice.
func TestHostileRelay(t *testing.T) {
	t.Parallel()
	alice, bob := start(t, t.TempDir()), start(t, t.TempDir())
	var attack atomic.Pointer[func(w http.ResponseWriter, q *http.Request, next http.Handler) bool]
	r := startRelay(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if f := attack.Load(); f != nil && q.URL.Path != "/tunnel/connect" && (*f)(w, q, next) {
				return
			}
			next.ServeHTTP(w, q)
		})
	})
	a := r.join(alice)
	peer, _ := r.invited(alice, bob, a)
	executed := func() int {
		n := 0
		for _, e := range alice.Server.Requests() {
			if strings.HasSuffix(e.Path, "/run") && e.Status == http.StatusOK {
				n++
			}
		}
		return n
	}
	lost := `{"error":{"code":"secure_session_unknown","message":"x","type":"secure_channel_error"}}`
	recorded := func(q *http.Request, next http.Handler) *answerRecorder {
		w := &answerRecorder{header: http.Header{}}
		next.ServeHTTP(w, q)
		return w
	}
	for name, f := range map[string]func(w http.ResponseWriter, q *http.Request, next http.Handler) bool{
		"a lost session, after the run": func(w http.ResponseWriter, q *http.Request, next http.Handler) bool {
			if q.URL.Path != "/secure/call" {
				return false
			}
			recorded(q, next)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, lost)
			return true
		},
		"a status, after the run": func(w http.ResponseWriter, q *http.Request, next http.Handler) bool {
			if q.URL.Path != "/secure/call" {
				return false
			}
			recorded(q, next)
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, `{"error":"agent_offline"}`)
			return true
		},
		"a cut answer": func(w http.ResponseWriter, q *http.Request, next http.Handler) bool {
			if q.URL.Path != "/secure/call" {
				return false
			}
			got := recorded(q, next)
			frames := strings.SplitAfter(got.body.String(), "\n\n")
			w.Header().Set("Content-Type", got.header.Get("Content-Type"))
			_, _ = io.WriteString(w, strings.Join(frames[:max(len(frames)-2, 0)], ""))
			return true
		},
		"another order": func(w http.ResponseWriter, q *http.Request, next http.Handler) bool {
			if q.URL.Path != "/secure/call" {
				return false
			}
			got := recorded(q, next)
			frames := strings.SplitAfter(got.body.String(), "\n\n")
			if len(frames) > 2 {
				frames[0], frames[1] = frames[1], frames[0]
			}
			w.Header().Set("Content-Type", got.header.Get("Content-Type"))
			_, _ = io.WriteString(w, strings.Join(frames, ""))
			return true
		},
		"the request twice": func(w http.ResponseWriter, q *http.Request, next http.Handler) bool {
			if q.URL.Path != "/secure/call" {
				return false
			}
			body, _ := io.ReadAll(q.Body)
			q.Body = io.NopCloser(bytes.NewReader(body))
			recorded(q, next)
			q.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, q)
			return true
		},
		"a changed byte": func(w http.ResponseWriter, q *http.Request, next http.Handler) bool {
			if q.URL.Path != "/secure/call" {
				return false
			}
			got := recorded(q, next)
			text := []byte(got.body.String())
			if i := bytes.Index(text, []byte(`"ct":"`)); i >= 0 {
				text[i+10] ^= 1
			}
			w.Header().Set("Content-Type", got.header.Get("Content-Type"))
			_, _ = w.Write(text)
			return true
		},
	} {
		before := executed()
		attack.Store(&f)
		status, out, err := bob.ask(peer, "once")
		attack.Store(nil)
		if err == nil && status == http.StatusOK {
			t.Errorf("%s: it was taken for an answer: %s", name, out)
		}
		if n := executed() - before; n > 1 {
			t.Errorf("%s: executed %d times", name, n)
		}
	}
	// It asks for a key itself, and answers for an agent that it is not.
	for name, f := range map[string]func(w http.ResponseWriter, q *http.Request, next http.Handler) bool{
		"no channel": func(w http.ResponseWriter, q *http.Request, _ http.Handler) bool {
			if q.URL.Path == "/secure/session" {
				http.NotFound(w, q)
				return true
			}
			return false
		},
		"a session of its own": func(w http.ResponseWriter, q *http.Request, _ http.Handler) bool {
			if q.URL.Path == "/secure/session" {
				_, _ = fmt.Fprintf(w, `{"v":1,"sid":"AAAAAAAAAAAAAAAAAAAAAA","encPub":"6V7p97PtcOIHc3_CIqiDmH5ufeWoy6ZlesF_DbrX3T8","expiresAt":%d,"signature":"0x%s1c"}`, time.Now().Add(time.Hour).Unix(), strings.Repeat("11", 64))
				return true
			}
			return false
		},
	} {
		_, link, err := alice.Invite(t.Context(), a, pairing.DefaultInvite)
		if err != nil {
			t.Fatal(err)
		}
		before := len(alice.Keys.List())
		fresh := start(t, t.TempDir())
		r.use(fresh)
		attack.Store(&f)
		_, err = fresh.AcceptInvite(t.Context(), link, "")
		attack.Store(nil)
		if err == nil || len(alice.Keys.List()) != before || peersOf(t, fresh.Engine) != 0 {
			t.Errorf("%s: %v, %d keys", name, err, len(alice.Keys.List())-before)
		}
		fresh.stop()
	}
}

// answerRecorder keeps an answer that is to be forged.
type answerRecorder struct {
	header http.Header
	body   strings.Builder
}

func (a *answerRecorder) Header() http.Header         { return a.header }
func (a *answerRecorder) WriteHeader(int)             {}
func (a *answerRecorder) Write(p []byte) (int, error) { return a.body.Write(p) }
func (a *answerRecorder) Flush()                      {}
