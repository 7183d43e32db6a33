package sandbox

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestBlocked(t *testing.T) {
	t.Parallel()
	for _, a := range []string{
		"0.0.0.0", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "fc00::1", "fd12::1", "fe80::1", "febf::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1%eth0", "2606:4700::1%eth0",
		"", "x", "1.2.3", "0x7f.0.0.1", "127.1", "2130706433", "1.2.3.4:80", "[::1]", "010.0.0.1",
	} {
		if !Blocked(a) {
			t.Errorf("%q is not blocked", a)
		}
	}
	for _, a := range []string{"1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "2606:4700::1111", "2001:4860::8888", "::ffff:1.1.1.1", "fec0::1"} {
		if Blocked(a) {
			t.Errorf("%q is blocked", a)
		}
	}
}

// proxied is an egress proxy with recording ports; requests go through pipes.
type proxied struct {
	Egress
	lookup  []string
	dialed  []string
	refused []int
	answer  []string // of Lookup
	origin  func(net.Conn)
}

func newProxied(domains ...string) *proxied {
	p := &proxied{answer: []string{"93.184.216.34"}, origin: func(c net.Conn) { c.Close() }}
	p.Domains = func() []string { return domains }
	p.Lookup = func(_ context.Context, host string) ([]string, error) {
		p.lookup = append(p.lookup, host)
		return p.answer, nil
	}
	p.Dial = func(_ context.Context, address string) (net.Conn, error) {
		p.dialed = append(p.dialed, address)
		a, b := net.Pipe()
		go p.origin(b)
		return a, nil
	}
	p.Refused = func(status int) { p.refused = append(p.refused, status) }
	return p
}

// ask sends a raw request and returns the status line's code and the answer.
func (p *proxied) ask(t *testing.T, raw string) (int, string) {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); p.Serve(context.Background(), b); b.Close() }()
	go func() { _, _ = io.WriteString(a, raw) }()
	all, _ := io.ReadAll(a)
	a.Close()
	<-done
	code := 0
	_, _ = fmt.Sscanf(string(all), "HTTP/1.1 %d", &code)
	return code, string(all)
}

// TestEgressPublic: every public host, and no other.
func TestEgressPublic(t *testing.T) {
	t.Parallel()
	open := true
	p := newProxied()
	p.Public = func() bool { return open }
	for host, want := range map[string]int{
		"example.com:443": 200, "EXAMPLE.com.:443": 200, "93.184.216.34:443": 200, "[2606:4700::1111]:443": 200,
		"localhost:80": 403, "router:80": 403, "*.example.com:80": 403, "127.0.0.1:80": 403, "10.1.2.3:80": 403, "[::1]:80": 403, "[::ffff:10.0.0.1]:80": 403, "127.1:80": 403, "0x7f000001:80": 403, "2130706433:80": 403,
	} {
		if code, text := p.ask(t, "CONNECT "+host+" HTTP/1.1\r\nHost: x\r\n\r\n"); code != want {
			t.Errorf("%s: %s", host, text)
		}
	}
	p.answer = []string{"192.168.1.1"} // a public name that leads inward
	if code, text := p.ask(t, "CONNECT inward.example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n"); code != 403 {
		t.Error(text)
	}
	open = false
	if code, text := p.ask(t, "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n"); code != 403 {
		t.Error(text)
	}
}

func TestEgressTargets(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]struct {
		code   int
		dialed string
	}{
		"CONNECT example.com:443":            {200, "93.184.216.34:443"},
		"CONNECT EXAMPLE.com.:443":           {200, "93.184.216.34:443"},
		"CONNECT a.wild.org:8443":            {200, "93.184.216.34:8443"},
		"CONNECT wild.org:443":               {403, ""},
		"CONNECT example.com.evil.net:443":   {403, ""},
		"CONNECT 93.184.216.34:443":          {403, ""},
		"CONNECT [2606:4700::1111]:443":      {403, ""},
		"CONNECT localhost:80":               {403, ""},
		"CONNECT example.com":                {400, ""},
		"CONNECT example.com:":               {400, ""},
		"CONNECT example.com:0":              {400, ""},
		"CONNECT example.com:65536":          {400, ""},
		"CONNECT example.com:http":           {400, ""},
		"CONNECT :443":                       {400, ""},
		"GET https://example.com/":           {400, ""},
		"GET ftp://example.com/":             {400, ""},
		"GET /":                              {400, ""},
		"GET http://user@example.com/":       {400, ""},
		"GET http://example.org/":            {403, ""},
		"GET http://127.0.0.1/":              {403, ""},
		"GET http://169.254.169.254/latest/": {403, ""},
		"NONSENSE":                           {400, ""},
	} {
		p := newProxied("example.com", "*.wild.org")
		request := raw + " HTTP/1.1\r\nHost: example.com\r\n\r\n"
		if raw == "NONSENSE" {
			request = "\x16\x03\x01\r\n\r\n"
		}
		code, answer := p.ask(t, request)
		if code != want.code || strings.Join(p.dialed, " ") != want.dialed {
			t.Errorf("%s: %d %v", raw, code, p.dialed)
		}
		if code == 403 && (len(p.lookup) > 0 || len(p.refused) != 1 || strings.Contains(answer, "example.org")) {
			t.Errorf("%s: looked up %v, %v, %q", raw, p.lookup, p.refused, answer)
		}
	}
}

// TestEgressAddresses: the first address that is not blocked is dialled as an
// address; a name that leads inside is refused whatever the list says.
func TestEgressAddresses(t *testing.T) {
	t.Parallel()
	const connect = "CONNECT example.com:443 HTTP/1.1\r\n\r\n"
	p := newProxied("example.com")
	p.answer = []string{"127.0.0.1", "10.0.0.1", "1.1.1.1", "2.2.2.2"}
	if code, _ := p.ask(t, connect); code != 200 || len(p.dialed) != 1 || p.dialed[0] != "1.1.1.1:443" || len(p.lookup) != 1 {
		t.Errorf("%d %v, %d look-ups", code, p.dialed, len(p.lookup))
	}
	for _, inside := range [][]string{{"127.0.0.1"}, {"::1", "fe80::1"}, {"::ffff:169.254.169.254"}, {"nonsense"}} {
		p := newProxied("example.com")
		p.answer = inside
		if code, _ := p.ask(t, connect); code != 403 || len(p.dialed) != 0 {
			t.Errorf("%v: %d", inside, code)
		}
	}
	// A resolver that changes its answer: only the first counts.
	p = newProxied("example.com")
	calls := 0
	p.Lookup = func(context.Context, string) ([]string, error) {
		calls++
		return [][]string{{"1.1.1.1"}, {"127.0.0.1"}}[calls-1], nil
	}
	if code, _ := p.ask(t, connect); code != 200 || calls != 1 || p.dialed[0] != "1.1.1.1:443" {
		t.Errorf("%d, %d look-ups, %v", code, calls, p.dialed)
	}
	p = newProxied("example.com")
	p.Lookup = func(context.Context, string) ([]string, error) { return nil, errors.New("no such host") }
	if code, _ := p.ask(t, connect); code != 502 {
		t.Error(code)
	}
	p = newProxied("example.com")
	p.Dial = func(context.Context, string) (net.Conn, error) { return nil, errors.New("refused") }
	if code, _ := p.ask(t, connect); code != 502 {
		t.Error(code)
	}
	if code, _ := newProxied().ask(t, connect); code != 403 {
		t.Errorf("without domains: %d", code)
	}
}

func TestEgressConnectTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProxied("example.com")
		p.Dial = func(ctx context.Context, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		begin := time.Now()
		if code, _ := p.ask(t, "CONNECT example.com:443 HTTP/1.1\r\n\r\n"); code != 502 || time.Since(begin) != ConnectTimeout {
			t.Error(code, time.Since(begin))
		}
	})
}

func TestEgressCredential(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]int{
		"": 407, "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("good:")): 200, "Proxy-Authorization: Bearer good": 200, "Proxy-Authorization: bearer  good": 200,
		"Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bad:")): 407, "Proxy-Authorization: Bearer bad": 407, "Proxy-Authorization: Basic !": 407,
	} {
		p := newProxied("example.com")
		p.Credential = func(token string) bool { return token == "good" }
		code, answer := p.ask(t, "CONNECT example.com:443 HTTP/1.1\r\n"+header+"\r\n\r\n")
		if code != want || code == 407 && !strings.Contains(answer, "Proxy-Authenticate: Basic realm=\"osaurus-sandbox\"") {
			t.Errorf("%q: %q", header, answer)
		}
	}
}

// TestEgressForward: an absolute URI becomes a request of the origin, without
// the headers that are the proxy's.
func TestEgressForward(t *testing.T) {
	t.Parallel()
	p := newProxied("example.com")
	got := make(chan *http.Request, 1)
	body := make(chan string, 1)
	p.origin = func(c net.Conn) {
		defer c.Close()
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			t.Error(err)
			return
		}
		raw, _ := io.ReadAll(r.Body)
		got <- r
		body <- string(raw)
		_, _ = io.WriteString(c, "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nKeep-Alive: x\r\nX-Kept: y\r\n\r\nok")
	}
	code, answer := p.ask(t, "POST http://example.com/a%2Fb?c=d HTTP/1.1\r\nHost: other.example.net\r\nProxy-Authorization: Bearer t\r\nProxy-Connection: keep-alive\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-Kept: 2\r\nContent-Length: 4\r\n\r\nbody")
	r := <-got
	if code != 201 || !strings.HasSuffix(answer, "ok") || strings.Contains(answer, "Keep-Alive") || !strings.Contains(answer, "X-Kept: y") {
		t.Errorf("%q", answer)
	}
	if r.RequestURI != "/a%2Fb?c=d" || r.Host != "example.com" || r.Header.Get("Proxy-Authorization") != "" || r.Header.Get("X-Hop") != "" || r.Header.Get("X-Kept") != "2" || <-body != "body" {
		t.Errorf("%+v", r)
	}
	if p.dialed[0] != "93.184.216.34:80" {
		t.Error(p.dialed)
	}
}

func TestEgressTunnel(t *testing.T) {
	t.Parallel()
	p := newProxied("example.com")
	p.origin = func(c net.Conn) { _, _ = io.Copy(c, io.LimitReader(c, 4)); c.Close() }
	if _, answer := p.ask(t, "CONNECT example.com:443 HTTP/1.1\r\n\r\nping"); !strings.HasSuffix(answer, "\r\n\r\nping") {
		t.Errorf("%q", answer)
	}
}

// TestEgressRecheck: a stream ends when its host is allowed no more, and those
// of other hosts go on.
func TestEgressRecheck(t *testing.T) {
	t.Parallel()
	domains := []string{"example.com", "example.org"}
	var p Egress
	p.Domains = func() []string { return domains }
	p.Lookup = func(context.Context, string) ([]string, error) { return []string{"93.184.216.34"}, nil }
	p.Dial = func(context.Context, string) (net.Conn, error) {
		a, b := net.Pipe()
		go func() { _, _ = io.Copy(b, b); b.Close() }()
		return a, nil
	}
	tunnel := func(host string) (func(text string) string, <-chan struct{}) {
		a, b := net.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); p.Serve(context.Background(), b); b.Close() }()
		echo := func(text string) string {
			go func() { _, _ = io.WriteString(a, text) }()
			buf := make([]byte, 100)
			n, _ := a.Read(buf)
			return string(buf[:n])
		}
		if got := echo("CONNECT " + host + ":443 HTTP/1.1\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") || echo("ping") != "ping" {
			t.Fatalf("%s: %q", host, got)
		}
		return echo, done
	}
	_, cut := tunnel("example.com")
	echo, done := tunnel("example.org")
	domains = domains[1:]
	p.Recheck()
	<-cut
	if echo("still") != "still" {
		t.Error("an allowed host's stream was ended")
	}
	domains = nil
	p.Recheck()
	<-done
	if len(p.open) != 0 {
		t.Errorf("%d streams are remembered", len(p.open))
	}
}

func TestEgressHeadLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pad, code int }{{maxProxyHead - 200, 200}, {maxProxyHead + 1, 400}} {
		p := newProxied("example.com")
		if code, _ := p.ask(t, "CONNECT example.com:443 HTTP/1.1\r\nX: "+strings.Repeat("x", c.pad)+"\r\n\r\n"); code != c.code {
			t.Errorf("%d bytes: %d", c.pad, code)
		}
	}
}
