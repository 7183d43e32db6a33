package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// recorder is a TCP proxy that keeps what crosses it.
type recorder struct {
	addr     string
	listener net.Listener
	hangUp   context.CancelFunc
	group    sync.WaitGroup

	mu   sync.Mutex
	seen bytes.Buffer
	sent bytes.Buffer // the caller's half only
	cut  bool
}

func newRecorder(ctx context.Context, to string) (*recorder, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, hangUp := context.WithCancel(ctx)
	r := &recorder{addr: l.Addr().String(), listener: l, hangUp: hangUp}
	r.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.group.Go(func() { r.carry(ctx, c, to) })
		}
	})
	return r, nil
}

func (r *recorder) close() {
	_ = r.listener.Close() // nothing to save
	r.hangUp()
	r.group.Wait()
}

func (r *recorder) carry(ctx context.Context, near net.Conn, to string) {
	defer func() { _ = near.Close() }()
	far, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = far.Close() }()
	defer context.AfterFunc(ctx, func() { _ = errors.Join(near.Close(), far.Close()) })()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(io.MultiWriter(far, keeper{r, true}), near)
		if half, ok := far.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // it may be gone already
		}
	})
	_, _ = io.Copy(io.MultiWriter(cutter{near, r}, keeper{r, false}), far)
	_ = near.Close()
	both.Wait()
}

type keeper struct {
	r      *recorder
	caller bool
}

func (k keeper) Write(p []byte) (int, error) {
	k.r.mu.Lock()
	defer k.r.mu.Unlock()
	if k.caller {
		k.r.sent.Write(p)
	}
	return k.r.seen.Write(p)
}

// cutter drops the end of a stream: everything from the last frame on.
type cutter struct {
	net.Conn
	r *recorder
}

func (c cutter) Write(p []byte) (int, error) {
	c.r.mu.Lock()
	cut := c.r.cut
	c.r.mu.Unlock()
	if i := bytes.Index(p, []byte(`"fin":true`)); cut && i >= 0 && bytes.Contains(p, []byte("data: ")) {
		_, _ = c.Conn.Write(p[:bytes.LastIndex(p[:i], []byte("data: "))])
		return 0, errors.Join(io.ErrClosedPipe, c.Close())
	}
	return c.Conn.Write(p)
}

func (r *recorder) cutStreams(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = on
}

func (r *recorder) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.seen.Bytes())
}

// lastCall finds the body of the last sealed call the caller sent.
func (r *recorder) lastCall() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := bytes.LastIndex(r.sent.Bytes(), []byte("POST /secure/call"))
	if i < 0 {
		return nil
	}
	_, body, ok := bytes.Cut(r.sent.Bytes()[i:], []byte("\r\n\r\n"))
	if !ok {
		return nil
	}
	return bytes.Clone(body)
}
