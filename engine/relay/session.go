package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"osaurus/engine/address"
	"osaurus/engine/relay/wire"
)

// session is one authenticated socket.
//
//	dialled ──challenge──▶ authenticating ──auth_ok──▶ open ──▶ closed
//
// closed is absorbing: frames of a closed or retired session are ignored.
type session struct {
	l       *line
	conn    Conn
	out     *outbox
	control chan wire.Frame // answers to our control frames
	early   []wire.Frame    // requests that overtook auth_ok
	retired atomic.Bool     // another session gets its agents
	restart atomic.Bool     // the relay said that it restarts
	closing sync.Once
	full    chan struct{} // closed when a new socket is better than changes
	end     context.CancelCauseFunc
	ended   context.Context //nolint:containedctx // of what serves, which outlives the call that started it

	mu    sync.Mutex
	held  map[address.Address]Agent // whom the relay routes here
	adds  Agent                     // whose proof the relay looks at
	calls map[string]*call          // requests in flight, by id
	work  sync.WaitGroup
}

func newSession(l *line, conn Conn) *session {
	return &session{l: l, conn: conn, out: newOutbox(), control: make(chan wire.Frame, 8), full: make(chan struct{}), held: map[address.Address]Agent{}, calls: map[string]*call{}}
}

func (s *session) close(code int, reason string) {
	s.closing.Do(func() {
		_ = s.conn.Close(code, reason) // it may be gone
		s.out.close()
	})
}

// retire ends a session whose agents another one has.
func (s *session) retire() {
	s.end(errNobody)
	_ = s.finish() // it ended because it was told to
}

// receive reads one frame that it understands.
func (s *session) receive(ctx context.Context) (wire.Frame, error) {
	for {
		raw, err := s.conn.Read(ctx)
		if err != nil {
			return wire.Frame{}, err
		}
		if f, err := wire.Parse(raw); err == nil {
			return f, nil // what breaks the protocol is dropped, as the relay drops ours
		}
	}
}

func (s *session) send(ctx context.Context, f *wire.Frame) error {
	raw, err := f.Marshal()
	if err != nil {
		return err
	}
	return s.conn.Write(ctx, raw)
}

// authenticate answers the opening challenge for every agent whose key is at
// hand. One that cannot sign does not keep the others away.
func (s *session) authenticate(ctx context.Context, set map[address.Address]Agent) error {
	ctx, cancel := context.WithTimeoutCause(ctx, replyTimeout, errNoReply)
	defer cancel()
	f, err := s.awaitType(ctx, wire.Challenge)
	if err != nil {
		return err
	}
	auth := wire.Frame{Type: wire.Auth, Nonce: f.Nonce, Timestamp: s.l.t.c.Now().Unix()}
	signed := map[string]Agent{}
	for _, a := range slices.SortedFunc(maps.Values(set), func(a, b Agent) int { return strings.Compare(a.Address.Lower(), b.Address.Lower()) }) {
		proof, err := s.prove(ctx, a.Address, auth.Nonce, auth.Timestamp)
		if err != nil {
			s.l.t.set(a.Address, Failed, "", "the agent cannot sign: "+err.Error())
			continue
		}
		auth.Agents = append(auth.Agents, proof)
		signed[a.Address.Lower()] = a
	}
	if len(auth.Agents) == 0 {
		return fmt.Errorf("%w: no agent can sign", errRefused)
	}
	if err := s.send(ctx, &auth); err != nil {
		return err
	}
	if f, err = s.awaitType(ctx, wire.AuthOK); err != nil {
		return err
	}
	return s.accepted(f, signed)
}

// prove signs a challenge, and looks at the signature as the relay will.
func (s *session) prove(ctx context.Context, a address.Address, nonce string, timestamp int64) (wire.Agent, error) {
	signer, err := s.l.t.c.Signer(ctx, a)
	if err != nil {
		return wire.Agent{}, err
	}
	text := a.String()
	sig, err := signer.Sign(ctx, wire.TextDigest(text, nonce, timestamp))
	if err != nil {
		return wire.Agent{}, err
	}
	proof := wire.Agent{Address: text, Signature: sig.String()}
	if who, ok := wire.Verify(proof, nonce, timestamp); !ok || who != a {
		return wire.Agent{}, errors.New("its key is another's")
	}
	return proof, nil
}

// awaitType reads until a frame of the type, or one that says no.
func (s *session) awaitType(ctx context.Context, want wire.Type) (wire.Frame, error) {
	for {
		f, err := s.receive(ctx)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return wire.Frame{}, err
		}
		switch {
		case f.Type == want:
			return f, nil
		case f.Type == wire.Request && len(s.early) < MaxInFlight:
			s.early = append(s.early, f)
		case f.Type == wire.AuthError && f.Error == wire.SignatureFailed:
			return wire.Frame{}, errRefused
		case f.Type == wire.AuthError:
			return wire.Frame{}, fmt.Errorf("%w: %.64q", errTurnedAway, f.Error)
		case f.Type == wire.Error && f.Error == wire.Restarting:
			return wire.Frame{}, errRestarting
		}
	}
}

// accepted notes whom the relay took. An older relay may turn some away.
func (s *session) accepted(f wire.Frame, signed map[string]Agent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range f.Agents {
		if agent, ok := signed[strings.ToLower(a.Address)]; ok {
			s.held[agent.Address] = agent
			s.l.t.ready(agent.Address, a.URL)
		}
	}
	for key, agent := range signed {
		if _, ok := s.held[agent.Address]; !ok {
			s.l.t.set(agent.Address, Failed, "", "the relay did not take the agent: another tunnel has it")
			delete(signed, key)
		}
	}
	if len(s.held) == 0 && len(f.Rejected) == 0 {
		return errProtocol
	}
	s.l.t.c.Log("relay_connected", slog.Int("agents", len(s.held)))
	return nil
}

// serve works until the socket ends or nobody is wanted any more. With
// errReopen it goes on working, until it is retired.
func (s *session) serve(ctx context.Context) error {
	s.ended, s.end = context.WithCancelCause(ctx)
	s.work.Go(func() { s.end(s.out.run(s.ended, s.conn)) })
	s.work.Go(func() { s.end(s.read(s.ended)) })
	s.work.Go(func() {
		switch err := s.changes(s.ended); {
		case errors.Is(err, errReopen):
			s.retired.Store(true) // that it is superseded is no news
			close(s.full)
		case err != nil:
			s.end(err)
		}
	})
	select {
	case <-s.full:
		return errReopen
	case <-s.ended.Done():
		return s.finish()
	}
}

// finish closes the socket and waits for everything that used it.
func (s *session) finish() error {
	err := context.Cause(s.ended)
	code := closeNormal
	if errors.Is(err, context.Canceled) {
		code = closeGoingAway
	}
	s.close(code, "")
	s.endCalls(func(*call) bool { return true })
	s.work.Wait()
	if s.restart.Load() && !errors.Is(err, errNobody) {
		return errRestarting
	}
	return err
}

// read handles frames until the socket ends.
func (s *session) read(ctx context.Context) error {
	for _, f := range s.early {
		s.request(ctx, f)
	}
	s.early = nil
	for {
		f, err := s.hear(ctx)
		if err != nil {
			return err
		}
		switch f.Type {
		case wire.Ping:
			s.pong(f)
		case wire.Request:
			s.request(ctx, f)
		case wire.Cancel:
			s.endCalls(func(c *call) bool { return c.id == f.ID })
		case wire.AgentRemoved:
			if f.Reason == wire.Superseded {
				if err := s.superseded(f.Address); err != nil {
					return err
				}
				continue
			}
			s.removed(f.Address)
			s.answered(f)
		case wire.AgentAdded:
			s.added(f)
			s.answered(f)
		case wire.Challenge, wire.Error:
			if f.Type == wire.Error && f.Error == wire.Restarting {
				s.restart.Store(true)
				continue
			}
			s.answered(f)
		case wire.AuthError:
			return errProtocol
		}
	}
}

// hear reads the next frame. A relay pings twice a minute: one that says
// nothing for longer is gone, whatever the socket looks like.
func (s *session) hear(ctx context.Context) (wire.Frame, error) {
	once, cancel := context.WithTimeoutCause(ctx, maxSilence, errSilent)
	defer cancel()
	f, err := s.receive(once)
	if err != nil && once.Err() != nil {
		err = context.Cause(once)
	}
	return f, err
}

// added notes that the relay routes to an agent, before its first request is
// read.
func (s *session) added(f wire.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.adds; !a.Address.IsZero() && strings.EqualFold(f.Address, a.Address.String()) {
		s.held[a.Address] = a
	}
}

func (s *session) pong(f wire.Frame) {
	ts := s.l.t.c.Now().Unix()
	if f.TS != nil {
		ts = *f.TS
	}
	s.out.urgent(&wire.Frame{Type: wire.Pong, TS: &ts})
}

// answered passes a reply to who waits for it. One that nobody waits for is
// dropped: a relay that sends challenges without end costs nothing.
func (s *session) answered(f wire.Frame) {
	select {
	case s.control <- f:
	default:
	}
}

// superseded gives up an address that another host has now.
func (s *session) superseded(text string) error {
	if s.retired.Load() {
		return nil // it was ours
	}
	a, err := address.Parse(strings.ToLower(text))
	if err != nil {
		return nil //nolint:nilerr // no address of ours
	}
	s.mu.Lock()
	_, had := s.held[a]
	delete(s.held, a)
	left := len(s.held)
	s.mu.Unlock()
	if !had {
		return nil
	}
	s.endCalls(func(c *call) bool { return c.agent.Address == a })
	s.l.t.superseded(a)
	if left == 0 {
		return errNobody
	}
	return nil
}

// removed gives up an address that the relay no longer carries, though nobody
// asked it to: who did has given it up before.
func (s *session) removed(text string) {
	a, err := address.Parse(strings.ToLower(text))
	if err != nil {
		return
	}
	s.mu.Lock()
	_, had := s.held[a]
	delete(s.held, a)
	s.mu.Unlock()
	if !had {
		return
	}
	s.endCalls(func(c *call) bool { return c.agent.Address == a })
	s.l.t.set(a, Disconnected, "", "the relay gave the agent up")
}

// endCalls cancels requests; nothing more is sent for them.
func (s *session) endCalls(which func(*call) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if which(c) {
			c.answer.abandon()
			c.cancel()
		}
	}
}
