package channel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"osaurus/engine/address"
)

// host is a real server around a handler, which tests may stand in front of.
type host struct {
	*httptest.Server
	channel    *Server
	handshakes atomic.Int32
	calls      atomic.Int32
	mu         sync.Mutex
	before     func(w http.ResponseWriter, r *http.Request) bool // true: it answered
}

func newHost(t testing.TB, next http.HandlerFunc) *host {
	t.Helper()
	h := &host{channel: NewServer(Config{Signer: knownAgents(t)})}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		before := h.before
		h.mu.Unlock()
		if before != nil && before(w, r) {
			return
		}
		switch r.URL.Path {
		case sessionPath:
			h.handshakes.Add(1)
			h.channel.ServeSession(w, r, "test")
		case callPath:
			h.calls.Add(1)
			h.channel.ServeCall(w, r, next)
		default:
			t.Errorf("plaintext request for %s", r.URL)
		}
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *host) intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = f
}

func (h *host) transport(t testing.TB) *Transport {
	t.Helper()
	base := &http.Transport{}
	tr := NewTransport(TransportConfig{Base: base, Peer: mustURL(t, h.URL), Pinned: testSigner(t, alice).Address()})
	t.Cleanup(func() { tr.Close(); tr.CloseIdleConnections() })
	return tr
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func newRequest(t testing.TB, method, target, body string) *http.Request {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, r)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// trip does one request and reads its answer.
func trip(t testing.TB, tr *Transport, req *http.Request) (int, string, error) {
	t.Helper()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		if resp != nil {
			t.Error("a response beside an error")
		}
		return 0, "", err
	}
	body, err := io.ReadAll(resp.Body)
	if closeErr := resp.Body.Close(); closeErr != nil {
		t.Error(closeErr)
	}
	return resp.StatusCode, string(body), err
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

// idle checks that no call kept its place and no session a call.
func idle(t testing.TB, tr *Transport) {
	t.Helper()
	if n := len(tr.sessions.slots); n != 0 {
		t.Errorf("%d places were not given back", n)
	}
	for _, l := range tr.sessions.lines {
		if l.outstanding != 0 {
			t.Errorf("a session counts %d calls", l.outstanding)
		}
	}
}

// TestNothingReadableOutside reads what a relay sees.
func TestNothingReadableOutside(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "planted answer")
	})
	var seen bytes.Buffer
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		_ = r.Header.Write(&seen)
		seen.WriteString(r.RequestURI)
		seen.Write(body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		return false
	})
	tr := h.transport(t)
	req := newRequest(t, "POST", h.URL+"/planted/path?planted=1", "planted body")
	req.Header.Set("Authorization", "Bearer planted")
	req.Header.Set("X-Planted", "planted")
	req.Header.Set("Cookie", "planted=1")
	status, body, err := trip(t, tr, req)
	if status != 200 || body != "planted answer" || err != nil {
		t.Fatalf("got %d %q %v", status, body, err)
	}
	if strings.Contains(strings.ToLower(seen.String()), "planted") {
		t.Errorf("seen outside: %s", seen.String())
	}
	idle(t, tr)
}

func TestRequestsCarryAll(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body string
	h := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, body = r, string(b)
	})
	tr := h.transport(t)
	req := newRequest(t, "PATCH", h.URL+"/a%20b/c?d=%2F", "payload")
	req.Header = http.Header{
		"Authorization": {"Bearer k"}, "Accept": {"a/b", "c/d"}, "Content-Type": {"e/f"}, "X-Two": {"1", "2"},
		"Cookie": {"no"}, "X-Forwarded-For": {"no"}, "Connection": {"no"}, "X-None": {},
	}
	if status, _, err := trip(t, tr, req); status != 200 || err != nil {
		t.Fatal(status, err)
	}
	if got.Method != "PATCH" || got.RequestURI != "/a%20b/c?d=%2F" || body != "payload" {
		t.Errorf("got %s %s %q", got.Method, got.RequestURI, body)
	}
	want := http.Header{"Authorization": {"Bearer k"}, "Accept": {"a/b, c/d"}, "Content-Type": {"e/f"}, "X-Two": {"1, 2"}}
	if fmt.Sprint(got.Header) != fmt.Sprint(want) {
		t.Errorf("headers %v", got.Header)
	}
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	var got string
	h := newHost(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get(idempotencyHeader) })
	tr := h.transport(t)
	seen := map[string]bool{"": true}
	for _, x := range []struct {
		method, path, own string
		auto              bool
	}{
		{"POST", "/agents/x/run", "", true}, {"POST", "/v1/agents/x/dispatch", "", true}, {"POST", "/v1/api/agents/x/run?y", "", true},
		{"POST", "/agents/x/run", "mine", false}, {"GET", "/agents/x/run", "", false}, {"POST", "/agents/x/runs", "", false},
		{"POST", "/chat/completions", "", false}, {"POST", "/pair-invite", "", false}, {"POST", "/x/agents/y/run", "", false}, {"POST", "/agents/run", "", false},
	} {
		req := newRequest(t, x.method, h.URL+x.path, "{}")
		if x.own != "" {
			req.Header.Set(idempotencyHeader, x.own)
		}
		if _, _, err := trip(t, tr, req); err != nil {
			t.Fatal(err)
		}
		switch {
		case !x.auto && got != x.own:
			t.Errorf("%s %s carries %q", x.method, x.path, got)
		case x.auto && (seen[got] || len(got) != 22):
			t.Errorf("%s %s carries %q", x.method, x.path, got)
		}
		seen[got] = true
		if x.own == "" && req.Header.Get(idempotencyHeader) != "" {
			t.Error("the caller's request was changed")
		}
	}
}

func TestOnlyThePeersURLs(t *testing.T) {
	t.Parallel()
	tr := NewTransport(TransportConfig{Base: refuse{t}, Peer: mustURL(t, "http://Peer.test:80/base/"), Pinned: address.Address{1}})
	for target, want := range map[string]string{
		"http://peer.test/base": "/", "http://peer.test:80/base/": "/", "http://peer.test/base/a?b": "/a?b", "http://peer.test/base?b": "/?b", "HTTP://PEER.TEST/base/%2F": "/%2F",
		"https://peer.test/base/": "", "http://peer.test:81/base/": "", "http://other.test/base/": "", "http://peer.test/": "", "http://peer.test/based": "", "http://u:p@peer.test/base/": "",
	} {
		got, ok := tr.path(mustURL(t, target))
		if ok != (want != "") || (ok && got != want) {
			t.Errorf("%s: %q %v", target, got, ok)
		}
		if !ok {
			if _, _, err := trip(t, tr, newRequest(t, "GET", target, "")); !errors.Is(err, ErrForeignURL) {
				t.Errorf("%s: %v", target, err)
			}
		}
	}
	if tr.session.String() != "http://Peer.test:80/base/secure/session" || tr.calls.String() != "http://Peer.test:80/base/secure/call" {
		t.Errorf("%s %s", tr.session, tr.calls)
	}
}

type refuse struct{ t *testing.T }

func (r refuse) RoundTrip(req *http.Request) (*http.Response, error) {
	r.t.Errorf("sent %s", req.URL)
	return nil, errors.New("refused")
}

func TestTransportNeedsAPeer(t *testing.T) {
	t.Parallel()
	for _, c := range []TransportConfig{{}, {Peer: mustURL(t, "http://x")}, {Pinned: address.Address{1}}, {Peer: mustURL(t, "/x"), Pinned: address.Address{1}}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v: no panic", c)
				}
			}()
			NewTransport(c)
		}()
	}
}

// body counts how often it was closed.
type body struct {
	io.Reader
	closed int
}

func (b *body) Close() error { b.closed++; return nil }

// TestRequestBodies: always closed, whatever happens; limited; never changed.
func TestRequestBodies(t *testing.T) {
	t.Parallel()
	h := newHost(t, ok)
	tr := h.transport(t)
	broken := errors.New("broken")
	for name, x := range map[string]struct {
		target string
		from   io.Reader
		want   error
	}{
		"good":      {h.URL, strings.NewReader("x"), nil},
		"broken":    {h.URL, io.MultiReader(strings.NewReader("x"), errReader{broken}), broken},
		"foreign":   {"http://other.test/", strings.NewReader("x"), ErrForeignURL},
		"too large": {h.URL, io.LimitReader(zeros{}, maxCall+1), ErrTooLarge},
		"envelope":  {h.URL, io.LimitReader(zeros{}, maxCall), ErrTooLarge},
		"most":      {h.URL, io.LimitReader(zeros{}, maxCall*9/16-1024), nil},
	} {
		b := &body{Reader: x.from}
		req := newRequest(t, "POST", x.target, "")
		req.Body, req.ContentLength = b, -1
		if _, _, err := trip(t, tr, req); !errors.Is(err, x.want) {
			t.Errorf("%s: %v", name, err)
		}
		if b.closed != 1 {
			t.Errorf("%s: closed %d times", name, b.closed)
		}
	}
	tr.Close()
	b := &body{Reader: strings.NewReader("x")}
	req := newRequest(t, "POST", h.URL, "")
	req.Body = b
	if _, _, err := trip(t, tr, req); !errors.Is(err, ErrClosed) || b.closed != 1 {
		t.Errorf("after Close: %v, closed %d times", err, b.closed)
	}
	idle(t, tr)
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestCancelEndsTheStream(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	h := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "begun")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	})
	for _, how := range []string{"cancel", "close"} {
		gone = make(chan struct{})
		tr := h.transport(t)
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := tr.RoundTrip(newRequest(t, "GET", h.URL+"/", "").WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != "begun" {
			t.Fatalf("got %q, %v", got, err)
		}
		if how == "cancel" {
			cancel()
			if _, err := resp.Body.Read(got); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrTruncated) {
				t.Errorf("got %v", err)
			}
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		<-gone
		cancel()
		idle(t, tr)
	}
}

// TestServerDiesInTheMiddle: the connection breaks between two frames.
func TestServerDiesInTheMiddle(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "begun")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	_, got, err := trip(t, h.transport(t), newRequest(t, "GET", h.URL+"/", ""))
	if got != "begun" || !errors.Is(err, ErrTruncated) {
		t.Errorf("got %q, %v", got, err)
	}
	buffered := newHost(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if _, _, err := trip(t, buffered.transport(t), newRequest(t, "GET", buffered.URL+"/", "")); err == nil {
		t.Error("an aborted answer was one")
	}
}

func TestManyStreamsAtOnce(t *testing.T) {
	t.Parallel()
	const n = 2*maxOutstanding + 6
	var arrived sync.WaitGroup
	arrived.Add(n)
	h := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		arrived.Done()
		arrived.Wait() // all are open at once
		_, _ = io.WriteString(w, r.URL.Query().Get("n"))
	})
	tr := h.transport(t)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if _, got, err := trip(t, tr, newRequest(t, "GET", fmt.Sprintf("%s/?n=%d", h.URL, i), "")); got != fmt.Sprint(i) || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	wg.Wait()
	if h.handshakes.Load() != 3 {
		t.Errorf("%d handshakes for %d streams at once", h.handshakes.Load(), n)
	}
	idle(t, tr)
}

func TestSequenceNumbersNeverRepeat(t *testing.T) {
	t.Parallel()
	h := newHost(t, ok)
	var mu sync.Mutex
	seen := map[string]bool{}
	h.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == callPath {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			e, err := parseEnvelope(body, nil)
			key := fmt.Sprintf("%s %d", e.sid, e.seq)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || e.seq == 0 || seen[key] {
				t.Errorf("%s again, %v", key, err)
			}
			seen[key] = true
		}
		return false
	})
	tr := h.transport(t)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, _, err := trip(t, tr, newRequest(t, "GET", h.URL+"/", "")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(seen) != 100 {
		t.Errorf("%d calls", len(seen))
	}
}

// TestAnswerBodies: what http.Client relies on.
func TestAnswerBodies(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/none":
			w.WriteHeader(204)
		case "/text":
			w.WriteHeader(418)
			_, _ = io.WriteString(w, "text")
		case "/redirect":
			w.Header().Set("Location", "/text")
			w.WriteHeader(302)
		}
	})
	tr := h.transport(t)
	for _, x := range []struct {
		method, path string
		status       int
		length       int64
	}{{"GET", "/none", 204, 0}, {"GET", "/text", 418, 4}, {"HEAD", "/text", 418, 0}, {"GET", "/redirect", 302, 0}} {
		req := newRequest(t, x.method, h.URL+x.path, "")
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != x.status || resp.ContentLength != x.length || resp.Request != req || resp.Body == nil ||
			!strings.HasPrefix(resp.Status, fmt.Sprint(x.status)) || resp.ProtoMajor != 1 {
			t.Errorf("%s %s: %+v", x.method, x.path, resp)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}
