package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/ratelimit"
	"osaurus/engine/relay/wire"
)

// tunnel is one socket of a host.
//
//	connected ──auth──▶ open ──▶ closing ──▶ closed
//
// A closing one sends what is queued and ignores what comes in.
type tunnel struct {
	s    *Server
	conn conn
	out  outbox

	held map[address.Address]bool // guarded by Server.hosts.mu, like gone
	gone bool

	nonce   string // outstanding, of request_challenge; used by the reader alone
	nonceAt time.Time
	control ratelimit.Bucket

	missed     atomic.Int32 // pings without a pong
	closing    atomic.Bool
	refreshing atomic.Bool
	work       sync.WaitGroup

	mu     sync.Mutex
	tick   *time.Timer // of the keepalive
	calls  map[string]*exchange
	failed bool // no further call is taken
}

func newTunnel(s *Server, c conn) *tunnel {
	return &tunnel{s: s, conn: c, out: outbox{conn: c}, held: map[address.Address]bool{}, calls: map[string]*exchange{}}
}

// serve runs the socket until it closes.
func (t *tunnel) serve(ctx context.Context) {
	defer t.end()
	if !t.authenticate(ctx) {
		return
	}
	t.s.c.Log.Info("tunnel open", slog.Int("agents", len(t.s.hosts.of(t))))
	t.schedule()
	for {
		raw, err := t.conn.Read(ctx)
		if errors.Is(err, errOverloaded) {
			t.shut(closeOverloaded, "overloaded", nil)
		}
		if err != nil {
			return
		}
		if !t.closing.Load() {
			t.handle(raw)
		}
	}
}

// shut sends a last frame and closes.
func (t *tunnel) shut(code int, reason string, last *wire.Frame) {
	t.closing.Store(true)
	var raw []byte
	if last != nil {
		raw, _ = last.Marshal() // our own frames are text
	}
	t.out.shut(code, reason, raw)
}

// end gives everything back: agents, requests that wait, timers.
func (t *tunnel) end() {
	t.closing.Store(true)
	t.out.seal()
	t.mu.Lock()
	if t.failed = true; t.tick != nil {
		t.tick.Stop()
	}
	t.mu.Unlock()
	lost := t.s.hosts.drop(t)
	t.fail(func(*exchange) bool { return true })
	t.s.cluster.release(t, lost)
	t.out.done.Wait()
	t.out.abort()
	t.work.Wait()
}

// send queues a frame; what cannot be sent any more is dropped.
func (t *tunnel) send(f *wire.Frame) bool {
	raw, err := t.s.marshal(f)
	return err == nil && t.out.put(raw)
}

func newNonce() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it does not fail (crypto/rand)
	return hex.EncodeToString(b[:])
}

// authenticate makes the handshake of relay.md section 2. When it reports
// false the socket closes.
func (t *tunnel) authenticate(ctx context.Context) bool {
	nonce := newNonce()
	t.send(&wire.Frame{Type: wire.Challenge, Nonce: nonce})
	late := time.AfterFunc(authTimeout, func() {
		t.shut(closeAuth, "auth timeout", &wire.Frame{Type: wire.AuthError, Error: wire.AuthTimeout})
	})
	raw, err := t.conn.Read(ctx)
	if !late.Stop() || err != nil {
		return false
	}
	addrs, refused := t.prove(raw, nonce)
	if refused != nil {
		t.shut(refused.code, refused.reason, &wire.Frame{Type: wire.AuthError, Error: refused.word})
		return false
	}
	t.conn.Trust()
	lost, ok := t.s.hosts.claim(t, wire.MaxAgents, addrs...)
	if !ok {
		t.shut(closeUnexpected, "internal error", &wire.Frame{Type: wire.AuthError, Error: wire.InternalError})
		return false
	}
	f := &wire.Frame{Type: wire.AuthOK, Region: t.s.c.Region}
	for _, a := range addrs {
		f.Agents = append(f.Agents, wire.Agent{Address: a.Lower(), URL: t.s.url(a)})
	}
	sent := t.send(f) // at once: requests may follow from now on
	t.s.superseded(lost)
	t.s.cluster.claim(t, addrs)
	return sent
}

// refusal is an auth_error and the close that follows.
type refusal struct {
	word   string
	code   int
	reason string
}

// prove checks an auth frame: all of it or nothing. Addresses come back in the
// order of the frame, without repeats.
func (t *tunnel) prove(raw []byte, nonce string) ([]address.Address, *refusal) {
	f, err := wire.ParseHost(raw)
	switch {
	case errors.Is(err, wire.ErrJSON):
		return nil, &refusal{wire.InvalidJSON, closeShape, "invalid json"}
	case err != nil || !f.WellFormed():
		return nil, &refusal{wire.ExpectedAuth, closeShape, "expected auth frame"}
	case f.Nonce != nonce:
		return nil, &refusal{wire.InvalidNonce, closeShape, "invalid nonce"}
	case len(f.Agents) == 0:
		return nil, &refusal{wire.NoAgents, closeShape, "no agents"}
	case len(f.Agents) > wire.MaxAgents:
		return nil, &refusal{wire.TooManyAgents, closeShape, "too many agents"}
	}
	var addrs []address.Address
	for _, agent := range f.Agents {
		a, ok := wire.Verify(agent, nonce, f.Timestamp)
		if !ok || !t.s.current(f.Timestamp) {
			return nil, &refusal{wire.SignatureFailed, closeAuth, "auth failed"}
		}
		if !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

// current reports whether a timestamp of a host is near enough to our clock.
func (s *Server) current(timestamp int64) bool {
	now := s.c.Now().Unix()
	return timestamp >= now-clockSkew && timestamp <= now+clockSkew
}

// schedule sets the next tick of the keepalive.
func (t *tunnel) schedule() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed {
		return
	}
	t.tick = time.AfterFunc(pingEvery, t.ping)
}

// ping is one tick: too many unanswered pings, or one more (section 8).
func (t *tunnel) ping() {
	if t.missed.Load() >= maxMissed {
		t.shut(closeNormal, "keepalive timeout", nil)
		return
	}
	t.missed.Add(1)
	ts := t.s.c.Now().Unix()
	t.send(&wire.Frame{Type: wire.Ping, TS: &ts})
	t.schedule()
}

// add takes a call that is going to be sent.
func (t *tunnel) add(e *exchange) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed || len(t.calls) >= maxCalls {
		return false
	}
	t.calls[e.id] = e
	return true
}

func (t *tunnel) remove(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.calls, id)
}

func (t *tunnel) call(id string) *exchange {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls[id]
}

// fail ends calls whose answer cannot come any more.
func (t *tunnel) fail(which func(*exchange) bool) {
	t.mu.Lock()
	var all []*exchange
	for id, e := range t.calls {
		if which(e) {
			all = append(all, e)
			delete(t.calls, id)
		}
	}
	t.mu.Unlock()
	for _, e := range all {
		e.fail(tunnelClosed)
	}
}

// superseded tells tunnels that newer ones have their agents; one that has
// none left is closed (section 4).
func (s *Server) superseded(lost []loss) {
	for _, l := range lost {
		s.stats.takeovers.Add(1)
		s.c.Log.Info("agent superseded", slog.String("address", l.a.Short()))
		l.t.send(&wire.Frame{Type: wire.AgentRemoved, Address: l.a.Lower(), Reason: wire.Superseded})
		l.t.fail(func(e *exchange) bool { return e.agent == l.a })
		if l.empty {
			l.t.shut(closeNormal, wire.Superseded, nil)
		}
	}
}
