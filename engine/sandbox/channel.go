package sandbox

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"osaurus/engine/sandbox/wire"
)

// peer is who opened a stream: which sandbox, known by the listener it came
// through, and which user there, as the guest's relay attests.
type peer struct {
	sandbox string
	agentID string // the one agent that lives there, "" where several do
	uid     uint32
	pid     int32
}

// Channel serves the streams of one sandbox.
type Channel struct {
	Sandbox  string
	AgentID  string // the only agent in it; "" in shared mode
	Nonce    string // of the boot
	Listener net.Listener
	Bridge   *Bridge

	// Proxy serves one proxy stream and closes it; nil refuses them.
	Proxy func(ctx context.Context, c net.Conn)
	// Control gets the control stream, once; nil refuses it.
	Control func(c net.Conn)

	attached atomic.Bool // the control stream came
}

// Serve answers until ctx ends or the listener fails, which is nil: the
// sandbox ended. When it returns every stream but the control stream is closed
// and every request has been answered or cancelled.
func (ch *Channel) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := &queue{addr: ch.Listener.Addr(), conns: make(chan net.Conn), done: ctx.Done()}
	srv := ch.Bridge.server(ctx)
	var group sync.WaitGroup
	group.Go(func() { _ = srv.Serve(queue) }) // ends with the queue
	stop := context.AfterFunc(ctx, func() {
		_ = ch.Listener.Close() // unblocks Accept
		_ = srv.Close()         // open streams have no other use
	})
	slots := make(chan struct{}, MaxConnections)
	for {
		c, err := ch.Listener.Accept()
		if err != nil {
			break
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = c.Close() // the cap; the guest sees an unreachable bridge
			continue
		}
		group.Go(func() { ch.take(ctx, &slotted{Conn: c, free: sync.OnceFunc(func() { <-slots })}, queue) })
	}
	cancel()
	stop()
	_ = srv.Close() // again, for when Accept failed first
	group.Wait()
	return nil
}

// take reads the first line of a stream and passes it on.
func (ch *Channel) take(ctx context.Context, c *slotted, bridge *queue) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	p, err := wire.ReadPreface(c)
	switch {
	case err == nil && p.Kind == wire.Bridge && p.Sandbox == ch.Sandbox:
		bridge.pass(&stream{c, peer{sandbox: ch.Sandbox, agentID: ch.AgentID, uid: p.UID, pid: p.PID}})
	case err == nil && p.Kind == wire.Proxy && p.Sandbox == ch.Sandbox && ch.Proxy != nil:
		ch.Proxy(ctx, c)
		_ = c.Close() // it may be closed already
	case err == nil && p.Kind == wire.Control && ch.Control != nil && sameNonce(p.Nonce, ch.Nonce) && ch.attached.CompareAndSwap(false, true):
		c.free()
		if stop() {
			ch.Control(c.Conn)
		}
	default:
		_ = c.Close()
	}
}

func sameNonce(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// slotted gives its place in the connection cap back when closed.
type slotted struct {
	net.Conn
	free func()
}

// Close implements net.Conn.
func (c *slotted) Close() error {
	c.free()
	return c.Conn.Close()
}

// CloseWrite ends our direction where the transport can, so that a last
// answer is read before the stream is gone.
func (c *slotted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// stream is a bridge stream after its preface.
type stream struct {
	*slotted
	peer peer
}

// refusedByLibrary follows the status line of net/http's own answers.
var refusedByLibrary = []byte("Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// Write implements net.Conn. What net/http itself answers to a head that it
// does not take becomes an answer of the bridge.
func (s *stream) Write(p []byte) (int, error) {
	line, rest, _ := bytes.Cut(p, []byte("\r\n"))
	if len(line) < len("HTTP/1.1 400") || !bytes.HasPrefix(rest, refusedByLibrary) {
		return s.slotted.Write(p)
	}
	status, err := strconv.Atoi(string(line[len("HTTP/1.1 "):len("HTTP/1.1 400")]))
	if err != nil {
		return s.slotted.Write(p)
	}
	text := http.StatusText(status)
	body := `{"error":"` + text + `"}`
	if _, err := fmt.Fprintf(s.slotted, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, text, len(body), body); err != nil {
		return 0, err
	}
	return len(p), nil
}

// queue is the listener that net/http serves.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	done  <-chan struct{}
}

func (q *queue) pass(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; the context ends the queue.
func (q *queue) Close() error { return nil }

// Addr implements net.Listener.
func (q *queue) Addr() net.Addr { return q.addr }

type peerKey struct{}

// server returns the HTTP server of one sandbox.
func (b *Bridge) server(ctx context.Context) *http.Server {
	return &http.Server{
		Handler: b, DisableGeneralOptionsHandler: true, ReadHeaderTimeout: HeaderTimeout, IdleTimeout: IdleTimeout, MaxHeaderBytes: MaxHeader - headSlop,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if s, ok := c.(*stream); ok {
				ctx = context.WithValue(ctx, peerKey{}, s.peer)
			}
			return ctx
		},
		ErrorLog: b.quiet,
	}
}

var errNoPeer = errors.New("sandbox: internal error: a request without a peer")

func peerOf(ctx context.Context) (peer, error) {
	p, ok := ctx.Value(peerKey{}).(peer)
	if !ok {
		return peer{}, errNoPeer
	}
	return p, nil
}
