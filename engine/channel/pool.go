package channel

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// line is the client's half of a session. Its calls are counted by the pool.
type line struct {
	keys    *keys
	expires int64 // Unix seconds
	seq     atomic.Uint64

	outstanding int  // guarded by pool.mu
	retired     bool // guarded by pool.mu: no new calls, destroyed after the last
}

// pool is the client's sessions with one peer: handshakes are single-flight,
// and each session carries at most maxOutstanding calls. Safe for concurrent
// use.
type pool struct {
	now   func() time.Time
	shake func(context.Context) (*line, error)
	slots chan struct{} // one for each call under way

	mu     sync.Mutex
	lines  []*line
	flight *flight // the handshake under way, if any
	closed bool
}

// flight is one handshake that several callers wait for.
type flight struct {
	done    chan struct{} // closed after the rest is set
	err     error
	dropped bool // its own caller gave up: no verdict on the peer
}

func newPool(now func() time.Time, shake func(context.Context) (*line, error)) *pool {
	return &pool{now: now, shake: shake, slots: make(chan struct{}, maxPool*maxOutstanding)}
}

// enter waits for one of the places for calls; leave gives it back.
func (p *pool) enter(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *pool) leave() { <-p.slots }

// acquire returns a session for one call, by a handshake if there is none
// with room. A handshake that fails fails everyone who waited for it, except
// when it was its own caller who gave up.
func (p *pool) acquire(ctx context.Context) (*line, error) {
	for {
		l, f, lead, err := p.pick()
		if err != nil || l != nil {
			return l, err
		}
		if lead {
			return p.lead(ctx, f)
		}
		select {
		case <-f.done:
			if f.err != nil && !f.dropped {
				return nil, f.err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// pick returns a session, or the handshake to wait for, or a new one to lead.
func (p *pool) pick() (l *line, f *flight, lead bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, false, ErrClosed
	}
	soon := p.now().Add(refreshBefore).Unix()
	p.retireLocked(func(l *line) bool { return l.expires <= soon })
	for _, l := range p.lines {
		if l.outstanding < maxOutstanding {
			l.outstanding++
			return l, nil, false, nil
		}
	}
	if p.flight == nil {
		p.flight, lead = &flight{done: make(chan struct{})}, true
	}
	return nil, p.flight, lead, nil
}

// lead does the handshake f. Its session serves this call whatever its expiry,
// so that a short one does not loop.
func (p *pool) lead(ctx context.Context, f *flight) (*line, error) {
	l, err := p.shake(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flight, f.err, f.dropped = nil, err, ctx.Err() != nil
	close(f.done)
	if err != nil {
		return nil, err
	}
	if p.closed {
		l.keys.destroy()
		return nil, ErrClosed
	}
	l.outstanding = 1
	p.lines = append(p.lines, l)
	return l, nil
}

// done ends a call on l.
func (p *pool) done(l *line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.outstanding--
	p.reapLocked(l)
}

// retire takes l out of use: the peer does not know it any more.
func (p *pool) retire(l *line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retireLocked(func(x *line) bool { return x == l })
}

func (p *pool) retireLocked(match func(*line) bool) {
	p.lines = slices.DeleteFunc(p.lines, func(l *line) bool {
		l.retired = match(l)
		p.reapLocked(l)
		return l.retired
	})
}

func (p *pool) reapLocked(l *line) {
	if l.retired && l.outstanding == 0 {
		l.keys.destroy()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.retireLocked(func(*line) bool { return true })
}
