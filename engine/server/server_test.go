package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/atomicfile"
	"osaurus/engine/channel"
	"osaurus/engine/identity"
	"osaurus/engine/keystore"
	"osaurus/engine/pairing"
	"osaurus/engine/runner"
	"osaurus/engine/settings"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait")) // net/http lingers half a second
}

// host is a whole server on loopback with a real stack below it.
type host struct {
	*Server
	t       testing.TB
	base    string
	port    int
	keys    *accesskey.Keys
	agents  *agents.Registry
	agent   agents.Agent
	other   agents.Agent
	account *identity.Account
	invites *pairing.Invites
	client  *http.Client

	mu  sync.Mutex
	set settings.Server
}

func (h *host) settings() settings.Server {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.set
}

func (h *host) change(f func(*settings.Server)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.set)
}

func newHost(t testing.TB) *host {
	t.Helper()
	return newHostWith(t, runner.Endpoint{})
}

func newHostWith(t testing.TB, provider runner.Endpoint) *host {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	h := &host{t: t, set: settings.DefaultServer(), client: &http.Client{Transport: &http.Transport{}}}
	vault := keystore.NewMemory()
	var err error
	must := func(e error) {
		t.Helper()
		if e != nil {
			t.Fatal(e)
		}
	}
	h.account, err = identity.OpenAccount(identity.AccountConfig{Vault: vault, Dir: filepath.Join(dir, "identity")})
	must(err)
	created, err := h.account.Generate(ctx)
	must(err)
	created.Phrase.Destroy()
	h.keys, err = accesskey.Open(ctx, accesskey.Config{Vault: vault, TemporaryPath: filepath.Join(dir, "t.json")})
	must(err)
	h.agents, err = agents.Open(agents.Config{Dir: filepath.Join(dir, "agents"), Account: h.account, Keys: h.keys})
	must(err)
	for _, a := range []*agents.Agent{&h.agent, &h.other} {
		*a, err = h.agents.Create(ctx, agents.Draft{Name: "A", BonjourEnabled: true})
		must(err)
		*a, err = h.agents.Assign(ctx, a.ID)
		must(err)
	}
	must(h.agents.Unlock(ctx))
	h.keys.SetAudiences(h.account.Address(), h.agents.Addresses())
	endpoint := func(context.Context) (runner.Endpoint, error) { return provider, nil }
	run, err := runner.New(runner.Config{Endpoint: endpoint, Chats: runner.NewMemoryChats()})
	must(err)
	h.keys.OnRevoked(run.EndAccess)
	pair := pairing.NewHost(pairing.HostConfig{
		Agent: func(id string) (pairing.Agent, bool) {
			a, ok := h.agents.Get(id)
			return pairing.Agent{ID: a.ID, Name: a.Name, Address: a.Address, Available: a.BonjourEnabled}, ok
		},
		Signer: h.agents.Signer, Keys: h.keys, Queue: pairing.NewQueue(nil, nil),
	})
	h.invites = pairing.NewInvites(pairing.InvitesConfig{
		Agent: func(a address.Address) (pairing.InvitedAgent, bool) {
			agent, ok := h.agents.ByAddress(a)
			return invitedAgent(agent), ok
		},
		Signer: h.agents.Signer, Keys: h.keys, Devices: atomicfile.Plain(filepath.Join(dir, "devices.json")),
		Ledger: func(id string) atomicfile.Document { return atomicfile.Plain(filepath.Join(dir, id+".json")) },
		Master: func() (address.Address, bool) { return h.account.Address(), h.agents.Unlocked() },
		URL:    func(a address.Address) (string, error) { return "https://" + a.Lower() + ".relay.example", nil },
		Place:  func(a address.Address) string { return "https://" + a.Lower() + ".relay.example" },
	})
	h.Server = New(Config{
		Version: "test", Settings: h.settings, Keys: h.keys, Agents: h.agents, Channel: channel.NewServer(channel.Config{Signer: h.agents.Signer}), Pairing: pair, Invites: h.invites, Runner: run,
		Endpoint: endpoint, Memory: NewMemoryIngest(), Admin: func(context.Context) any { return map[string]string{"ok": "yes"} },
		Health: func(context.Context) map[string]any { return map[string]any{"keystore": "memory"} }, Log: func(string, ...slog.Attr) {},
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	h.port = l.Addr().(*net.TCPAddr).Port
	h.base = fmt.Sprintf("http://127.0.0.1:%d", h.port)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		h.client.CloseIdleConnections()
		run.Close()
		if err := <-done; err != nil {
			t.Error("Serve:", err)
		}
		h.agents.Lock()
	})
	return h
}

func (h *host) key(agent *agents.Agent) string {
	h.t.Helper()
	var signer identity.Signer
	if agent == nil {
		m, err := h.account.Unlock(h.t.Context(), "test")
		if err != nil {
			h.t.Fatal(err)
		}
		defer m.Destroy()
		signer = m
	} else {
		s, err := h.agents.Signer(h.t.Context(), agent.Address)
		if err != nil {
			h.t.Fatal(err)
		}
		signer = s
	}
	m, err := h.keys.Mint(h.t.Context(), signer, accesskey.MintRequest{Expiration: accesskey.Days30})
	if err != nil {
		h.t.Fatal(err)
	}
	return string(m.Token.Expose())
}

// call sends one request; headers come in pairs.
func (h *host) call(method, path, body string, headers ...string) (int, string, http.Header) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.base+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		} else {
			req.Header.Add(headers[i], headers[i+1])
		}
	}
	resp, err := h.client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Header
}

func (h *host) expect(name string, status int, body string, method, path, in string, headers ...string) {
	h.t.Helper()
	got, text, _ := h.call(method, path, in, headers...)
	if got != status || body != "" && text != body {
		h.t.Errorf("%s: %d %s, want %d %s", name, got, text, status, body)
	}
}

const untrusted = "X-Forwarded-For" // any proxy header takes the trust of loopback away

func TestTable(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	none := `{"error":{"message":"No access keys configured. Create one in Osaurus settings.","type":"authentication_error"}}`
	h.expect("no key was ever minted", 401, none, "GET", "/models", "", untrusted, "x")
	h.expect("health needs no key", 200, "", "GET", "/v1/health", "", untrusted, "x")
	master, mine := "Bearer "+h.key(nil), "Bearer "+h.key(&h.agent)
	format := `{"error":{"message":"Invalid access key: Unrecognized token format","type":"authentication_error"}}`
	scopeE2 := `{"error":{"code":"agent_scope_denied","message":"This access key is limited to its agent.","type":"permission_error"}}`
	scopeE3 := `{"error":"agent_scope_denied","message":"This access key is limited to its agent."}`
	need := `{"error":{"code":"secure_channel_required","message":"This peer requires end-to-end encryption for agent requests. Upgrade Osaurus to a version that supports the secure channel.","type":"upgrade_required"}}`
	relayed := []string{relayHeader, "1"}
	with := func(auth string) []string { return append(relayed, "Authorization", auth) }
	run := `{"model":"echo","messages":[{"role":"user","content":"hi"}]}`
	h.expect("banner", 200, "Osaurus is running.\n", "GET", "/", "")
	h.expect("no token", 401, format, "GET", "/agents", "", relayed...)
	h.expect("unknown path without a key", 401, format, "GET", "/nothing", "", relayed...)
	h.expect("unknown path", 404, "Not Found", "GET", "/nothing", "")
	h.expect("a slash too many", 404, "Not Found", "GET", "/agents/"+h.agent.ID+"/", "")
	h.expect("wrong method", 404, "Not Found", "PUT", "/agents", "")
	h.expect("HEAD", 204, "", "HEAD", "/agents", "", with(master)...)
	h.expect("HEAD without a key", 401, "", "HEAD", "/agents", "", relayed...)
	h.expect("models of an agent's key", 200, `{"data":[],"object":"list"}`, "GET", "/v1/models", "", with(mine)...)
	h.expect("inference of an agent's key", 403, `{"error":{"code":"peer_inference_disabled","message":"Inference for paired peers is turned off on this host.","type":"permission_error"}}`, "POST", "/v1/chat/completions", run, with(mine)...)
	h.expect("admin of an agent's key", 403, scopeE2, "GET", "/admin/status", "", with(mine)...)
	h.expect("admin from elsewhere", 404, "Not Found", "GET", "/admin/status", "", with(master)...)
	h.expect("admin here", 200, `{"ok":"yes"}`, "GET", "/admin/status", "")
	h.expect("other agent's header", 403, scopeE2, "GET", "/agents", "", append(with(mine), "X-Osaurus-Agent-Id", " "+strings.ToLower(h.other.ID))...)
	h.expect("built-in's header", 200, "", "GET", "/agents", "", append(with(mine), "X-Osaurus-Agent-Id", agents.DefaultID)...)
	h.expect("run in clear", 426, need, "POST", "/agents/"+h.agent.ID+"/run", run, with(mine)...)
	h.expect("dispatch in clear", 426, need, "POST", "/v1/agents/x/dispatch", "", with(master)...)
	h.expect("bad body", 400, "Invalid request format", "POST", "/agents/x/run", "[]")
	h.expect("bad id", 400, `{"error":"invalid_agent_id","message":"The agent id is neither a UUID nor an address."}`, "POST", "/agents/x/run", run)
	h.expect("unknown agent", 404, `{"error":"agent_not_found","message":"No such agent on this host."}`, "POST", "/agents/"+strings.Repeat("0", 8)+h.agent.ID[8:]+"/run", run)
	h.expect("other agent", 403, scopeE3, "POST", "/agents/"+h.other.ID+"/run", run, "Authorization", mine)
	h.expect("other agent's item", 403, scopeE3, "GET", "/agents/"+h.other.Address.String(), "", with(mine)...)
	h.expect("built-in's item", 404, "", "GET", "/agents/"+agents.DefaultID, "")
	h.expect("built-in's run here", 200, "", "POST", "/agents/"+agents.DefaultID+"/run", run)
	h.expect("built-in's run from a local proxy", 403, `{"error":"built_in_agent_not_exposable","message":"Built-in agents are not reachable from other devices."}`, "POST", "/agents/"+agents.DefaultID+"/run", run, untrusted, "x", "Authorization", master)
	h.expect("n is 2", 400, `{"error":{"message":"n must be 1: this host returns one choice","type":"invalid_request_error"}}`, "POST", "/chat/completions", `{"n":2,"messages":[{"role":"user","content":"x"}]}`)
	h.expect("no provider", 503, "", "POST", "/chat/completions", `{"messages":[{"role":"user","content":"x"}]}`)
	h.expect("echo", 200, "", "POST", "/chat/completions", run)
	h.expect("blank prompt", 400, `{"error":"invalid_request","message":"The prompt is empty."}`, "POST", "/agents/"+h.agent.ID+"/dispatch", `{"prompt":" "}`)
	h.expect("unknown task", 404, `{"error":"task_not_found","message":"No such task."}`, "GET", "/tasks/"+h.agent.ID, "")
	h.expect("unknown task of an agent's key", 403, scopeE3, "GET", "/tasks/"+h.agent.ID, "", with(mine)...)
	h.expect("ingest", 200, `{"status":"ok","turns_ingested":1}`, "POST", "/memory/ingest", `{"agent_id":"`+h.agent.ID+`","conversation_id":"c","turns":[{"user":"a","assistant":"b"}]}`, with(mine)...)
	h.expect("ingest for another", 403, scopeE3, "POST", "/memory/ingest", `{"agent_id":"`+h.other.ID+`","conversation_id":"c","turns":[]}`, with(mine)...)
	h.expect("invite", 400, `{"error":"Invalid invite payload"}`, "POST", "/pair-invite", "{}")
	h.expect("nested too deeply", 400, "Invalid request format", "POST", "/memory/ingest", strings.Repeat("[", 257)+strings.Repeat("]", 257))
	_, list, _ := h.call("GET", "/agents", "", with(mine)...)
	if !strings.Contains(list, h.agent.Address.Lower()) || strings.Contains(list, h.other.Address.Lower()) {
		t.Error("an agent's key sees", list)
	}
	_, long, _ := h.call("GET", "/health", "")
	_, short, _ := h.call("GET", "/health", "", append(relayed, "Authorization", "Bearer nonsense")...)
	if !strings.Contains(long, "keystore") || strings.Contains(short, "keystore") || !strings.Contains(short, `"status":"healthy"`) {
		t.Error("health:", long, short)
	}
}

// TestTrust is decisions C3: what a web page, a proxy or DNS rebinding can do.
func TestTrust(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	local := fmt.Sprintf("localhost:%d", h.port)
	for name, c := range map[string]struct {
		headers []string
		trusted bool
	}{
		"plain":                  {nil, true},
		"localhost":              {[]string{"Host", local}, true},
		"IPv6 name":              {[]string{"Host", fmt.Sprintf("[::1]:%d", h.port)}, true},
		"rebound name":           {[]string{"Host", fmt.Sprintf("evil.example:%d", h.port)}, false},
		"other port":             {[]string{"Host", "localhost:1"}, false},
		"no port":                {[]string{"Host", "localhost"}, false},
		"local origin":           {[]string{"Origin", "http://localhost:3000"}, true},
		"loopback origin":        {[]string{"Origin", "http://127.9.9.9"}, true},
		"origin with a query":    {[]string{"Origin", "http://localhost?x"}, false},
		"origin without a port":  {[]string{"Origin", "http://localhost:"}, false},
		"bracketed name":         {[]string{"Host", fmt.Sprintf("[127.0.0.1]:%d", h.port)}, false},
		"port with a sign":       {[]string{"Host", fmt.Sprintf("localhost:+%d", h.port)}, false},
		"foreign origin":         {[]string{"Origin", "https://evil.example"}, false},
		"origin like ours":       {[]string{"Origin", "http://localhost.evil.example"}, false},
		"null origin":            {[]string{"Origin", "null"}, false},
		"two origins":            {[]string{"Origin", "http://localhost", "Origin", "https://evil.example"}, false},
		"cross-site":             {[]string{"Sec-Fetch-Site", "cross-site"}, false},
		"same-site":              {[]string{"Sec-Fetch-Site", "same-origin"}, true},
		"Forwarded":              {[]string{"Forwarded", "for=1.2.3.4"}, false},
		"Via":                    {[]string{"Via", "1.1 x"}, false},
		"X-Real-IP":              {[]string{"X-Real-IP", "1.2.3.4"}, false},
		"X-Forwarded-Proto":      {[]string{"X-Forwarded-Proto", "http"}, false},
		"relay marker":           {[]string{relayHeader, "1"}, false},
		"empty bearer is nobody": {[]string{"Authorization", "Bearer x"}, true},
	} {
		status, body, _ := h.call("GET", "/agents", "", c.headers...)
		if (status == 200) != c.trusted {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	h.change(func(s *settings.Server) { s.Expose = true })
	h.expect("exposed", 401, "", "GET", "/agents", "")
	h.change(func(s *settings.Server) { s.Expose, s.LoopbackTrust = false, false })
	h.expect("trust off", 401, "", "GET", "/agents", "")
	h.change(func(s *settings.Server) { s.LoopbackTrust, s.CORS = true, []string{"*"} })
	h.expect("a star never makes an origin local", 401, "", "GET", "/agents", "", "Origin", "https://evil.example")
	status, _, hd := h.call("OPTIONS", "/v1/models", "", "Origin", "https://x.example", "Access-Control-Request-Headers", "authorization, x bad\theader")
	if status != 204 || hd.Get("Access-Control-Allow-Origin") != "*" || hd.Get("Access-Control-Max-Age") != "600" || hd.Get("Access-Control-Allow-Headers") != "authorization, xbadheader" || hd.Get("Access-Control-Allow-Credentials") != "" {
		t.Error("preflight", status, hd)
	}
	h.change(func(s *settings.Server) { s.CORS = nil })
	if _, _, hd := h.call("OPTIONS", "/v1/models", "", "Origin", "https://x.example"); hd.Get("Access-Control-Allow-Origin") != "" {
		t.Error("a preflight of nobody on the list was answered", hd)
	}
}

func TestBodyLimits(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	big := strings.Repeat("x", MaxPairingBody)
	large := func(seen, limit int) string {
		return fmt.Sprintf(`{"error":{"message":"Request body too large (%d > %d bytes)","type":"payload_too_large"}}`, seen, limit)
	}
	h.expect("at the limit", 400, `{"error":"Invalid pairing request"}`, "POST", "/pair", big)
	h.expect("over the limit", 413, large(MaxPairingBody+1, MaxPairingBody), "POST", "/v1/pair", big+"x")
	chunked := func(path string, n int) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), "POST", h.base+path, io.LimitReader(endless{}, int64(n)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(untrusted, "x")
		resp, err := h.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(raw)
	}
	if status, body := chunked("/pair", MaxPairingBody); status != 400 {
		t.Error("chunked at the limit:", status, body)
	}
	if status, body := chunked("/pair", MaxPairingBody+1); status != 413 {
		t.Error("chunked over the limit:", status, body)
	}
	// Refused before the key: 413 when over, else the refusal.
	if status, _ := chunked("/agents", MaxBody+1); status != 413 {
		t.Error("a refused caller's body over the limit:", status)
	}
	if status, _ := chunked("/agents", 1<<20); status != 401 {
		t.Error("a refused caller's body within the limit:", status)
	}
	if used := h.budget.used.Load(); used != 0 {
		t.Errorf("%d bytes are still charged", used)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// raw sends bytes as they are and returns the status lines that came back.
func (h *host) raw(request string) []string {
	h.t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.port))
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	if _, err := io.WriteString(c, request); err != nil {
		h.t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	out, _ := io.ReadAll(c)
	var lines []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "HTTP/1.1 ") {
			lines = append(lines, strings.TrimSpace(line[len("HTTP/1.1 "):]))
		}
	}
	return lines
}

func TestRawClients(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	at := fmt.Sprintf("Host: 127.0.0.1:%d\r\n", h.port)
	for name, c := range map[string]struct{ in, want string }{
		"garbage":            {"\x00\x01\x02\r\n\r\n", "400"},
		"bad Content-Length": {"POST /pair HTTP/1.1\r\n" + at + "Content-Length: x\r\n\r\n", "400"},
		"negative length":    {"POST /pair HTTP/1.1\r\n" + at + "Content-Length: -1\r\n\r\n", "400"},
		"two lengths":        {"POST /pair HTTP/1.1\r\n" + at + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"},
		"both lengths":       {"GET /health HTTP/1.1\r\n" + at + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		"both, other order":  {"GET /health HTTP/1.1\r\n" + at + "transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n", "400"},
		"chunked alone":      {"GET /health HTTP/1.1\r\n" + at + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n", "200"},
		"OPTIONS of all":     {"OPTIONS * HTTP/1.1\r\n" + at + "Connection: close\r\n\r\n", "204"},
		"absolute form":      {"GET http://127.0.0.1/health HTTP/1.1\r\n" + at + "\r\n", "400"},
		"no host":            {"GET / HTTP/1.1\r\n\r\n", "400"},
		"201 fields":         {"GET / HTTP/1.1\r\n" + at + strings.Repeat("X: y\r\n", 200) + "\r\n", "431"},
		"200 fields":         {"GET / HTTP/1.1\r\n" + at + strings.Repeat("X: y\r\n", 198) + "Connection: close\r\n\r\n", "200"},
		"huge field":         {"GET / HTTP/1.1\r\n" + at + "X: " + strings.Repeat("y", MaxHeaderBytes+8192) + "\r\n\r\n", "431"},
		"lies about length":  {"POST /pair HTTP/1.1\r\n" + at + "Content-Length: 99\r\n\r\nshort", "400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := h.raw(c.in)
			if len(got) == 0 || !strings.HasPrefix(got[0], c.want) {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
	if got := h.raw("GET / HTTP/1.1\r\n" + at + "\r\nGET /health HTTP/1.1\r\n" + at + "Connection: close\r\n\r\n"); len(got) != 2 {
		t.Error("pipelined requests:", got)
	}
}

func TestLimiters(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for i := range pairingLimit {
		if status, body, _ := h.call("GET", "/pair/challenge", ""); status != 200 {
			t.Fatalf("challenge %d: %d %s", i+1, status, body)
		}
	}
	status, body, hd := h.call("GET", "/pair/challenge", "")
	if status != 429 || body != `{"error":"Too many pairing attempts. Try again shortly."}` || hd.Get("Retry-After") == "" {
		t.Errorf("%d %s, Retry-After %q", status, body, hd.Get("Retry-After"))
	}
	h.expect("handshakes have their own bucket", 400, `{"error":"Invalid handshake request"}`, "POST", "/secure/session", "x")
	good := "Bearer " + h.key(nil)
	h.expect("a good key", 200, "", "GET", "/agents", "", relayHeader, "1", "Authorization", good)
	for range failureLimit {
		h.expect("a bad key", 401, "", "GET", "/agents", "", relayHeader, "1", "Authorization", "Bearer x")
	}
	status, body, hd = h.call("GET", "/agents", "", relayHeader, "1", "Authorization", "Bearer x")
	if status != 429 || body != `{"error":{"message":"Too many failed attempts. Try again shortly.","type":"authentication_error"}}` || hd.Get("Retry-After") == "" {
		t.Errorf("after the limit: %d %s", status, body)
	}
	h.expect("a key that was verified before", 200, "", "GET", "/agents", "", relayHeader, "1", "Authorization", good)
	h.expect("a fresh key while blocked", 429, "", "GET", "/agents", "", relayHeader, "1", "Authorization", "Bearer "+h.key(&h.agent))
	h.expect("trusted loopback meanwhile", 200, "", "GET", "/agents", "")
}

// through returns a client of the channel to one of the host's agents.
func (h *host) through(a address.Address) *http.Client {
	base, err := url.Parse(h.base)
	if err != nil {
		h.t.Fatal(err)
	}
	tr := channel.NewTransport(channel.TransportConfig{Base: h.client.Transport, Peer: base, Pinned: a})
	h.t.Cleanup(tr.Close)
	return &http.Client{Transport: tr}
}

func TestThroughTheChannel(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	mine, client := h.key(&h.agent), h.through(h.agent.Address)
	post := func(path, body string, headers ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", h.base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+mine)
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(raw)
	}
	run := `{"model":"echo","messages":[{"role":"user","content":"one two"}]}`
	resp, body := post("/agents/"+h.agent.Address.Lower()+"/run", run)
	var order []string
	for line := range strings.Lines(body) {
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !ok {
			continue
		}
		var c struct {
			ID, Object string
			Choices    []struct {
				Delta  struct{ Role, Content string }
				Finish *string `json:"finish_reason"`
			}
		}
		if data != "[DONE]" && (json.Unmarshal([]byte(data), &c) != nil || c.Object != "chat.completion.chunk" || !strings.HasPrefix(c.ID, "chatcmpl-")) {
			t.Fatalf("event %s", data)
		}
		switch {
		case data == "[DONE]":
			order = append(order, "done")
		case c.Choices[0].Delta.Role != "":
			order = append(order, "role")
		case c.Choices[0].Finish != nil:
			order = append(order, "finish")
		default:
			order = append(order, c.Choices[0].Delta.Content)
		}
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || strings.Join(order, "|") != "role|one |two|finish|done" {
		t.Fatalf("%d %s %q", resp.StatusCode, resp.Header, order)
	}
	if resp, body := post("/agents/"+h.other.ID+"/run", run); resp.StatusCode != 403 || !strings.Contains(body, "agent_scope_denied") {
		t.Error("another agent:", resp.StatusCode, body)
	}
	if resp, body := post("/agents/"+agents.DefaultID+"/run", run); resp.StatusCode != 403 || !strings.Contains(body, "built_in_agent_not_exposable") {
		t.Error("the built-in agent:", resp.StatusCode, body)
	}
	if resp, _ := post("/agents/"+h.agent.ID+"/run", run, "Idempotency-Key", "k"); resp.StatusCode != 200 {
		t.Error("first use of an idempotency key:", resp.StatusCode)
	}
	if resp, body := post("/agents/"+h.agent.ID+"/run", run, "Idempotency-Key", "k"); resp.StatusCode != 409 || !strings.Contains(body, "duplicate_request") {
		t.Error("second use of an idempotency key:", resp.StatusCode, body)
	}
	// It is one key for all that does something; what was refused can be sent again.
	ingest := `{"agent_id":"` + h.agent.ID + `","conversation_id":"c","turns":[]}`
	if resp, body := post("/memory/ingest", ingest, "Idempotency-Key", "k"); resp.StatusCode != 409 {
		t.Error("the key of a run for another request:", resp.StatusCode, body)
	}
	for i, want := range []int{400, 200, 409} {
		in := ingest
		if i == 0 {
			in = "{}"
		}
		if resp, body := post("/memory/ingest", in, "Idempotency-Key", "l"); resp.StatusCode != want {
			t.Errorf("ingest %d: %d %s", i, resp.StatusCode, body)
		}
	}
	if resp, body := post("/pair", strings.Repeat("x", MaxPairingBody+1)); resp.StatusCode != 413 {
		t.Error("an inner body over the pairing limit:", resp.StatusCode, body)
	}
	for _, m := range h.keys.List() {
		if err := h.keys.Revoke(t.Context(), m.ID); err != nil {
			t.Fatal(err)
		}
	}
	if resp, body := post("/agents/"+h.agent.ID+"/run", run); resp.StatusCode != 401 || !strings.Contains(body, "Access key has been revoked") {
		t.Error("after revocation:", resp.StatusCode, body)
	}
}

func TestRelayOrigin(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	serve := func(path string, headers ...string) *recorder {
		req, err := http.NewRequestWithContext(WithOrigin(t.Context(), Relay), "GET", h.base+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.RequestURI, req.RemoteAddr = path, "127.0.0.1:1"
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		rec := &recorder{header: http.Header{}}
		h.ServeHTTP(rec, req)
		return rec
	}
	if r := serve("/agents"); r.status != 401 {
		t.Error("the tunnel is trusted like loopback:", r.status)
	}
	for i := range pairingLimit + 1 {
		want := 200
		if i == pairingLimit {
			want = 429
		}
		if r := serve("/pair/challenge", "X-Forwarded-For", "203.0.113.1, 10.0.0.1"); r.status != want {
			t.Fatalf("challenge %d: %d", i+1, r.status)
		}
	}
	if r := serve("/pair/challenge", "X-Forwarded-For", "203.0.113.2"); r.status != 200 {
		t.Error("another caller of the tunnel:", r.status)
	}
	h.expect("the same machine meanwhile", 200, "", "GET", "/pair/challenge", "")
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(s int)   { r.status = s }
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = 200
	}
	return r.body.Write(p)
}

func TestConnectionCap(t *testing.T) {
	t.Parallel()
	c := &connections{most: 40, bySource: map[netipAddr]int{}}
	remote, other, local := mustAddr("192.0.2.1"), mustAddr("192.0.2.2"), mustAddr("127.0.0.1")
	admitted := 0
	for range 20 {
		if c.admit(remote) {
			admitted++
		}
	}
	if admitted != 40-reservedForLoopback || c.admit(other) {
		t.Fatalf("%d remote connections took loopback's slots", admitted)
	}
	for i := range reservedForLoopback {
		if !c.admit(local) {
			t.Fatalf("loopback was refused at %d", i)
		}
	}
	if c.admit(local) {
		t.Fatal("over the cap")
	}
	c.leave(remote)
	if !c.admit(remote) {
		t.Fatal("a freed slot stayed taken")
	}
	wide := &connections{most: 1000, bySource: map[netipAddr]int{}}
	for range maxSourceConns {
		if !wide.admit(remote) {
			t.Fatal("refused within a source's share")
		}
	}
	if wide.admit(remote) || !wide.admit(other) {
		t.Fatal("a source's share does not hold")
	}
}

func TestOverTheCap(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for range h.settings().MaxConnections {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.port))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 503 || !strings.Contains(string(raw), `"type":"server_overloaded"`) {
		t.Fatalf("%d %s", resp.StatusCode, raw)
	}
}
