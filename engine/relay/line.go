package relay

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"osaurus/engine/address"
)

// Conn is a WebSocket to a relay. Read returns text messages only; Write is
// called by one goroutine at a time.
type Conn interface {
	Read(ctx context.Context) ([]byte, error)
	Write(ctx context.Context, message []byte) error
	// Close sends a status code (RFC 6455 section 7.4) and closes.
	Close(code int, reason string) error
}

// The status codes we close with.
const (
	closeNormal    = 1000
	closeGoingAway = 1001
)

// line keeps one socket connected, for the agents it is to carry.
type line struct {
	t       *Tunnel
	changed chan struct{} // has room for one
	ended   atomic.Bool

	mu  sync.Mutex
	set map[address.Address]Agent
}

func newLine(t *Tunnel) *line { return &line{t: t, changed: make(chan struct{}, 1)} }

// want sets whom the line is to carry. An empty set ends it.
func (l *line) want(set map[address.Address]Agent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if maps.Equal(l.set, set) {
		// The keys may be at hand that were not: it looks again.
		if len(set) == 0 {
			return
		}
	}
	l.set = set
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *line) wants() map[address.Address]Agent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.set)
}

// Why a session ended, for the delay before the next.
var (
	errNobody     = errors.New("relay: no agent is wanted here")
	errRestarting = errors.New("relay: the relay restarts")
	errRefused    = errors.New("relay: the relay refused the signature; is the clock right?")
	errTurnedAway = errors.New("relay: the relay refused")
	errReopen     = errors.New("relay: too many changes for this socket")
	errProtocol   = errors.New("relay: the relay broke the protocol")
	errNoReply    = errors.New("relay: no reply within ten seconds")
	errSilent     = errors.New("relay: the relay has stopped pinging")
)

// run connects again and again until nobody is wanted.
func (l *line) run(ctx context.Context) {
	defer func() {
		l.ended.Store(true)
		l.t.Changed() // who was given to this line meanwhile gets another
	}()
	delay := backoff{jitter: l.t.c.Jitter}
	var old *session
	for {
		s, err := l.open(ctx)
		if old != nil { // its agents are carried by the new one now
			old.retire()
			old = nil
		}
		if err == nil {
			began := l.t.c.Now()
			err = s.serve(ctx)
			delay.lasted(l.t.c.Now().Sub(began))
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errNobody):
			return
		case errors.Is(err, errReopen):
			old = s
			continue
		}
		state := Connecting
		if errors.Is(err, errRefused) || errors.Is(err, errTurnedAway) {
			state = Failed
		}
		for a := range l.wants() {
			l.t.set(a, state, "", err.Error())
		}
		l.t.c.Log("relay_disconnected", slog.String("reason", err.Error()))
		if !l.pause(ctx, delay.next(err)) {
			return
		}
	}
}

// pause waits, at most until something changed: without a delay of its own
// only that ends it, or the setting of the clock. It reports whether to go on.
func (l *line) pause(ctx context.Context, wait time.Duration) bool {
	var passed <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		passed = timer.C
	}
	look := time.NewTicker(clockInterval)
	defer look.Stop()
	began, wall := time.Now(), l.t.c.Now()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-passed:
			return true
		case <-l.changed:
			if len(l.wants()) == 0 {
				return false
			}
			if wait == 0 {
				return true
			}
		case <-look.C:
			moved := l.t.c.Now().Round(0).Sub(wall.Round(0)) - time.Since(began)
			if wait == 0 && moved.Abs() > clockMoved {
				return true
			}
		}
	}
}

// A clock that was set, or a machine that slept, may be why a signature was
// refused.
const (
	clockInterval = time.Minute
	clockMoved    = 5 * time.Second
)

// backoff is the delay before a socket is opened again (decisions D21): it
// doubles from a second to a minute, starts anew after a minute of health, is
// short when the relay said that it restarts, and is zero, which waits for a
// change, after three refusals of a signature in a row.
type backoff struct {
	jitter   func() float64
	delay    time.Duration
	refusals int
}

func (b *backoff) lasted(healthy time.Duration) {
	b.refusals = 0
	if healthy >= healthyAfter {
		b.delay = 0
	}
}

func (b *backoff) next(err error) time.Duration {
	switch {
	case errors.Is(err, errRestarting):
		return max(time.Millisecond, time.Duration(b.jitter()*float64(restartDelay)))
	case errors.Is(err, errRefused):
		if b.refusals++; b.refusals >= maxRefusals {
			b.refusals = 0
			return 0
		}
	}
	b.delay = min(max(2*b.delay, minDelay), maxDelay)
	return time.Duration(float64(b.delay) * (1 - jitter + 2*jitter*b.jitter()))
}

// open connects and authenticates all agents that can sign.
func (l *line) open(ctx context.Context) (*session, error) {
	select {
	case <-l.changed: // all of it is looked at now
	default:
	}
	set := l.wants()
	if len(set) == 0 {
		return nil, errNobody
	}
	dialling, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := l.t.c.Dial(dialling)
	cancel()
	if err != nil {
		return nil, err
	}
	s := newSession(l, conn)
	if err := s.authenticate(ctx, set); err != nil {
		s.close(closeNormal, "")
		return nil, err
	}
	return s, nil
}

// dialTimeout bounds the opening of a socket.
const dialTimeout = 20 * time.Second
