package server

import (
	"context"
	"sync"
	"time"
)

// outbox sends the frames of a tunnel in order. It has a goroutine only while
// there is something to send.
type outbox struct {
	conn conn

	mu      sync.Mutex
	queue   [][]byte
	bytes   int
	running bool
	closed  bool // nothing more is taken
	broken  bool // nothing more is sent
	code    int  // to close with, once the queue is empty
	reason  string
	done    sync.WaitGroup
}

// put queues a frame. It reports false when the tunnel is closing, or its host
// does not read.
func (o *outbox) put(raw []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.bytes+len(raw) > maxOutgoing {
		return false
	}
	o.addLocked(raw)
	return true
}

func (o *outbox) addLocked(raw []byte) {
	if raw != nil {
		o.queue = append(o.queue, raw)
		o.bytes += len(raw)
	}
	if !o.running {
		o.running = true
		o.done.Go(o.run)
	}
}

// shut sends what is queued, then last, and closes. Only the first counts.
func (o *outbox) shut(code int, reason string, last []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed, o.code, o.reason = true, code, reason
	o.addLocked(last)
}

// seal takes nothing more. Unless the socket is being shut, the host is gone,
// and what is queued with it.
func (o *outbox) seal() {
	o.mu.Lock()
	shutting := o.closed
	o.closed = true
	o.mu.Unlock()
	if !shutting {
		o.abort()
	}
}

// abort closes at once.
func (o *outbox) abort() {
	o.mu.Lock()
	o.closed, o.broken, o.queue, o.bytes = true, true, nil, 0
	o.mu.Unlock()
	o.conn.Abort()
}

// next takes a frame; nil when there is none.
func (o *outbox) next() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		o.running = false
		return nil
	}
	raw := o.queue[0]
	o.queue[0] = nil
	o.queue = o.queue[1:]
	o.bytes -= len(raw)
	return raw
}

func (o *outbox) run() {
	late := time.AfterFunc(writeTime, o.abort) // a host that does not read is as good as gone
	for raw := o.next(); raw != nil; raw = o.next() {
		late.Reset(writeTime)
		if o.conn.Write(context.Background(), raw) != nil {
			o.abort()
		}
	}
	late.Stop()
	o.mu.Lock()
	last := o.closed && !o.broken && !o.running && o.code != 0
	code := o.code
	if last {
		o.code = 0
	}
	o.mu.Unlock()
	if last {
		_ = o.conn.Close(code, o.reason) // it may be gone
		o.conn.Abort()
	}
}
