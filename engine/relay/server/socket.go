package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/coder/websocket"

	"osaurus/engine/relay/wire"
)

// conn is a WebSocket to a host. Read returns text messages only and is called
// by one goroutine; Write and Close are called by another.
type conn interface {
	Read(ctx context.Context) ([]byte, error)
	Write(ctx context.Context, message []byte) error
	// Close sends a status code (RFC 6455 section 7.4) and closes.
	Close(code int, reason string) error
	// Abort closes without a word.
	Abort()
	// Trust lifts the limit on messages to that of a host that authenticated.
	Trust()
}

// Status codes of WebSockets, the protocol's own among them.
const (
	closeNormal     = 1000
	closeUnexpected = 1011
	closeRestart    = 1012
	closeOverloaded = 1013
	closeShape      = 4000
	closeAuth       = 4001
)

// errOverloaded ends a socket whose message finds no room.
var errOverloaded = errors.New("relay: too much is held for others")

// socket is a conn over a real WebSocket.
type socket struct {
	c    *websocket.Conn
	held *held
}

func newSocket(c *websocket.Conn, h *held) *socket {
	c.SetReadLimit(maxAuthFrame)
	return &socket{c, h}
}

// plain is what a message may have without being accounted for.
const plain = 64 << 10

// buffers are lent to messages while they are read.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Read implements conn. Binary messages are passed over (section 1). A message
// that is large has to find room. One that never ends is bounded by the answers
// to auth and ping that cannot come meanwhile.
func (s *socket) Read(ctx context.Context) ([]byte, error) {
	for {
		kind, r, err := s.c.Reader(ctx)
		if err != nil {
			return nil, err
		}
		b := buffers.Get().(*bytes.Buffer) //nolint:errcheck,forcetypeassert // the pool has nothing else
		b.Reset()
		err = s.read(b, r)
		message := bytes.Clone(b.Bytes())
		if b.Cap() <= 1<<20 {
			buffers.Put(b)
		}
		if err != nil || kind == websocket.MessageText {
			return message, err
		}
	}
}

func (s *socket) read(b *bytes.Buffer, r io.Reader) error {
	limited := &io.LimitedReader{R: r, N: plain}
	n, err := b.ReadFrom(limited)
	if err != nil || n < plain {
		return err
	}
	taken := 0
	defer func() { s.held.release(taken) }()
	for {
		if !s.held.take(plain) {
			return errOverloaded
		}
		taken += plain
		limited.N = plain
		if n, err = b.ReadFrom(limited); err != nil || n < plain {
			return err
		}
	}
}

// Write implements conn.
func (s *socket) Write(ctx context.Context, message []byte) error {
	return s.c.Write(ctx, websocket.MessageText, message)
}

// Close implements conn.
func (s *socket) Close(code int, reason string) error {
	return s.c.Close(websocket.StatusCode(code), reason)
}

// Abort implements conn.
func (s *socket) Abort() { _ = s.c.CloseNow() }

// Trust implements conn.
func (s *socket) Trust() { s.c.SetReadLimit(wire.MaxFrame) }
