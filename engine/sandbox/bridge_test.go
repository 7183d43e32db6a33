package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/sandbox/wire"
	"osaurus/engine/secret"
)

const (
	tokenLength = 43 // characters

	agentA = "11111111-1111-1111-1111-11111111111A"
	agentB = "22222222-2222-2222-2222-22222222222B"
	uidA   = 2000
	uidB   = 2001
	boxA   = "osr-11111111-00000001"
	boxB   = "osr-22222222-00000002"
)

// world is a bridge with recording ports, and sandboxes on real sockets.
type world struct {
	t      *testing.T
	dir    string
	bridge *Bridge
	tokens *Tokens
	vault  *keystore.Memory
	secret *Secrets
	now    func() time.Time

	mu        sync.Mutex
	audit     []string
	jobs      []Job
	events    []string
	facts     map[string][]Fact
	tags      []string
	chats     []string
	logs      *LogRing
	mayCreate bool
	running   bool
	recipes   map[string]Recipe
	chat      func(ctx context.Context) (string, error)
	memoryErr error
	installs  int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "osr") // short: a socket's path has at most 104 bytes
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, vault: keystore.NewMemory(), tokens: NewTokens(nil), facts: map[string][]Fact{}, logs: NewLogRing(nil), mayCreate: true, running: true, recipes: map[string]Recipe{}, now: time.Now}
	w.secret = NewSecrets(w.vault)
	w.chat = func(context.Context) (string, error) { return "hello", nil }
	config, err := OpenConfigFiles(filepath.Join(dir, "Tools"))
	if err != nil {
		t.Fatal(err)
	}
	plugins, err := OpenPlugins(PluginsConfig{
		Dir: filepath.Join(dir, "recipes"), MayCreate: func(string) bool { return w.mayCreate }, Secrets: w.secret,
		Running: func(string) bool { return w.running }, Install: func(context.Context, Identity, Recipe) error { w.installs++; return nil },
		Now: func() time.Time { return w.now() },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.bridge = NewBridge(Config{
		Tokens: w.tokens, Secrets: w.secret, Settings: config, Inference: w, Dispatcher: w, Memory: memoryOf{w}, Events: w, Plugins: plugins, Logs: w.logs,
		Now: func() time.Time { return w.now() },
		Log: func(event string, attrs ...slog.Attr) {
			w.mu.Lock()
			defer w.mu.Unlock()
			line := event
			for _, a := range attrs {
				line += " " + a.Key + "=" + a.Value.String()
			}
			w.audit = append(w.audit, line)
		},
	})
	t.Cleanup(func() { _ = errors.Join(config.Close(), plugins.Close(), os.RemoveAll(dir)) })
	return w
}

func (w *world) Chat(ctx context.Context, agentID, model string, messages []Message) (string, error) {
	w.mu.Lock()
	w.chats = append(w.chats, fmt.Sprint(agentID, " ", model, " ", messages))
	w.mu.Unlock()
	return w.chat(ctx)
}

func (w *world) Dispatch(_ context.Context, job Job) (string, error) {
	w.jobs = append(w.jobs, job)
	return "0B8C6A0E-0000-4000-8000-000000000000", nil
}

func (w *world) Publish(_ context.Context, name, source string, payload json.RawMessage) error {
	w.events = append(w.events, name+" "+source+" "+string(payload))
	return nil
}

type memoryOf struct{ w *world }

func (m memoryOf) Query(_ context.Context, agentID, _ string, _ int) ([]Fact, error) {
	return m.w.facts[agentID], m.w.memoryErr
}

func (m memoryOf) Store(_ context.Context, agentID, content string, salience float64, tag string) error {
	m.w.facts[agentID] = append(m.w.facts[agentID], Fact{Content: content, Salience: salience, Created: time.Unix(0, 0)})
	m.w.tags = append(m.w.tags, tag)
	return m.w.memoryErr
}

// guest is a sandbox on a Unix socket.
type guest struct {
	w    *world
	path string
	box  string
}

// serve opens a sandbox; agentID "" is shared mode.
func (w *world) serve(box, agentID string) guest {
	w.t.Helper()
	path := filepath.Join(w.dir, box[4:8]+".sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	ch := &Channel{Sandbox: box, AgentID: agentID, Nonce: strings.Repeat("ab", 16), Listener: l, Bridge: w.bridge}
	go func() { defer close(done); _ = ch.Serve(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done })
	return guest{w, path, box}
}

// register mints a token and returns it, as the guest's file would hold it.
func (w *world) register(agentID string, uid uint32, box string) string {
	w.t.Helper()
	var text string
	_, err := w.tokens.Register(Identity{agentID, LinuxName(agentID), uid, box}, func(s secret.Bytes) error { text = string(s.Expose()); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

// answer is a response with its whole body.
type answer struct {
	status int
	body   string
	header http.Header
	last   bool // Connection: close
}

// request is what a process of the guest sends.
type request struct {
	method, path, token, body string
	uid                       uint32
	header                    map[string]string
	chunked                   io.Reader
}

func (g guest) dial(uid uint32) net.Conn {
	g.w.t.Helper()
	c, err := net.Dial("unix", g.path)
	if err != nil {
		g.w.t.Fatal(err)
	}
	preface := wire.Preface{Kind: wire.Bridge, Sandbox: g.box, UID: uid, PID: 7}
	if _, err := io.WriteString(c, preface.String()); err != nil {
		g.w.t.Fatal(err)
	}
	return c
}

func (g guest) do(q request) answer {
	g.w.t.Helper()
	c := g.dial(q.uid)
	defer c.Close()
	var body io.Reader = strings.NewReader(q.body)
	if q.chunked != nil {
		body = q.chunked
	}
	r, err := http.NewRequest(q.method, "http://localhost"+q.path, body)
	if err != nil {
		g.w.t.Fatal(err)
	}
	r.URL.Opaque = q.path // as it is, nothing decoded or cleaned
	if q.token != "" {
		r.Header.Set("Authorization", "Bearer "+q.token)
	}
	for k, v := range q.header {
		r.Header.Set(k, v)
	}
	sent := make(chan error, 1)
	go func() { sent <- r.Write(c) }() // a refusal may come before the end
	resp, err := http.ReadResponse(bufio.NewReader(c), r)
	if err != nil {
		g.w.t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		g.w.t.Fatal(err)
	}
	_ = c.Close()
	<-sent
	if got := resp.Header.Get("Content-Type"); got != "application/json" || resp.ContentLength != int64(len(raw)) {
		g.w.t.Errorf("%s %s: content type %q, length %d of %d", q.method, q.path, got, resp.ContentLength, len(raw))
	}
	return answer{resp.StatusCode, string(raw), resp.Header, resp.Close}
}

const refused401 = `{"error":"Bridge token missing or unrecognised"}`

// TestRoutes goes through every row of section 4.
func TestRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	token := w.register(agentA, uidA, boxA)
	ctx := t.Context()
	plugin := map[string]string{"X-Osaurus-Plugin": "weather"}
	if err := errors.Join(
		w.secret.Set(ctx, agentA, "", "OWN", secret.New([]byte("mine"))),
		w.secret.Set(ctx, agentA, "", "BOTH", secret.New([]byte("agent's"))),
		w.secret.Set(ctx, agentA, "weather", "BOTH", secret.New([]byte(`plug"in/`))),
		w.secret.Set(ctx, agentB, "weather", "OTHER", secret.New([]byte("theirs"))),
	); err != nil {
		t.Fatal(err)
	}
	bad := func(text string) string { return `{"error":` + strconv.Quote(text) + `}` }
	for _, c := range []struct {
		name, method, path, body string
		header                   map[string]string
		status                   int
		want                     string
	}{
		{"secret of the agent", "GET", "/api/secrets/OWN", "", plugin, 200, `{"value":"mine"}`},
		{"secret of the plugin first", "GET", "/api/secrets/BOTH", "", plugin, 200, `{"value":"plug\"in/"}`},
		{"secret of the agent when the plugin has none", "GET", "/api/secrets/BOTH", "", map[string]string{"X-Osaurus-Plugin": "other"}, 200, `{"value":"agent's"}`},
		{"secret of another agent", "GET", "/api/secrets/OTHER", "", plugin, 404, bad("Secret not found")},
		{"secret name is not decoded", "GET", "/api/secrets/O%57N", "", plugin, 404, bad("Secret not found")},
		{"secret without a plugin", "GET", "/api/secrets/OWN", "", nil, 400, bad("X-Osaurus-Plugin header required")},
		{"secret without a name", "GET", "/api/secrets", "", plugin, 400, bad("GET /api/secrets/{name} expected")},
		{"secret, other method", "POST", "/api/secrets/OWN", "", plugin, 400, bad("GET /api/secrets/{name} expected")},
		{"plugin that climbs", "GET", "/api/secrets/OWN", "", map[string]string{"X-Osaurus-Plugin": "a..b"}, 400, bad("Invalid X-Osaurus-Plugin header")},
		{"plugin that is a path", "GET", "/api/config/k", "", map[string]string{"X-Osaurus-Plugin": "../x"}, 400, bad("Invalid X-Osaurus-Plugin header")},

		{"no setting", "GET", "/api/config/unit", "", plugin, 404, bad("Config key not found")},
		{"set", "POST", "/api/config/unit", `{"value":"°C </b>"}`, plugin, 200, `{}`},
		{"get", "GET", "/api/config/unit?x=1", "", plugin, 200, `{"value":"°C </b>"}`},
		{"set of another plugin", "GET", "/api/config/unit", "", map[string]string{"X-Osaurus-Plugin": "other"}, 404, bad("Config key not found")},
		{"no key", "GET", "/api/config/", "", plugin, 400, bad("Plugin and key required")},
		{"no plugin", "GET", "/api/config/unit", "", nil, 400, bad("Plugin and key required")},
		{"value of another type", "POST", "/api/config/unit", `{"value":1}`, plugin, 400, `{"error":"Body must contain {\"value\": \"...\"}"}`},
		{"value twice", "POST", "/api/config/unit", `{"value":"a","value":"b"}`, plugin, 400, `{"error":"Body must contain {\"value\": \"...\"}"}`},
		{"config, other method", "DELETE", "/api/config/unit", "", plugin, 405, bad("Method not allowed")},

		{"inference", "POST", "/api/inference/chat", `{"messages":[{"role":"user","content":"hi"},{"role":"user"},5]}`, nil, 200, `{"content":"hello"}`},
		{"inference, other method", "GET", "/api/inference/chat", "", nil, 400, bad("POST /api/inference/chat expected")},
		{"inference, other action", "POST", "/api/inference/embed", "", nil, 400, bad("POST /api/inference/chat expected")},
		{"inference, no JSON", "POST", "/api/inference/chat", `{`, nil, 400, bad("Invalid JSON body")},
		{"inference, too deep", "POST", "/api/inference/chat", `{"messages":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`, nil, 400, bad("Invalid JSON body")},
		{"inference, no messages", "POST", "/api/inference/chat", `{}`, nil, 400, bad("Messages array required")},
		{"inference, only broken messages", "POST", "/api/inference/chat", `{"messages":[{"role":1}]}`, nil, 400, bad("Messages array required")},

		{"dispatch", "POST", "/api/agent/dispatch", `{"task":"look","agent_id":"` + strings.ToLower(agentA) + `","external_session_key":"s"}`, nil, 200, `{"task_id":"0B8C6A0E-0000-4000-8000-000000000000"}`},
		{"dispatch, empty id", "POST", "/api/agent/dispatch", `{"task":"look","agent_id":""}`, nil, 200, `{"task_id":"0B8C6A0E-0000-4000-8000-000000000000"}`},
		{"dispatch as another", "POST", "/api/agent/dispatch", `{"task":" ","agent_id":"` + agentB + `"}`, nil, 403, bad("agent_id in body does not match token-bound identity")},
		{"dispatch of nothing", "POST", "/api/agent/dispatch", `{"task":" \n"}`, nil, 400, bad("task is empty")},
		{"dispatch without task", "POST", "/api/agent/dispatch", `{}`, nil, 400, bad("Body must contain task")},
		{"dispatch, other method", "GET", "/api/agent/dispatch", "", nil, 405, bad("Method not allowed")},

		{"store", "POST", "/api/agent/memory/store", `{"content":"walrus"}`, nil, 200, `{}`},
		{"query", "POST", "/api/agent/memory/query", `{"query":"walrus"}`, nil, 200, `{"results":[{"content":"walrus","created_at":0,"salience":0.7}]}`},
		{"store nothing", "POST", "/api/agent/memory/store", `{}`, nil, 400, bad("Body must contain content")},
		{"query nothing", "POST", "/api/agent/memory/query", `[]`, nil, 400, bad("Body must contain query")},
		{"memory, other method", "PUT", "/api/agent/memory/query", `{"query":"x"}`, nil, 405, bad("Method not allowed")},
		{"no subcommand", "POST", "/api/agent", "", nil, 400, bad("Subcommand required: dispatch, memory")},
		{"unknown subcommand", "POST", "/api/agent/x", "", nil, 404, bad("Unknown agent subcommand: x")},
		{"no action", "POST", "/api/agent/memory", "", nil, 400, bad("Action required: query or store")},
		{"unknown action", "POST", "/api/agent/memory/drop", "", nil, 404, bad("Unknown memory action: drop")},

		{"event", "POST", "/api/events/emit", `{"type":"done","payload":{"b":1, "a":"/"}}`, nil, 200, `{}`},
		{"event without payload", "POST", "/api/events/emit", `{"type":"done"}`, nil, 200, `{}`},
		{"event, no type", "POST", "/api/events/emit", `{"type":""}`, nil, 400, bad("Body must contain type")},
		{"event, odd type", "POST", "/api/events/emit", `{"type":"a b"}`, nil, 400, bad("Invalid event type")},
		{"event, long type", "POST", "/api/events/emit", `{"type":"` + strings.Repeat("x", 65) + `"}`, nil, 400, bad("Invalid event type")},
		{"event, other method", "GET", "/api/events/emit", "", nil, 400, bad("POST /api/events/emit expected")},

		{"log", "POST", "/api/log", `{"level":"loud","message":"one\ntwo"}`, nil, 200, `{}`},
		{"log, no level", "POST", "/api/log", `{"message":"x"}`, nil, 400, bad("Body must contain level and message")},
		{"log, other method", "GET", "/api/log", "", nil, 405, bad("POST expected")},

		{"plugin", "POST", "/api/plugin/create", `{"name":"My Tool","tools":[{"id":"go","description":"goes","run":"true"}],"created_at":"2026-01-02T03:04:05Z"}`, nil, 200,
			`{"plugin_id":"my-tool","plugin_name":"My Tool","status":"installed","tools":[{"description":"goes","name":"go"}]}`},
		{"plugin, broken", "POST", "/api/plugin/create", `{"name":3}`, nil, 400, bad("Invalid plugin JSON")},
		{"plugin, other method", "GET", "/api/plugin/create", "", nil, 400, bad("POST /api/plugin/create expected")},

		{"root", "GET", "/", "", nil, 404, bad("Not found")},
		{"only api", "GET", "/api", "", nil, 404, bad("Not found")},
		{"elsewhere", "GET", "/v1/secrets/OWN", "", plugin, 404, bad("Not found")},
		{"unknown service", "GET", "/api//shell", "", nil, 404, bad("Unknown service: shell")},
		{"empty segments", "GET", "/api//secrets//OWN/", "", plugin, 200, `{"value":"mine"}`},
	} {
		got := g.do(request{method: c.method, path: c.path, token: token, uid: uidA, body: c.body, header: c.header})
		if got.status != c.status || got.body != c.want {
			t.Errorf("%s: %d %s, want %d %s", c.name, got.status, got.body, c.status, c.want)
		}
	}
	if want := agentA + " default [{user hi}]"; len(w.chats) != 1 || w.chats[0] != want {
		t.Errorf("chats %q", w.chats)
	}
	if len(w.jobs) != 2 || w.jobs[0] != (Job{agentA, "look", "s", "sandbox:" + LinuxName(agentA)}) {
		t.Errorf("jobs %v", w.jobs)
	}
	if want := "SandboxEvent.done sandbox:" + LinuxName(agentA) + ` {"a":"/","b":1}`; len(w.events) != 2 || w.events[0] != want || !strings.HasSuffix(w.events[1], " {}") {
		t.Errorf("events %q", w.events)
	}
	if len(w.tags) != 1 || w.tags[0] != "source:sandbox:"+LinuxName(agentA) {
		t.Errorf("tags %q", w.tags)
	}
	if e := w.logs.Entries(); len(e) != 1 || e[0].String() != "[Sandbox:"+LinuxName(agentA)+"] [info] one two" {
		t.Errorf("log %v", e)
	}
	if len(w.audit) != 1 || !strings.Contains(w.audit[0], "route=agent/dispatch status=403") {
		t.Errorf("audit %q", w.audit)
	}
}

// TestIdentity: three factors that agree, or one answer.
func TestIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, shared := w.serve(boxA, agentA), w.serve(boxB, agentB), w.serve("osr-shared00-00000003", "")
	tokenA := w.register(agentA, uidA, boxA)
	tokenB := w.register(agentB, uidB, boxB)
	agentC := "33333333-3333-3333-3333-33333333333C"
	tokenC := w.register(agentC, 2002, shared.box)
	log := func(g guest, token string, uid uint32, header map[string]string) answer {
		return g.do(request{method: "POST", path: "/api/log", token: token, uid: uid, body: `{"level":"info","message":"x"}`, header: header})
	}
	for _, c := range []struct {
		name   string
		g      guest
		token  string
		uid    uint32
		header map[string]string
		reason string // "" is 200
	}{
		{"own", a, tokenA, uidA, nil, ""},
		{"own, b", b, tokenB, uidB, nil, ""},
		{"own, shared", shared, tokenC, 2002, nil, ""},
		{"scheme in any case", a, "", uidA, map[string]string{"Authorization": "  bEARER   " + tokenA + " "}, ""},
		{"missing", a, "", uidA, nil, "no token"},
		{"empty", a, "", uidA, map[string]string{"Authorization": "Bearer "}, "no token"},
		{"other scheme", a, "", uidA, map[string]string{"Authorization": "Basic " + tokenA}, "no token"},
		{"unknown", a, strings.Repeat("A", tokenLength), uidA, nil, "unknown token"},
		{"cut", a, tokenA[:tokenLength-1], uidA, nil, "unknown token"},
		{"stolen, other sandbox", b, tokenA, uidA, nil, "token of another sandbox"},
		{"stolen, same sandbox", a, tokenA, uidB, nil, "token of another user"},
		{"stolen, shared", shared, tokenC, 2003, nil, "token of another user"},
		{"root", a, tokenA, 0, nil, "root is no agent"},
		{"spoofed user", a, "", uidA, map[string]string{"X-Osaurus-User": LinuxName(agentA)}, "no token"},
	} {
		before := len(w.audit)
		got := log(c.g, c.token, c.uid, c.header)
		if c.reason == "" {
			if got.status != 200 || len(w.audit) != before {
				t.Errorf("%s: %d %s", c.name, got.status, got.body)
			}
			continue
		}
		if got.status != 401 || got.body != refused401 {
			t.Errorf("%s: %d %s", c.name, got.status, got.body)
		}
		if len(w.audit) != before+1 {
			t.Fatalf("%s: no audit record", c.name)
		}
		record := w.audit[before]
		want := fmt.Sprintf("sandbox_refused sandbox=%s uid=%d route=log status=401 reason=%s", c.g.box, c.uid, c.reason)
		if record != want {
			t.Errorf("%s: %s", c.name, record)
		}
		if strings.Contains(record, tokenA[:8]) {
			t.Errorf("%s: the record shows the token", c.name)
		}
	}
	// A header that once named the caller changes nothing about who it is.
	before := len(w.jobs)
	got := a.do(request{method: "POST", path: "/api/agent/dispatch", token: tokenA, uid: uidA, body: `{"task":"x"}`, header: map[string]string{"X-Osaurus-User": LinuxName(agentB), "X-Osaurus-Agent-Id": agentB}})
	if got.status != 200 || w.jobs[before].AgentID != agentA {
		t.Errorf("spoofed headers: %v %v", got, w.jobs[before:])
	}
}

func TestMemoryIsTheCallersOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.serve(boxA, agentA)
	token := w.register(agentA, uidA, boxA)
	w.facts[agentB] = []Fact{{Content: "theirs"}}
	for i := range 12 {
		w.facts[agentA] = append(w.facts[agentA], Fact{Content: "mine " + strconv.Itoa(i)})
	}
	got := a.do(request{method: "POST", path: "/api/agent/memory/query", token: token, uid: uidA, body: `{"query":"e","agent_id":"` + agentB + `"}`})
	if got.status != 200 || strings.Contains(got.body, "theirs") || strings.Count(got.body, "mine") != MaxResults {
		t.Errorf("%d %s", got.status, got.body)
	}
	w.memoryErr = fault.WithText(fault.StorageLocked, "Storage is locked.")
	if got := a.do(request{method: "POST", path: "/api/agent/memory/store", token: token, uid: uidA, body: `{"content":"x"}`}); !strings.HasPrefix(got.body, `{"error":"Memory store failed: Storage is locked.`) {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	log := func(token string) int {
		return g.do(request{method: "POST", path: "/api/log", token: token, uid: uidA, body: `{"level":"info","message":"x"}`}).status
	}
	first := w.register(agentA, uidA, boxA)
	if log(first) != 200 {
		t.Fatal("own token")
	}
	if !w.tokens.Revoke(LinuxName(agentA)) || log(first) != 401 {
		t.Error("a revoked token works")
	}
	second := w.register(agentA, uidA, boxA)
	if second == first || log(second) != 200 || log(first) != 401 {
		t.Error("minting anew")
	}
	w.tokens.RevokeAll() // a restart
	if log(second) != 401 {
		t.Error("a token outlived its boot")
	}
}

// zeros is n zero bytes, read as chunks.
func zeros(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	token := w.register(agentA, uidA, boxA)
	full := `{"level":"info","message":"` + strings.Repeat("x", MaxBody-len(`{"level":"info","message":""}`)) + `"}`
	over := fmt.Sprintf(`{"error":"Request body too large (%d > 8388608 bytes)"}`, MaxBody+1)
	for _, c := range []struct {
		name   string
		q      request
		status int
		body   string
	}{
		{"declared, at the limit", request{token: token, body: full}, 200, "{}"},
		{"chunked, at the limit", request{token: token, chunked: struct{ io.Reader }{strings.NewReader(full)}}, 200, "{}"},
		{"declared, one more", request{token: token, body: full + " "}, 413, over},
		{"chunked, one more", request{token: token, chunked: struct{ io.Reader }{strings.NewReader(full + " ")}}, 413, ""},
		{"declared, one more, no token", request{body: full + " "}, 413, over},
		{"chunked, one more, no token", request{chunked: zeros(MaxBody + 1)}, 413, over},
		{"chunked, endless, no token", request{chunked: zeros(1 << 40)}, 413, over},
		{"at the limit, no token", request{chunked: zeros(MaxBody)}, 401, refused401},
		{"unknown path, one more", request{path: "/nowhere", token: token, body: full + " "}, 413, over},
	} {
		c.q.method, c.q.uid = "POST", uidA
		if c.q.path == "" {
			c.q.path = "/api/log"
		}
		got := g.do(c.q)
		if got.status != c.status || c.body != "" && got.body != c.body || got.last != (c.status == 413) {
			t.Errorf("%s: %d %.80s %v", c.name, got.status, got.body, got.header)
		}
	}
	if w.bridge.held.Load() != 0 {
		t.Errorf("%d bytes are still counted", w.bridge.held.Load())
	}
}

// TestRefusedAtOnce: a declared length is answered before the body comes.
func TestRefusedAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	c := g.dial(uidA)
	defer c.Close()
	fmt.Fprintf(c, "POST /api/log HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", MaxBody+1)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 413 {
		t.Fatalf("%v %v", resp, err)
	}
	if raw, err := io.ReadAll(io.MultiReader(resp.Body, c)); err != nil || !bytes.Contains(raw, []byte("too large")) {
		t.Errorf("%q, %v: the connection stays open", raw, err)
	}
}
