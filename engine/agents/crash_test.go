package agents

import (
	"context"
	"errors"
	"slices"
	"testing"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
)

// crash is one change that may die between any two steps.
type crash struct {
	steps  int
	setup  func(*testing.T) *scene
	change func(context.Context, *scene) error
	check  func(*testing.T, *scene) // on the reopened, unlocked host
}

// scene is a host with one agent, its keys, and what was ever shown.
type scene struct {
	*host
	agent  Agent
	tokens map[string]address.Address // token -> whom it was minted for
	drift  identity.Drift
}

func newScene(t *testing.T) *scene {
	h := restored(t)
	s := &scene{host: h, agent: h.assigned("Ada"), tokens: map[string]address.Address{}}
	for range 2 {
		s.tokens[h.key(s.agent.Address)] = s.agent.Address
	}
	return s
}

// every runs c once for each step and side of it, reopens what survived and
// looks at the laws that hold for every change.
func (c crash) every(t *testing.T) {
	t.Helper()
	for at := 1; ; at++ {
		for _, after := range []bool{false, true} {
			s := c.setup(t)
			*s.k = killer{at: at, after: after}
			err := c.change(t.Context(), s)
			dead := s.k.dead
			if !dead {
				if err != nil {
					t.Fatalf("the undisturbed change: %v", err)
				}
				if at-1 != c.steps {
					t.Errorf("the change has %d steps, want %d: update this test", at-1, c.steps)
				}
				return
			}
			if !errors.Is(err, errKilled) && err != nil {
				t.Errorf("killed at step %d (after: %v), but the change returned %v", at, after, err)
			}
			s.open()
			if err := s.registry.Unlock(t.Context()); err != nil && !errors.Is(err, fault.NoMaster) {
				t.Fatalf("killed at step %d (after: %v): unlock: %v", at, after, err)
			}
			s.laws(t)
			c.check(t, s)
			s.laws(t)
			if t.Failed() {
				t.Fatalf("killed at step %d (after: %v)", at, after)
			}
		}
	}
}

// laws: every record loads, no address was given out twice, no key is valid
// for an address that its agent left, no key looks active that cannot be, and
// every agent signs. What drift reports is excepted.
func (s *scene) laws(t *testing.T) {
	t.Helper()
	if damaged := s.registry.Damaged(); len(damaged) != 0 {
		t.Errorf("damaged: %v", damaged)
	}
	for a, n := range s.addresses() {
		if n != 1 {
			t.Errorf("%s was given out %d times", a, n)
		}
	}
	for token, aud := range s.tokens {
		_, current := s.registry.ByAddress(aud)
		if _, err := s.keys.Validate(token); err == nil && !current {
			t.Errorf("a key for %s is valid, which no agent has", aud)
		}
	}
	drift := s.registry.Health().Drift
	for _, m := range s.keys.List() {
		reported := slices.ContainsFunc(drift.StaleKeys, func(k identity.KeyRef) bool { return k.ID == m.ID })
		if _, current := s.registry.ByAddress(m.Audience); !m.Revoked && !current && !reported && m.Audience != s.account.Address() {
			t.Errorf("a key for %s looks active, which no agent has", m.Audience)
		}
	}
	for _, a := range s.registry.Addresses() {
		reported := slices.ContainsFunc(drift.Mismatched, func(r identity.AgentRef) bool { return r.Address == a })
		if s.registry.Unlocked() && !reported {
			s.signs(a)
		}
	}
}

func TestCrashes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]crash{
		"create": {1, newScene,
			func(ctx context.Context, s *scene) error {
				_, err := s.registry.Create(ctx, Draft{Name: "new"})
				return err
			},
			func(t *testing.T, s *scene) { s.signs(s.agent.Address) }},
		"assign": {1, // and the index, which the account writes
			func(t *testing.T) *scene { s := newScene(t); s.agent = s.create("Bea"); return s },
			func(ctx context.Context, s *scene) error { _, err := s.registry.Assign(ctx, s.agent.ID); return err },
			func(t *testing.T, s *scene) {
				if a, err := s.registry.Assign(t.Context(), s.agent.ID); err != nil || a.Address.IsZero() {
					t.Errorf("again: %v", err)
				}
			}},
		"rotate": {4, newScene, // revocations, metadata, hook, record
			func(ctx context.Context, s *scene) error { _, err := s.registry.Rotate(ctx, s.agent.ID); return err },
			func(t *testing.T, s *scene) {
				if a, err := s.registry.Rotate(t.Context(), s.agent.ID); err != nil || a.Address == s.agent.Address {
					t.Errorf("again: %v", err)
				}
			}},
		"revoke": {4, newScene,
			func(ctx context.Context, s *scene) error { _, err := s.registry.Revoke(ctx, s.agent.ID); return err },
			func(t *testing.T, s *scene) {
				if a, err := s.registry.Revoke(t.Context(), s.agent.ID); err != nil || !a.Address.IsZero() {
					t.Errorf("again: %v", err)
				}
			}},
		"delete": {4, newScene,
			func(ctx context.Context, s *scene) error { return s.registry.Delete(ctx, s.agent.ID) },
			func(t *testing.T, s *scene) {
				if _, ok := s.registry.Get(s.agent.ID); !ok {
					return
				}
				if err := s.registry.Delete(t.Context(), s.agent.ID); err != nil {
					t.Errorf("again: %v", err)
				}
			}},
		"reset": {9, // agent: 4; metadata dropped: 3; backup; master. The account writes its own files
			func(t *testing.T) *scene {
				s := newScene(t)
				if _, err := s.registry.Restore(t.Context(), text(bobPhrase), true); err != nil {
					t.Fatal(err)
				}
				return s
			},
			func(ctx context.Context, s *scene) error { return s.registry.Reset(ctx) },
			func(t *testing.T, s *scene) {
				if err := s.registry.Reset(t.Context()); err != nil {
					t.Fatalf("again: %v", err)
				}
				if len(s.keys.List()) != 0 || len(s.registry.Addresses()) != 0 || !s.account.Address().IsZero() {
					t.Error("something is left")
				}
				if _, err := s.account.Generate(t.Context()); err != nil {
					t.Errorf("setup again: %v", err)
				}
			}},
		"repair": {6, drifting, // as rotate, then the stale key
			func(ctx context.Context, s *scene) error {
				done, err := s.registry.Repair(ctx, s.drift)
				for _, f := range done.Failed {
					err = errors.Join(err, f.Err)
				}
				return err
			},
			func(t *testing.T, s *scene) {
				done, err := s.registry.Repair(t.Context(), s.registry.Health().Drift)
				if err != nil || len(done.Failed) != 0 || s.registry.Health().Drift.Any() {
					t.Errorf("again: %+v, %v", done, err)
				}
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.every(t)
		})
	}
}

// drifting has an agent of another master with keys, and a stale key.
func drifting(t *testing.T) *scene {
	s := newScene(t)
	master, err := s.account.Unlock(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	minted, err := s.keys.Mint(t.Context(), master, accesskey.MintRequest{Expiration: accesskey.Never})
	if err != nil {
		t.Fatal(err)
	}
	s.tokens[string(minted.Token.Expose())] = master.Address()
	if _, err := s.registry.Restore(t.Context(), text(bobPhrase), true); err != nil {
		t.Fatal(err)
	}
	s.drift = s.registry.Health().Drift
	return s
}

// A restore that dies leaves the old identity or the new one, and with either
// of them agents that sign or are reported.
func TestCrashWhileRestoring(t *testing.T) {
	t.Parallel()
	for at := 1; at <= 2; at++ {
		for _, after := range []bool{false, true} {
			s := newScene(t)
			*s.k = killer{at: at, after: after}
			if _, err := s.registry.Restore(t.Context(), text(bobPhrase), true); !errors.Is(err, errKilled) {
				t.Fatalf("step %d: %v", at, err)
			}
			s.open()
			if err := s.registry.Unlock(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, err := s.registry.Signer(t.Context(), s.agent.Address)
			if reported := len(s.registry.Health().Drift.Mismatched) == 1; reported != (err != nil) {
				t.Errorf("step %d (after: %v): reported=%v, signer: %v", at, after, reported, err)
			}
			if _, err := s.registry.Restore(t.Context(), text(alicePhrase), false); err != nil {
				t.Fatal(err)
			}
			s.signs(s.agent.Address)
		}
	}
}
