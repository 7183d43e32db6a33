package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"osaurus/engine/address"
	"osaurus/engine/relay/wire"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"), goleak.Cleanup(func(code int) {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		os.Exit(code)
	}))
}

// agent is one whose key the test has.
type agent struct {
	key  signature.Key
	addr address.Address
}

var (
	agentsMu sync.Mutex
	agents   = map[int]agent{}
)

// agentN is the nth of the test's agents, the same in every test.
func agentN(n int) agent {
	agentsMu.Lock()
	defer agentsMu.Unlock()
	if a, ok := agents[n]; ok {
		return a
	}
	var scalar [32]byte
	scalar[0] = 7
	binary.BigEndian.PutUint64(scalar[24:], uint64(n)+1)
	k, err := signature.NewKey(secret.New(scalar[:]))
	if err != nil {
		panic(err)
	}
	agents[n] = agent{k, k.Address()}
	return agents[n]
}

func (a agent) proof(nonce string, ts int64) wire.Agent { return a.proofAs(a.addr.String(), nonce, ts) }

func (a agent) proofAs(text, nonce string, ts int64) wire.Agent {
	return wire.Agent{Address: text, Signature: a.key.Sign(wire.TextDigest(text, nonce, ts)).String()}
}

const testDomain = "relay.test"

// patience bounds what a test waits for: a machine may be busy with others.
const patience = 2 * time.Minute

// rig is a relay on a real listener.
type rig struct {
	t    testing.TB
	s    *Server
	addr string
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	c := Config{Domain: testDomain, Machine: "m1", Region: "here"}
	for _, f := range change {
		f(&c)
	}
	r := &rig{t: t, s: New(c)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	srv := r.s.HTTP(r.s)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // nobody is waited for
		r.s.Drain(ctx)
		_ = srv.Close()
	})
	return r
}

// clientFrom calls the relay from an address of this machine, whatever name is
// in the URL.
func (r *rig) clientFrom(ip string) *http.Client {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	tr := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, network, r.addr)
	}}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func place(a agent, path string) string { return "http://" + a.addr.Lower() + "." + testDomain + path }

// reply is what a caller got.
type reply struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

func (r *rig) do(req *http.Request) reply {
	r.t.Helper()
	resp, err := r.clientFrom("127.0.0.1").Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(body), err}
}

func (r *rig) request(method, url, body string) *http.Request {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	return req
}

func (r *rig) get(url string) reply { r.t.Helper(); return r.do(r.request(http.MethodGet, url, "")) }

// later runs a request beside the test.
func (r *rig) later(req *http.Request) <-chan reply {
	ch := make(chan reply, 1)
	client := r.clientFrom("127.0.0.1")
	go func() {
		resp, err := client.Do(req)
		if err != nil {
			ch <- reply{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		ch <- reply{resp.StatusCode, resp.Header, string(body), err}
	}()
	return ch
}

// host is the other end of a tunnel, over a real WebSocket.
type host struct {
	t testing.TB
	c *websocket.Conn
}

func (r *rig) dialFrom(ip string) (*host, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, "ws://relay.agent.example/tunnel/connect", &websocket.DialOptions{HTTPClient: r.clientFrom(ip)})
	if err != nil {
		return nil, resp, err
	}
	c.SetReadLimit(wire.MaxFrame)
	r.t.Cleanup(func() { _ = c.CloseNow() })
	return &host{r.t, c}, resp, nil
}

func (r *rig) dial() *host {
	r.t.Helper()
	h, _, err := r.dialFrom("127.0.0.1")
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// next returns the next frame; the zero frame and the close code at the end.
// Where a test takes so long that the relay pings, the host answers.
func (h *host) next() (wire.Frame, websocket.StatusCode, string) {
	h.t.Helper()
	for {
		f, code, reason := h.read()
		if f.Type != wire.Ping {
			return f, code, reason
		}
		h.send(&wire.Frame{Type: wire.Pong})
	}
}

func (h *host) read() (wire.Frame, websocket.StatusCode, string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, raw, err := h.c.Read(ctx)
	if err != nil {
		if ce, ok := errors.AsType[websocket.CloseError](err); ok {
			return wire.Frame{}, ce.Code, ce.Reason
		}
		h.t.Fatalf("reading a frame: %v", err)
	}
	f, err := wire.Parse(raw)
	if err != nil {
		h.t.Fatalf("the relay sent %.200s", raw)
	}
	return f, 0, ""
}

func (h *host) want(typ wire.Type) wire.Frame {
	h.t.Helper()
	f, code, reason := h.next()
	if f.Type != typ {
		h.t.Fatalf("instead of %s: %+v, close %d %q", typ, f, code, reason)
	}
	return f
}

func (h *host) wantClose(code websocket.StatusCode, reason string) {
	h.t.Helper()
	if f, c, why := h.next(); c != code || why != reason {
		h.t.Fatalf("instead of close %d %q: %+v, close %d %q", code, reason, f, c, why)
	}
}

func (h *host) send(f *wire.Frame) {
	h.t.Helper()
	raw, err := f.Marshal()
	if err != nil {
		h.t.Fatal(err)
	}
	h.raw(string(raw))
}

func (h *host) raw(text string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		h.t.Fatal(err)
	}
}

func now() int64 { return time.Now().Unix() }

// authAs answers the challenge for agents.
func (h *host) authAs(list ...agent) wire.Frame {
	h.t.Helper()
	nonce := h.want(wire.Challenge).Nonce
	f := &wire.Frame{Type: wire.Auth, Nonce: nonce, Timestamp: now(), Agents: []wire.Agent{}}
	for _, a := range list {
		f.Agents = append(f.Agents, a.proof(nonce, f.Timestamp))
	}
	h.send(f)
	return h.want(wire.AuthOK)
}

// open connects a host for agents.
func (r *rig) open(list ...agent) *host {
	r.t.Helper()
	h := r.dial()
	h.authAs(list...)
	return h
}

// answer sends a buffered one.
func (h *host) answer(id string, status int, headers map[string]string, body string) {
	h.t.Helper()
	if headers == nil {
		headers = map[string]string{}
	}
	h.send(&wire.Frame{Type: wire.Response, ID: id, Status: status, Headers: headers, Body: &body})
}

// memory is a conn whose host is the test, without a network.
type memory struct {
	in     chan []byte
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	out     [][]byte
	stalled bool // writes wait
	code    int
	reason  string
}

func newMemory() *memory { return &memory{in: make(chan []byte, 4096), closed: make(chan struct{})} }

var errGone = errors.New("gone")

func (m *memory) Read(context.Context) ([]byte, error) {
	select {
	case raw := <-m.in:
		return raw, nil
	case <-m.closed:
		return nil, errGone
	}
}

func (m *memory) Write(ctx context.Context, raw []byte) error {
	m.mu.Lock()
	stalled := m.stalled
	if !stalled {
		m.out = append(m.out, raw)
	}
	m.mu.Unlock()
	if stalled {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.closed:
			return errGone
		}
	}
	return nil
}

func (m *memory) Close(code int, reason string) error {
	m.mu.Lock()
	m.code, m.reason = code, reason
	m.mu.Unlock()
	m.Abort()
	return nil
}

func (m *memory) Abort() { m.once.Do(func() { close(m.closed) }) }
func (m *memory) Trust() {}

// bubble is a relay and hosts in memory, in fake time.
type bubble struct {
	t *testing.T
	s *Server
	w sync.WaitGroup
}

func inBubble(t *testing.T, f func(b *bubble), change ...func(*Config)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := Config{Domain: testDomain, Machine: "m1", Region: "here"}
		for _, f := range change {
			f(&c)
		}
		b := &bubble{t: t, s: New(c)}
		f(b)
		b.s.Drain(t.Context())
		b.w.Wait()
	})
}

func (b *bubble) connect() *memory {
	m := newMemory()
	b.w.Go(func() { b.s.carry(m) })
	synctest.Wait()
	return m
}

func (b *bubble) put(m *memory, f *wire.Frame) {
	b.t.Helper()
	raw, err := f.Marshal()
	if err != nil {
		b.t.Fatal(err)
	}
	m.in <- raw
	synctest.Wait()
}

// take returns the frames since the last call.
func (b *bubble) take(m *memory) []wire.Frame {
	b.t.Helper()
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []wire.Frame
	for _, raw := range m.out {
		f, err := wire.Parse(raw)
		if err != nil {
			b.t.Fatalf("the relay sent %s", raw)
		}
		all = append(all, f)
	}
	m.out = nil
	return all
}

// says writes frames down as "type error/reason".
func (b *bubble) says(m *memory) string {
	b.t.Helper()
	var all []string
	for _, f := range b.take(m) {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s%s", f.Type, f.Error, f.Reason)))
	}
	return strings.Join(all, ", ")
}

func (b *bubble) closedWith(m *memory) string {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.closed:
		return fmt.Sprintf("%d %s", m.code, m.reason)
	default:
		return "open"
	}
}

func (b *bubble) open(list ...agent) *memory {
	b.t.Helper()
	m := b.connect()
	challenge := b.take(m)[0]
	f := &wire.Frame{Type: wire.Auth, Nonce: challenge.Nonce, Timestamp: now()}
	for _, a := range list {
		f.Agents = append(f.Agents, a.proof(f.Nonce, f.Timestamp))
	}
	b.put(m, f)
	if got := b.says(m); got != "auth_ok" {
		b.t.Fatalf("instead of auth_ok: %s", got)
	}
	return m
}

// call is a caller in memory.
type call struct {
	rec  *httptest.ResponseRecorder
	cut  bool // the answer broke off
	done chan struct{}
	stop context.CancelFunc
}

func (b *bubble) call(method string, a agent, path string, body io.Reader) *call {
	if body == nil {
		body = &bytes.Reader{}
	}
	ctx, stop := context.WithCancel(b.t.Context())
	req := httptest.NewRequest(method, place(a, path), body).WithContext(ctx)
	req.RequestURI = path
	c := &call{rec: httptest.NewRecorder(), done: make(chan struct{}), stop: stop}
	b.w.Go(func() {
		defer close(c.done)
		defer func() { c.cut = recover() != nil }()
		b.s.ServeHTTP(c.rec, req)
	})
	synctest.Wait()
	return c
}

func (c *call) String() string {
	select {
	case <-c.done:
	default:
		return "waiting"
	}
	cut := ""
	if c.cut {
		cut = " cut"
	}
	return fmt.Sprintf("%d %s%s", c.rec.Code, c.rec.Body, cut)
}

// elapse lets the fake time of a bubble pass.
func elapse(d time.Duration) { <-time.After(d) }
