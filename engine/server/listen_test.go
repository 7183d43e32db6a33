package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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
func (p piped) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1337} }

// noticed tells when a connection was closed.
type noticed struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
}

func (c *noticed) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// inMemory serves over a pipe, in fake time.
func inMemory(t *testing.T, f func(near net.Conn, far *noticed)) {
	t.Helper()
	t.Parallel()
	h := newHost(t)
	synctest.Test(t, func(t *testing.T) {
		p := piped{make(chan net.Conn), make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Serve(ctx, p) }()
		near, far := net.Pipe()
		c := &noticed{Conn: far, closed: make(chan struct{})}
		p.conns <- c
		f(near, c)
		_ = near.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestIdleConnectionAnswers: a connection that lay idle for longer than one
// write may take answers the next request, one without a body too.
func TestIdleConnectionAnswers(t *testing.T) {
	inMemory(t, func(near net.Conn, _ *noticed) {
		r := bufio.NewReader(near)
		for i, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodGet} {
			if i > 0 {
				<-time.After(writeTimeout + (idleTimeout-writeTimeout)/2)
			}
			if _, err := fmt.Fprintf(near, "%s / HTTP/1.1\r\nHost: localhost:1337\r\n\r\n", method); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				t.Fatalf("request %d, %s: %v", i, method, err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestPeerWhoDoesNotRead: an answer waits so long to be taken, whether or not
// it has a body.
func TestPeerWhoDoesNotRead(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		t.Run(method, func(t *testing.T) {
			inMemory(t, func(near net.Conn, far *noticed) {
				if _, err := fmt.Fprintf(near, "%s / HTTP/1.1\r\nHost: localhost:1337\r\n\r\n", method); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				<-far.closed
				if waited := time.Since(began); waited != writeTimeout {
					t.Errorf("the host waited %v", waited)
				}
			})
		})
	}
}
