package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"osaurus/engine/relay/wire"
)

// send speaks HTTP by hand and returns the status line's code.
func (r *rig) speak(request string) int {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, request); err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// TestForwarded: section 5, what reaches the host, to the byte.
func TestForwarded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := agentN(0)
	h := r.open(a)
	done := make(chan int, 1)
	go func() {
		done <- r.speak("FOO /v1/../x%2Fy?stream=true&x=a%20b#z HTTP/1.1\r\nHost: " + strings.ToUpper(a.addr.Lower()[:4]) + a.addr.Lower()[4:] + "." + testDomain + ":8080\r\n" +
			"Authorization: Bearer osk-v1.x.y\r\nX-Two: a\r\nX-TWO: b\r\nCookie: c=1\r\nProxy-Authorization: p\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\nX-Forwarded-Port: 1\r\n" +
			"X-Real-Ip: 1.2.3.4\r\nFly-Region: x\r\nFly-Client-IP: 8.8.8.8\r\nCf-Ray: y\r\nX-Relay-Internal: q\r\nX-Relay-Client-Ip: 7.7.7.7\r\nX-Relay-Internal-Hop: 1\r\nX-Forwarded-For: 9.9.9.9\r\n" +
			"X-Agent-Address: spoof\r\nX-Osaurus-Relay-Origin: 0\r\nConnection: keep-alive, x-two\r\nTE: trailers\r\nUpgrade: h2c\r\nSec-WebSocket-Key: k\r\nAccept-Encoding: br\r\nX-Latin: caf\xe9\r\n" +
			"Content-Length: 6\r\n\r\n{\"h\xff\"}")
	}()
	f := h.want(wire.Request)
	if f.Method != "FOO" || f.Path != "/x%2Fy?stream=true&x=a%20b" || *f.Body != "{\"h\ufffd\"}" {
		t.Errorf("%s %s %q", f.Method, f.Path, *f.Body)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(f.ID) {
		t.Errorf("id %q", f.ID)
	}
	want := map[string]string{
		"authorization": "Bearer osk-v1.x.y", "x-two": "a, b", "x-agent-address": a.addr.Lower(), "x-forwarded-for": "127.0.0.1", "x-osaurus-relay-origin": "0",
		"connection": "keep-alive, x-two", "te": "trailers", "upgrade": "h2c", "sec-websocket-key": "k", "accept-encoding": "br", "x-latin": "café", "content-length": "6",
	}
	for name, value := range want {
		if f.Headers[name] != value {
			t.Errorf("%s: %q, want %q", name, f.Headers[name], value)
		}
	}
	if len(f.Headers) != len(want) {
		t.Errorf("other headers: %v", f.Headers)
	}
	h.answer(f.ID, 201, nil, "")
	if got := <-done; got != 201 {
		t.Errorf("status %d", got)
	}
	// No body is an empty one, and a chunked one says so.
	for _, c := range []struct{ head, body string }{{"GET / HTTP/1.1\r\nHost: %s\r\n\r\n", ""}, {"POST / HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\xef\xbb\xbf\r\n1\r\nx\r\n0\r\n\r\n", "x"}} {
		go func() { done <- r.speak(fmt.Sprintf(c.head, a.addr.Lower()+"."+testDomain)) }()
		f := h.want(wire.Request)
		if f.Body == nil || *f.Body != c.body || (f.Headers["transfer-encoding"] == "chunked") != (c.body != "") {
			t.Errorf("%+v", f)
		}
		h.answer(f.ID, 200, nil, "")
		<-done
	}
}

// TestHostNames: section 1.
func TestHostNames(t *testing.T) {
	t.Parallel()
	s := New(Config{Domain: "localhost:8790"})
	a := agentN(0).addr
	for host, want := range map[string]bool{
		a.Lower() + ".localhost":                                 true,
		a.Lower() + ".localhost:8790":                            true,
		a.Lower() + ".localhost:1":                               true,
		a.String() + ".LOCALHOST":                                true,
		"0X" + a.Lower()[2:] + ".localhost":                      true,
		"localhost":                                              false,
		a.Lower():                                                false,
		a.Lower()[:41] + ".localhost":                            false,
		a.Lower() + "0.localhost":                                false,
		"x." + a.Lower() + ".localhost":                          false,
		a.Lower() + ".x.localhost":                               false,
		a.Lower() + ".evillocalhost":                             false,
		a.Lower() + ".localhost.evil":                            false,
		strings.Replace(a.Lower(), "0x", "0y", 1) + ".localhost": false,
		"": false,
	} {
		if got, ok := s.agentOf(host); ok != want || ok && got != a {
			t.Errorf("%q: %v %v", host, got, ok)
		}
	}
	if got := s.url(a); got != "http://"+a.Lower()+".localhost:8790" {
		t.Error(got)
	}
}

// TestClientIP: decisions D22.
func TestClientIP(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		trust bool
		head  http.Header
		want  string
	}{
		"the socket":          {false, http.Header{"Fly-Client-Ip": {"8.8.8.8"}, "X-Forwarded-For": {"9.9.9.9"}, "X-Relay-Client-Ip": {"7.7.7.7"}, "X-Relay-Internal-Hop": {"1"}}, "127.0.0.1"},
		"a proxy's word":      {true, http.Header{"X-Forwarded-For": {"9.9.9.9, 8.8.8.8"}}, "9.9.9.9"},
		"its own header":      {true, http.Header{"Fly-Client-Ip": {"8.8.8.8"}, "X-Forwarded-For": {"9.9.9.9"}}, "8.8.8.8"},
		"nonsense":            {true, http.Header{"X-Forwarded-For": {"nobody"}}, "127.0.0.1"},
		"never the hop's":     {true, http.Header{"X-Relay-Client-Ip": {"7.7.7.7"}, "X-Relay-Internal-Hop": {"1"}}, "127.0.0.1"},
		"IPv4 inside of IPv6": {true, http.Header{"X-Forwarded-For": {"::ffff:9.9.9.9"}}, "9.9.9.9"},
	} {
		s := New(Config{})
		if c.trust {
			s = New(Config{TrustProxy: loopback})
		}
		if got := s.clientIP(&http.Request{RemoteAddr: "127.0.0.1:1", Header: c.head}); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	for ip, want := range map[string]string{"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "1.2.3.4": "1.2.3.4", "odd": "odd"} {
		if got := sourceOf(ip); got != want {
			t.Errorf("%s: %s", ip, got)
		}
	}
}

// TestBodyLimit: ten MiB exactly pass, one byte more does not, declared or
// chunked.
func TestBodyLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.open(agentN(0))
	for _, chunked := range []bool{false, true} {
		for _, over := range []int{0, 1} {
			req := r.request("POST", place(agentN(0), "/"), strings.Repeat("a", wire.MaxBodyBytes+over))
			if chunked {
				req.ContentLength = -1
				req.Body = io.NopCloser(req.Body)
			}
			got := r.later(req)
			if over == 0 {
				f := h.want(wire.Request)
				if len(*f.Body) != wire.MaxBodyBytes {
					t.Errorf("%d bytes", len(*f.Body))
				}
				h.answer(f.ID, 200, nil, "")
			}
			want := map[int]int{0: 200, 1: 413}[over]
			g := <-got
			broke := over == 1 && chunked && g.err != nil && g.status == 0 // while it still sent
			if g.status != want && !broke {
				t.Errorf("chunked %v, %d over: %d %q %v", chunked, over, g.status, g.body, g.err)
			} else if over == 1 && g.err == nil && g.body != `{"error":"body_too_large"}` {
				t.Errorf("%q", g.body)
			}
		}
	}
	if n := r.s.held.n.Load(); n != 0 {
		t.Errorf("%d bytes are still accounted for", n)
	}
}

// TestNoRoom: what is held for all is bounded.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.open(agentN(0))
	r.s.held.most = 1 << 20
	if got := r.do(r.request("POST", place(agentN(0), "/"), strings.Repeat("a", 1<<20+1))); got.status != 503 || got.body != `{"error":"relay_overloaded"}` {
		t.Errorf("%+v", got)
	}
	got := r.later(r.request("POST", place(agentN(0), "/"), strings.Repeat("a", 1<<20)))
	f := h.want(wire.Request)
	h.answer(f.ID, 200, nil, "")
	if g := <-got; g.status != 200 {
		t.Errorf("%+v", g)
	}
	h.raw(`{"type":"pong","x":"` + strings.Repeat("a", 2<<20) + `"}`)
	h.wantClose(closeOverloaded, "overloaded")
}
