package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"osaurus/engine/fault"
)

// Serve answers on every listener until ctx ends, then drains streams for at
// most ten seconds. It returns when all listeners are closed.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	if len(listeners) == 0 {
		return errors.New("server: nothing to listen on")
	}
	s.Announce(listeners[0])
	srv := &http.Server{
		// An answer's deadline begins with its request and moves with each write.
		Handler: s, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, WriteTimeout: writeTimeout, MaxHeaderBytes: MaxHeaderBytes,
		DisableGeneralOptionsHandler: true, BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	gate := &connections{most: s.c.Settings().MaxConnections, bySource: map[netip.Addr]int{}}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- srv.Serve(&listener{l, gate}) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		err = errors.Join(err, srv.Close())
	}
	s.tellRest()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// Announce says where the server is going to listen, so that Port is right
// before Serve runs.
func (s *Server) Announce(l net.Listener) {
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		s.port.Store(int64(a.Port))
	}
}

// Port returns where the server listens.
func (s *Server) Port() int { return int(s.port.Load()) }

// connections counts live connections: all, and by source.
type connections struct {
	most int

	mu       sync.Mutex
	live     int
	remote   int
	bySource map[netip.Addr]int
}

// admit takes a slot. Loopback always finds its reserved ones.
func (c *connections) admit(a netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live >= c.most {
		return false
	}
	if !a.IsLoopback() {
		if c.remote >= c.most-reservedForLoopback || c.bySource[a] >= maxSourceConns {
			return false
		}
		c.remote++
		c.bySource[a]++
	}
	c.live++
	return true
}

func (c *connections) leave(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live--
	if a.IsLoopback() {
		return
	}
	c.remote--
	if c.bySource[a]--; c.bySource[a] == 0 {
		delete(c.bySource, a)
	}
}

// listener turns connections over the cap away.
type listener struct {
	net.Listener
	gate *connections
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := remoteAddr(c)
		if l.gate.admit(addr) {
			return &conn{Conn: c, leave: sync.OnceFunc(func() { l.gate.leave(addr) })}, nil
		}
		overloaded(c)
	}
}

func remoteAddr(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

type conn struct {
	net.Conn
	leave func()

	framing framing
	served  int64 // requests that reached the handler; it runs one at a time
}

type connKey struct{}

// twoLengths reports whether a request gave its length twice. It is asked once
// for each.
func twoLengths(r *http.Request) bool {
	c, ok := r.Context().Value(connKey{}).(*conn)
	if !ok {
		return false
	}
	c.served++
	return c.framing.refuses(c.served)
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.framing.feed(p[:n])
	return n, err
}

// Write implements net.Conn. What net/http itself says of a head it refuses
// becomes what we say.
func (c *conn) Write(p []byte) (int, error) {
	code, refused := refusedHead(p)
	if !refused {
		return c.Conn.Write(p)
	}
	if _, err := c.Conn.Write(rawReply(code)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// refusedHead recognises net/http's own answers, which have these two fields
// and no date.
func refusedHead(p []byte) (fault.Code, bool) {
	head, _, own := bytes.Cut(p[:min(len(p), 512)], []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"))
	switch {
	case !own:
	case bytes.HasPrefix(head, []byte("HTTP/1.1 400 ")):
		return fault.BadRequest, true
	case bytes.HasPrefix(head, []byte("HTTP/1.1 431 ")):
		return fault.HeadersTooLarge, true
	}
	return 0, false
}

// rawReply is an answer outside net/http.
func rawReply(code fault.Code) []byte {
	r := fault.ReplyTo(code)
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n", r.Status, http.StatusText(r.Status), r.ContentType, len(r.Body))
	if r.Status == http.StatusServiceUnavailable {
		head += "Retry-After: 1\r\n"
	}
	return append([]byte(head+"\r\n"), r.Body...)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// lingering bounds the turned-away connections that wait for their reply to
// be read; beyond it they are closed at once.
const maxLingering = 256

var lingering = make(chan struct{}, maxLingering)

// overloaded answers without reading: the reply fits every socket buffer, so
// the accept loop is not held up. Closing at once with a request unread would
// reset the connection and lose the reply, so the close waits a little.
func overloaded(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_, _ = c.Write(rawReply(fault.ServerOverloaded)) // it is turned away either way
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	select {
	case lingering <- struct{}{}:
		time.AfterFunc(time.Second, func() {
			_ = c.Close()
			<-lingering
		})
	default:
		_ = c.Close()
	}
}
