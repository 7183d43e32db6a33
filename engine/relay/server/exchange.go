package server

import (
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"osaurus/engine/address"
	"osaurus/engine/relay/wire"
)

// phase is how far an answer is.
//
//	pending ──response──▶ done
//	pending ──stream_start──▶ streaming ──stream_end──▶ done
//	pending, streaming ──▶ broken
type phase uint8

const (
	pending phase = iota + 1
	streaming
	done
	broken
)

// cause is why an answer broke.
type cause uint8

const (
	tunnelClosed cause = iota + 1
	badFrame           // the host sent what is no frame
	badAnswer          // the host's answer cannot be sent on
	slowCaller
	timedOut
	callerGone
)

// exchange is one request in flight and what came back for it. The tunnel's
// reader delivers; the goroutine of the caller takes.
type exchange struct {
	id    string
	agent address.Address
	held  *held
	wake  chan struct{} // has room for one
	hurry func()        // frees the taker, who may be writing to a slow caller

	mu     sync.Mutex
	phase  phase
	cause  cause
	head   *wire.Frame // the first answer
	queue  []string
	queued int
	last   time.Time // when the host's last frame came
}

func (e *exchange) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// deliver takes a frame of the host. over says that no other is wanted, cancel
// that the host is to be told.
func (e *exchange) deliver(f *wire.Frame) (over, cancel bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.signal()
	e.last = time.Now()
	switch {
	case e.phase == pending && (f.Type == wire.Response || f.Type == wire.StreamStart):
		if !representable(f) {
			e.breakLocked(badAnswer)
			return true, f.Type == wire.StreamStart
		}
		e.head, e.phase = f, streaming
		if f.Type == wire.Response || bodiless(f.Status) {
			e.phase = done
		}
		if f.Type == wire.Response && f.Body != nil && !bodiless(f.Status) && !e.takeLocked(*f.Body) {
			e.head = nil
			e.breakLocked(slowCaller)
		}
		return e.phase != streaming, false
	case e.phase == streaming && f.Type == wire.StreamChunk:
		if e.queued+len(f.Data) > maxSlow || !e.takeLocked(f.Data) {
			e.breakLocked(slowCaller)
			return true, true
		}
	case e.phase == streaming && f.Type == wire.StreamEnd:
		e.phase = done
		return true, false
	}
	return false, false
}

func (e *exchange) takeLocked(data string) bool {
	if data == "" {
		return true
	}
	if !e.held.take(len(data)) {
		return false
	}
	e.queue = append(e.queue, data)
	e.queued += len(data)
	return true
}

func (e *exchange) breakLocked(why cause) {
	e.phase, e.cause = broken, why
	e.held.release(e.queued)
	e.queue, e.queued = nil, 0
	if e.hurry != nil && why == slowCaller {
		e.hurry()
	}
}

// fail breaks an answer that is not finished. What was queued before a tunnel
// closed is still taken.
func (e *exchange) fail(why cause) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.phase == done || e.phase == broken:
		return
	case why == tunnelClosed:
		e.phase, e.cause = broken, why
	default:
		e.breakLocked(why)
	}
	e.signal()
}

// take returns what there is: the head is nil until the host answered.
func (e *exchange) take() (p phase, head *wire.Frame, parts []string, last time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	parts = e.queue
	e.held.release(e.queued)
	e.queue, e.queued = nil, 0
	return e.phase, e.head, parts, e.last
}

func (e *exchange) why() cause {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cause
}

// bodiless are answers whose body is dropped (section 6).
func bodiless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusResetContent || status == http.StatusNotModified
}

// representable reports whether HTTP can carry an answer.
func representable(f *wire.Frame) bool {
	if f.Status < 200 || f.Status > 599 {
		return false
	}
	for name, value := range f.Headers {
		bytes, ok := toLatin1(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(bytes) {
			return false
		}
	}
	return true
}
