package relay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/relay/wire"
)

// changes brings the relay's view to what is wanted, one change at a time.
func (s *session) changes(ctx context.Context) error {
	for first := true; ; first = false {
		add, remove := s.difference()
		switch {
		case len(s.l.wants()) == 0:
			return errNobody
		case len(add)+len(remove) > maxChanges && !first: // at first they are those who were turned away
			return errReopen
		}
		var later <-chan time.Time
		for _, a := range remove {
			if err := s.remove(ctx, a); err != nil {
				return err
			}
		}
		for _, a := range add {
			taken, err := s.add(ctx, a)
			if err != nil {
				return err
			}
			if taken {
				later = time.After(againDelay)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.l.changed:
		case <-later:
		}
	}
}

// difference compares what is wanted with what is held.
func (s *session) difference() (add []Agent, remove []address.Address) {
	want := s.l.wants()
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, agent := range want {
		if _, ok := s.held[a]; !ok {
			add = append(add, agent)
		}
	}
	for a := range s.held {
		if _, ok := want[a]; !ok {
			remove = append(remove, a)
		}
	}
	slices.SortFunc(add, func(a, b Agent) int { return strings.Compare(a.Address.Lower(), b.Address.Lower()) })
	return add, remove
}

// add proves one more agent. One that cannot sign, or that the relay does not
// want, keeps its error and is tried again with the next change. taken says
// that an older relay still has another tunnel for it, perhaps our last.
func (s *session) add(ctx context.Context, a Agent) (taken bool, err error) {
	s.adding(a)
	defer s.adding(Agent{})
	for {
		s.out.urgent(&wire.Frame{Type: wire.RequestChallenge})
		f, err := s.reply(ctx, func(f wire.Frame) bool { return f.Type == wire.Challenge })
		if err == nil && f.Type == wire.Challenge {
			now := s.l.t.c.Now().Unix()
			proof, signErr := s.prove(ctx, a.Address, f.Nonce, now)
			if signErr != nil {
				s.l.t.set(a.Address, Failed, "", "the agent cannot sign: "+signErr.Error())
				return false, nil //nolint:nilerr // the status tells it
			}
			s.out.urgent(&wire.Frame{Type: wire.AddAgent, Address: proof.Address, Signature: proof.Signature, Nonce: f.Nonce, Timestamp: now})
			f, err = s.reply(ctx, func(f wire.Frame) bool {
				return f.Type == wire.AgentAdded && strings.EqualFold(f.Address, a.Address.String())
			})
		}
		switch {
		case err != nil:
			return false, err
		case f.Type == wire.AgentAdded:
			s.l.t.ready(a.Address, f.URL)
			return false, nil
		case f.Error == wire.RateLimited:
			if !sleep(ctx, rateWait) {
				return false, nil
			}
		default:
			s.l.t.set(a.Address, Failed, "", fmt.Sprintf("the relay refused: %.64q", f.Error))
			return f.Error == wire.AlreadyRegistered, nil
		}
	}
}

func (s *session) adding(a Agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adds = a
}

func (s *session) remove(ctx context.Context, a address.Address) error {
	s.mu.Lock()
	delete(s.held, a) // whatever still comes for it is refused
	s.mu.Unlock()
	s.endCalls(func(c *call) bool { return c.agent.Address == a })
	s.out.urgent(&wire.Frame{Type: wire.RemoveAgent, Address: a.Lower()})
	_, err := s.reply(ctx, func(f wire.Frame) bool { return f.Type == wire.AgentRemoved && strings.EqualFold(f.Address, a.Lower()) })
	return err
}

// reply waits for the frame that answers, or an error frame.
func (s *session) reply(ctx context.Context, is func(wire.Frame) bool) (wire.Frame, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, replyTimeout, errNoReply)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return wire.Frame{}, context.Cause(ctx)
		case f := <-s.control:
			if f.Type == wire.Error || is(f) {
				return f, nil
			}
		}
	}
}
