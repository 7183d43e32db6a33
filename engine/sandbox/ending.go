package sandbox

import (
	"context"
	"errors"
	"log/slog"
	"strings"
)

// Stop ends every environment and revokes every token.
func (s *Service) Stop(ctx context.Context) error {
	s.mu.Lock()
	var all []*environment
	for _, e := range s.running {
		all = append(all, e)
	}
	s.mu.Unlock()
	s.tokens.RevokeAll()
	var failed error
	for _, e := range all {
		failed = errors.Join(failed, s.drop(ctx, e))
	}
	return failed
}

// StopAgent ends an agent's own environment. In shared mode its user ends
// instead; its home comes back with the next command.
func (s *Service) StopAgent(ctx context.Context, agentID string) error {
	s.mu.Lock()
	e := s.running[strings.ToUpper(agentID)]
	s.mu.Unlock()
	if e != nil {
		return s.drop(ctx, e)
	}
	return s.endUser(ctx, agentID, true)
}

// Unprovision ends an agent for good: token, file, processes, user, home,
// plugins, their settings, and what the owner allowed it.
func (s *Service) Unprovision(ctx context.Context, agentID string) error {
	agentID = strings.ToUpper(agentID)
	s.mu.Lock()
	e := s.running[agentID]
	s.mu.Unlock()
	var err error
	if e != nil {
		err = s.drop(ctx, e)
	} else {
		err = s.endUser(ctx, agentID, false)
	}
	left := errors.Join(s.forgetHome(agentID, LinuxName(agentID)), s.Plugins.Forget(agentID), s.config.Forget(agentID))
	if left == nil { // last what tells Prune that something is left
		left = errors.Join(s.switches.forget(agentID), s.users.Forget(agentID))
	}
	return errors.Join(err, left)
}

// endUser ends an agent's user in the environment that it shares. A home that
// was to be kept and could not be is a reason to end nothing but the token.
func (s *Service) endUser(ctx context.Context, agentID string, keep bool) error {
	name := LinuxName(agentID)
	s.tokens.Revoke(name) // before the file: nothing is answered from here on
	e, release, err := s.use(s.keyOf(agentID))
	if err != nil {
		return nil //nolint:nilerr // nothing runs
	}
	defer release()
	s.mu.Lock()
	there := e.users[name]
	s.mu.Unlock()
	if !there {
		return nil
	}
	if err := e.guest.RemoveToken(ctx, name); err != nil {
		return err
	}
	s.stopDaemons(e, func(d *daemon) bool { return d.linuxName == name })
	if keep {
		if err := s.keep(ctx, e, name); err != nil {
			return err
		}
	}
	s.mu.Lock()
	delete(e.users, name)
	s.mu.Unlock()
	return e.guest.RemoveUser(ctx, name)
}

// Prune ends what belongs to agents that are no more. Their tokens are
// revoked before it returns; the rest follows.
func (s *Service) Prune(exists func(agentID string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	seen := map[string]bool{}
	for _, id := range append(s.users.agents(), s.switches.agents()...) {
		if seen[id] || exists(id) {
			continue
		}
		seen[id] = true
		s.tokens.Revoke(LinuxName(id))
		s.group.Go(func() {
			if err := s.Unprovision(context.Background(), id); err != nil {
				s.c.Logger.Error("an agent's sandbox did not end", slog.String("error", err.Error()))
			}
		})
	}
}
