package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"osaurus/engine/relay/wire"
)

// TestTunnelCap: so many sockets from however many sources, and one more when
// one has left.
func TestTunnelCap(t *testing.T) {
	t.Parallel()
	l := newLimits(time.Now)
	source := func(n int) string { return fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255) }
	for n := range maxTunnels {
		if !l.enter(source(n)) {
			t.Fatalf("socket %d was refused", n)
		}
	}
	if l.enter(source(maxTunnels)) {
		t.Error("one more than there may be")
	}
	l.leave(source(7))
	if !l.enter(source(maxTunnels)) {
		t.Error("refused although one had left")
	}
}

// TestKeysCap: so many sources are told apart, and the others are one.
func TestKeysCap(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newLimits(func() time.Time { return now })
	spend := func(source string) (n int) {
		for ok := true; ok && n <= statsPerIP; n++ {
			ok = l.stats.Allow(source)
		}
		return n - 1
	}
	for n := range maxKeys - 1 {
		l.stats.Allow(fmt.Sprint(n))
	}
	if got := spend("last"); got != statsPerIP {
		t.Errorf("the last source with a place of its own: %d", got)
	}
	if first, second := spend("more"), spend("yet more"); first != statsPerIP || second != 0 {
		t.Errorf("two sources without one: %d and %d", first, second)
	}
}

// TestHeaderSize: net/http allows 4 KiB beyond the limit.
func TestHeaderSize(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for size, want := range map[int]int{maxHeaderSize - 1<<10: http.StatusBadGateway, maxHeaderSize + 8<<10: http.StatusRequestHeaderFieldsTooLarge} {
		req := r.request(http.MethodGet, place(agentN(0), "/"), "")
		req.Header.Set("X-Padding", strings.Repeat("x", size))
		if got := r.do(req); got.status != want {
			t.Errorf("a head of %d bytes: %d", size, got.status)
		}
	}
}

// piped is a listener of connections in memory.
type piped struct {
	conns chan net.Conn
	ended chan struct{}
}

func (p piped) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p piped) Close() error   { close(p.ended); return nil }
func (p piped) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// slow sends text and then nothing, and returns how long the relay waited.
func (b *bubble) slow(p piped, text string) (time.Duration, string) {
	near, far := net.Pipe()
	p.conns <- far
	began := time.Now()
	if _, err := io.WriteString(near, text); err != nil {
		b.t.Fatal(err)
	}
	var said string
	if resp, err := http.ReadResponse(bufio.NewReader(near), nil); err == nil {
		raw, _ := io.ReadAll(resp.Body)
		said = fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(raw)))
	}
	waited := time.Since(began)
	_ = near.Close()
	synctest.Wait()
	return waited, said
}

// TestSlowCallers: a head and a body have their time, and a larger body more.
func TestSlowCallers(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.open(agentN(0))
		p := piped{make(chan net.Conn), make(chan struct{})}
		srv := b.s.HTTP(b.s)
		b.w.Go(func() { _ = srv.Serve(p) })
		defer func() { _ = srv.Close() }()
		host := "Host: " + agentN(0).addr.Lower() + "." + testDomain + "\r\n"
		if waited, _ := b.slow(p, "GET / HTTP/1.1\r\n"+host); waited != headerTime {
			t.Errorf("half a head: %v", waited)
		}
		for size, more := range map[int]time.Duration{bodyPace - 1: 0, bodyPace: time.Second, 3 * bodyPace: 3 * time.Second} {
			waited, said := b.slow(p, fmt.Sprintf("POST / HTTP/1.1\r\n%sContent-Length: %d\r\n\r\nhalf", host, size))
			if waited != bodyTime+more || said != `400 {"error":"body_unreadable"}` {
				t.Errorf("half a body of %d bytes: %v, %s", size, waited, said)
			}
		}
	})
}

// taken tells when a connection was closed.
type taken struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
}

func (c *taken) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestCallerWhoDoesNotRead: an answer waits so long for its caller.
func TestCallerWhoDoesNotRead(t *testing.T) {
	inBubble(t, func(b *bubble) {
		m := b.open(agentN(0))
		p := piped{make(chan net.Conn), make(chan struct{})}
		srv := b.s.HTTP(b.s)
		b.w.Go(func() { _ = srv.Serve(p) })
		defer func() { _ = srv.Close() }()
		near, far := net.Pipe()
		defer func() { _ = near.Close() }()
		c := &taken{Conn: far, closed: make(chan struct{})}
		p.conns <- c
		if _, err := io.WriteString(near, "GET / HTTP/1.1\r\nHost: "+agentN(0).addr.Lower()+"."+testDomain+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		asked := b.take(m)[0]
		b.put(m, &wire.Frame{Type: wire.Response, ID: asked.ID, Status: http.StatusOK, Body: new("x")})
		began := time.Now()
		<-c.closed
		if waited := time.Since(began); waited != callerTime {
			t.Errorf("the relay waited %v", waited)
		}
	})
}
