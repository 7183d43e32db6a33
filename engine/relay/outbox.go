package relay

import (
	"context"
	"sync"
	"time"

	"osaurus/engine/relay/wire"
)

// writeTimeout bounds the sending of one message: a relay that does not read
// is as good as gone.
const writeTimeout = 30 * time.Second

// outbox sends the frames of a session, one at a time: what is urgent first,
// then of each answer in turn, so that a large one holds up none.
type outbox struct {
	wake chan struct{} // has room for one

	mu     sync.Mutex
	first  []*wire.Frame
	turn   []*answer // each at most once
	queued map[*answer]bool
	closed bool
}

func newOutbox() *outbox {
	return &outbox{wake: make(chan struct{}, 1), queued: map[*answer]bool{}}
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// urgent sends a small frame before any part of an answer. A relay that asks
// for more of them than it takes ends the socket.
func (o *outbox) urgent(f *wire.Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed && len(o.first) <= maxUrgent {
		o.first = append(o.first, f)
	}
	o.signal()
}

// ready says that an answer has something to send.
func (o *outbox) ready(a *answer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed && !o.queued[a] {
		o.queued[a] = true
		o.turn = append(o.turn, a)
	}
	o.signal()
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.first, o.turn = true, nil, nil
	clear(o.queued)
}

// flooded says that urgent frames were lost.
func (o *outbox) flooded() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.first) > maxUrgent
}

// pick takes the next frame, or nil.
func (o *outbox) pick() *wire.Frame {
	for {
		o.mu.Lock()
		if len(o.first) > 0 {
			f := o.first[0]
			o.first = o.first[1:]
			o.mu.Unlock()
			return f
		}
		if len(o.turn) == 0 {
			o.mu.Unlock()
			return nil
		}
		a := o.turn[0]
		o.turn = o.turn[1:]
		delete(o.queued, a)
		o.mu.Unlock()
		f, more := a.next()
		if more {
			o.ready(a)
		}
		if f != nil {
			return f
		}
	}
}

// run sends until ctx ends or the socket fails.
func (o *outbox) run(ctx context.Context, conn Conn) error {
	for {
		if o.flooded() {
			return errProtocol
		}
		f := o.pick()
		if f == nil {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-o.wake:
			}
			continue
		}
		raw, err := f.Marshal()
		if err != nil {
			return err
		}
		once, cancel := context.WithTimeout(ctx, writeTimeout)
		err = conn.Write(once, raw)
		cancel()
		if err != nil {
			return err
		}
	}
}
