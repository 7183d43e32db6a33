package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"osaurus/engine/fault"
)

// budget bounds the bytes of unauthorised bodies held in memory at once.
type budget struct{ used atomic.Int64 }

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > maxUnauthorised {
		b.used.Add(-n)
		return false
	}
	return true
}

func tooLarge(seen, limit int64) error {
	return fault.WithText(fault.PayloadTooLarge, fmt.Sprintf("Request body too large (%d > %d bytes)", seen, limit))
}

// body counts what a request really sends, whatever it declared, keeps its
// deadline moving with what arrives, and charges the budget while nobody has
// been authorised.
type body struct {
	in      io.ReadCloser
	limit   int64
	seen    int64
	control http.ResponseController
	timed   bool // reading has a deadline: not inside the channel
	now     func() time.Time
	start   time.Time
	budget  *budget // nil once authorised
	charged int64
	err     error
}

// Read returns fault.PayloadTooLarge, fault.ServerOverloaded, or what the
// connection returned.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	b.extend()
	n, err := b.in.Read(p)
	b.seen += int64(n)
	switch {
	case b.seen > b.limit:
		b.err = tooLarge(b.seen, b.limit)
	case !b.charge(int64(n)):
		b.err = &fault.Error{Code: fault.ServerOverloaded, RetryAfter: time.Second}
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.err = fault.BadRequest
	case errors.Is(err, io.EOF):
		b.done()
		return n, err
	case err != nil:
		b.err = fault.New(fault.BadRequest, err)
	default:
		return n, nil
	}
	return 0, b.err
}

// charge takes n bytes from the budget while nobody has been authorised.
func (b *body) charge(n int64) bool {
	if b.budget == nil {
		return true
	}
	if !b.budget.take(n) {
		return false
	}
	b.charged += n
	return true
}

// extend allows one second for each bodyRate bytes beyond the base.
func (b *body) extend() {
	if b.timed {
		allowed := bodyTimeout + time.Duration(b.seen/bodyRate+1)*time.Second
		_ = b.control.SetReadDeadline(b.start.Add(allowed)) // not every writer has one
	}
}

// done lifts the deadline: the connection goes on watching for a hang-up.
func (b *body) done() {
	if b.timed {
		_ = b.control.SetReadDeadline(time.Time{})
	}
}

func (b *body) release() {
	if b.charged > 0 {
		b.budget.used.Add(-b.charged)
		b.charged = 0
	}
}

// Close implements io.Closer.
func (b *body) Close() error { return b.in.Close() }

// drain counts a refused request's body. It returns err, or the 413 that the
// body earned.
func (b *body) drain(err error) error {
	_, copyErr := io.Copy(io.Discard, b)
	if errors.Is(copyErr, fault.PayloadTooLarge) {
		return copyErr
	}
	return err
}
