package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/sandbox/wire"
)

// TestRates: each bucket on both sides of its limit, and that a window slides.
func TestRates(t *testing.T) {
	t.Parallel()
	plugin := map[string]string{"X-Osaurus-Plugin": "weather"}
	for _, c := range []struct {
		name         string
		method, path string
		body         string
		limit        int
		text         string
	}{
		{"inference", "POST", "/api/inference/chat", `{"messages":[{"role":"user","content":"x"}]}`, 60, "Rate limit exceeded for inference"},
		{"dispatch", "POST", "/api/agent/dispatch", `{"task":"x"}`, 10, "Rate limit exceeded for dispatch"},
		{"events", "POST", "/api/events/emit", `{"type":"x"}`, 120, "Rate limit exceeded"},
		{"secrets", "GET", "/api/secrets/X", "", 120, "Rate limit exceeded"},
		{"config", "GET", "/api/config/x", "", 120, "Rate limit exceeded"},
		{"memory query", "POST", "/api/agent/memory/query", `{"query":"x"}`, 120, "Rate limit exceeded"},
		{"memory store", "POST", "/api/agent/memory/store", `{"content":"x"}`, 120, "Rate limit exceeded"},
		{"log", "POST", "/api/log", `{"level":"info","message":"x"}`, 120, "Rate limit exceeded"},
		{"plugin", "POST", "/api/plugin/create", `{"name":"x"}`, 120, "Rate limit exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			now := time.Unix(1_000_000, 0)
			w.now = func() time.Time { return now }
			g := w.serve("osr-shared00-00000003", "")
			tokenA, tokenB := w.register(agentA, uidA, g.box), w.register(agentB, uidB, g.box)
			q := request{method: c.method, path: c.path, body: c.body, header: plugin, token: tokenA, uid: uidA}
			for i := range c.limit {
				if got := g.do(q); got.status == 429 {
					t.Fatalf("call %d was refused", i+1)
				}
			}
			for range 3 { // refused calls do not count
				if got := g.do(q); got.status != 429 || got.body != `{"error":"`+c.text+`"}` || got.header.Get("Retry-After") == "" {
					t.Errorf("one more: %d %s", got.status, got.body)
				}
			}
			q.token, q.uid = tokenB, uidB
			if got := g.do(q); got.status == 429 {
				t.Error("one agent spends the other's window")
			}
			q.token, q.uid, now = tokenA, uidA, now.Add(Window)
			if got := g.do(q); got.status == 429 {
				t.Error("the window does not slide")
			}
			if len(w.audit) < 3 || !strings.Contains(w.audit[0], "status=429 reason=rate limit") {
				t.Errorf("audit %q", w.audit)
			}
		})
	}
}

func TestPluginWindowIsItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	token := w.register(agentA, uidA, boxA)
	for range 120 {
		g.do(request{method: "POST", path: "/api/events/emit", body: `{"type":"x"}`, token: token, uid: uidA})
	}
	if got := g.do(request{method: "POST", path: "/api/plugin/create", body: `{"name":"x"}`, token: token, uid: uidA}); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	// What is wrong with a recipe costs nothing.
	for range 130 {
		if got := g.do(request{method: "POST", path: "/api/plugin/create", body: `{"name":"x","files":{"../x":""}}`, token: token, uid: uidA}); got.status != 400 {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
}

func TestPluginGate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	create := request{method: "POST", path: "/api/plugin/create", body: `{"name":"x"}`, token: w.register(agentA, uidA, boxA), uid: uidA}
	w.mayCreate = false
	if got := g.do(create); got.status != 403 || got.body != `{"error":"Plugin creation is disabled for this agent"}` {
		t.Errorf("%d %s", got.status, got.body)
	}
	if len(w.audit) != 1 || !strings.Contains(w.audit[0], "status=403 reason=switched off") {
		t.Errorf("audit %q", w.audit)
	}
	w.mayCreate, w.running = true, false
	if got := g.do(create); got.status != 503 || got.header.Get("Retry-After") == "" || w.installs != 0 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestInferencePermission: a recipe that may not use models says so to its
// own calls.
func TestInferencePermission(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	token := w.register(agentA, uidA, boxA)
	if got := g.do(request{method: "POST", path: "/api/plugin/create", body: `{"name":"x","permissions":{"inference":true}}`, token: token, uid: uidA}); got.status != 200 {
		t.Fatal(got)
	}
	chat := request{method: "POST", path: "/api/inference/chat", body: `{"messages":[{"role":"user","content":"x"}]}`, token: token, uid: uidA, header: map[string]string{"X-Osaurus-Plugin": "x"}}
	if got := g.do(chat); got.status != 403 || len(w.chats) != 0 {
		t.Errorf("%d %s", got.status, got.body)
	}
	chat.header = nil
	if got := g.do(chat); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestFailures show the public text of a cause and nothing else.
func TestFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	chat := request{method: "POST", path: "/api/inference/chat", body: `{"messages":[{"role":"user","content":"x"}]}`, token: w.register(agentA, uidA, boxA), uid: uidA}
	for _, c := range []struct {
		err    error
		status int
		prefix string
	}{
		{fault.New(fault.ProviderFailed, errors.New("key sk-123")), 500, `{"error":"Inference failed: `},
		{errors.New("/home/owner/secret"), 500, `{"error":"Inference failed: `},
		{fault.ServerOverloaded, 500, `{"error":"Inference failed: The server is busy`},
	} {
		w.chat = func(context.Context) (string, error) { return "", c.err }
		got := g.do(chat)
		if got.status != c.status || !strings.HasPrefix(got.body, c.prefix) || strings.Contains(got.body, "sk-123") || strings.Contains(got.body, "/home") {
			t.Errorf("%v: %d %s", c.err, got.status, got.body)
		}
	}
}

// TestGuestHangsUp: closing the connection cancels the work.
func TestGuestHangsUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	token := w.register(agentA, uidA, boxA)
	started, cancelled := make(chan struct{}), make(chan struct{})
	w.chat = func(ctx context.Context) (string, error) {
		close(started)
		<-ctx.Done()
		close(cancelled)
		return "", ctx.Err()
	}
	c := g.dial(uidA)
	body := `{"messages":[{"role":"user","content":"x"}]}`
	fmt.Fprintf(c, "POST /api/inference/chat HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", token, len(body), body)
	<-started
	c.Close()
	<-cancelled
}

func TestConnectionCap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	token := w.register(agentA, uidA, boxA)
	log := func(c net.Conn) error {
		fmt.Fprintf(c, "GET /api/secrets/X HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", token)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		return err
	}
	var open []net.Conn
	for range MaxConnections {
		c := g.dial(uidA)
		if err := log(c); err != nil { // it has its slot
			t.Fatal(err)
		}
		open = append(open, c)
	}
	over, err := net.Dial("unix", g.path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := over.Read(make([]byte, 1)); err == nil {
		t.Error("one connection over the cap is served")
	}
	over.Close()
	for _, c := range open {
		if err := log(c); err != nil {
			t.Error("an open connection was harmed")
		}
		c.Close()
	}
}

// TestHeaderLimit on both sides of 16 KiB. What is over is net/http's to
// answer, so only the status counts.
func TestHeaderLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	for _, c := range []struct {
		pad, status int
	}{{MaxHeader - 200, 401}, {MaxHeader + 1, 431}} {
		conn := g.dial(uidA)
		go fmt.Fprintf(conn, "GET /api/log HTTP/1.1\r\nHost: localhost\r\nX-Pad: %s\r\n\r\n", strings.Repeat("x", c.pad))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%d bytes: %v %v", c.pad, resp, err)
		}
		conn.Close()
	}
}

// TestBrokenHeads: whatever a guest sends, it gets JSON with a length.
func TestBrokenHeads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	for head, want := range map[string]struct {
		status int
		body   string
	}{
		"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n":                                                                 {401, `{"error":"Bridge token missing or unrecognised"}`},
		"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + w.register(agentA, uidA, boxA) + "\r\n\r\n": {404, `{"error":"Not found"}`},
		"GET /api/log HTTP/1.1\r\n\r\n":                                                                                 {400, `{"error":"Bad Request"}`},
		"GET /api/%zz HTTP/1.1\r\nHost: x\r\n\r\n":                                                                      {400, `{"error":"Bad Request"}`},
		"rubbish\r\n\r\n": {400, `{"error":"Bad Request"}`},
		"POST /api/log HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n":                      {400, `{"error":"Bad Request"}`},
		"POST /api/log HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n": {400, `{"error":"Bad Request"}`},
		"POST /api/log HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n":                {501, `{"error":"Not Implemented"}`},
		"GET /api/log HTTP/3.0\r\nHost: x\r\n\r\n":                                            {505, `{"error":"HTTP Version Not Supported"}`},
	} {
		conn := g.dial(uidA)
		go func() { _, _ = io.WriteString(conn, head) }()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%q: %v", head, err)
			continue
		}
		raw, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want.status || string(raw) != want.body || resp.ContentLength != int64(len(want.body)) || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: %v %s %v", head, resp, raw, err)
		}
		conn.Close()
	}
}

// pipes is a listener of in-memory connections, for fake time.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	p.conns <- b
	return a
}

// TestSlowClients: the preface has 2 s, the head 10 s, the body 30 s.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	preface := wire.Preface{Kind: wire.Bridge, Sandbox: boxA, UID: uidA, PID: 1}.String()
	for _, c := range []struct {
		name, sent string
		within     time.Duration
		status     int // 0: closed without an answer
	}{
		{"nothing", "", wire.PrefaceTimeout, 0},
		{"half a preface", "OSG1 osr", wire.PrefaceTimeout, 0},
		{"half a head", preface + "GET /api/log HT", HeaderTimeout, 400},
		{"half a body", preface + "POST /api/log HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nxx", BodyTimeout, 408},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				ch := &Channel{Sandbox: boxA, AgentID: agentA, Nonce: strings.Repeat("ab", 16), Listener: l, Bridge: w.bridge}
				go func() { defer close(done); _ = ch.Serve(ctx) }()
				begin := time.Now()
				conn := l.dial()
				go func() { _, _ = io.WriteString(conn, c.sent) }()
				raw, _ := io.ReadAll(conn)
				if took := time.Since(begin); took < c.within || took > c.within+time.Second {
					t.Errorf("it took %v, want %v", took, c.within)
				}
				if got := strings.Contains(string(raw), fmt.Sprintf("HTTP/1.1 %d", c.status)); c.status != 0 && !got || c.status == 0 && len(raw) > 0 {
					t.Errorf("answered %.80q", raw)
				}
				conn.Close()
				cancel()
				<-done
			})
		})
	}
}

// TestBrokenPrefaces are dropped without an answer.
func TestBrokenPrefaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.serve(boxA, agentA)
	for _, line := range []string{
		"GET / HTTP/1.1\r\n\r\n", "OSG1 " + boxB + " 2000 1\n", "OSG1 " + boxA + " -1 1\n", "OSG1 " + boxA + " 02000 1\n", "OSG1 " + boxA + " 2000 1 \n",
		"OSG1  " + boxA + " 2000 1\n", "OSG1 " + boxA + " 4294967296 1\n", "OSG2 " + boxA + " 2000 1\n", strings.Repeat("x", wire.MaxPreface+1),
		"OSP1 " + boxA + "\n", "OSC1 " + strings.Repeat("cd", 16) + "\n", "\n",
	} {
		c, err := net.Dial("unix", g.path)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(c, line+"GET /api/log HTTP/1.1\r\nHost: localhost\r\n\r\n") }()
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%.40q was answered with %d bytes", line, n)
		}
		c.Close()
	}
}

// TestAuditIsBounded: a guest that is refused all the time does not fill the
// security log, hides no refusal for another reason, and what is missing is
// counted when the window ends, or the host does.
func TestAuditIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // the count comes from a timer
		var all []string
		seen := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all)
		}
		a := newAudit(func(_ string, attrs ...slog.Attr) {
			line := ""
			for _, x := range attrs {
				line += " " + x.Key + "=" + x.Value.String()
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, line)
		}, time.Now)
		p := peer{sandbox: boxA, uid: uidA}
		for range MaxAudit + 5 {
			a.refused(p, "log", 401, noToken)
		}
		if len(seen()) != MaxAudit {
			t.Errorf("%d records", len(seen()))
		}
		a.refused(p, "log", 401, wrongUser)
		a.refused(peer{sandbox: boxB, uid: uidB}, "log", 401, noToken)
		if len(seen()) != MaxAudit+2 || !strings.Contains(seen()[MaxAudit], string(wrongUser)) {
			t.Errorf("other refusals are hidden: %q", seen()[MaxAudit:])
		}
		<-time.After(Window + time.Second)
		synctest.Wait()
		if len(seen()) != MaxAudit+3 || !strings.HasSuffix(seen()[MaxAudit+2], "status=401 reason=no token unrecorded=5") {
			t.Errorf("%q", seen()[MaxAudit:])
		}
		for range MaxAudit + 1 {
			a.refused(p, "log", 413, tooLarge)
		}
		a.settle()
		if last := seen()[len(seen())-1]; !strings.HasSuffix(last, "unrecorded=1") {
			t.Error(last)
		}
		n := len(seen())
		<-time.After(2 * Window)
		synctest.Wait()
		if a.settle(); len(seen()) != n {
			t.Errorf("counted twice: %q", seen()[n:])
		}
	})
}
