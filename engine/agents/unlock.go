package agents

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"osaurus/engine/address"
	"osaurus/engine/identity"
	"osaurus/engine/secret"
)

// Health is what a check of the records against the master found.
type Health struct {
	// Drift needs the owner: Repair, Restore or Reset.
	Drift identity.Drift
	// ScopesRestored counts the agents whose key path was completed since the
	// start; no key changed.
	ScopesRestored int
}

// Repaired is the outcome of Repair.
type Repaired struct {
	Moved       []Agent // with their new addresses
	KeysRevoked int
	Failed      []Failure
}

// Failure is one part of a repair that did not work.
type Failure struct {
	ID, Name string // ID is empty when it is not about an agent
	Err      error
}

// Unlock reads the master once, which may ask the owner, and does what
// UnlockWith does. Nothing from the network may lead here (decisions C1).
func (r *Registry) Unlock(ctx context.Context) error {
	master, err := r.c.Account.Unlock(ctx, "unlock the agents of this host")
	if err != nil {
		return err
	}
	return r.UnlockWith(master)
}

// UnlockWith derives the key of every agent with an address, keeps it until
// Lock and destroys master. Health then tells how the records stand; an agent
// that does not derive to its address gets no signer. A key path that lost
// its scope is completed.
func (r *Registry) UnlockWith(master identity.MasterKey) error {
	defer master.Destroy()
	return r.changing(func() error { return r.unlock(master) })
}

func (r *Registry) unlock(master identity.MasterKey) error {
	drift, err := r.check(master)
	if err != nil {
		return err
	}
	paths := map[string]identity.Path{}
	for _, lost := range drift.Recoverable {
		paths[lost.Agent.ID] = lost.Path
	}
	h := Health{Drift: drift}
	h.Drift.Recoverable, h.ScopesRestored = r.restoreScopes(drift.Recoverable)
	v := *r.view.Load()
	h.ScopesRestored += v.health.ScopesRestored
	held := maps.Clone(v.signers) // readers still have the original
	v.signers, v.unlocked, v.health = signers{}, true, h
	for id, a := range v.agents {
		if a.BuiltIn || a.Address.IsZero() || a.Path == nil {
			continue
		}
		path := *a.Path
		if whole, lost := paths[id]; lost {
			path = whole // even where the disk refused it
		}
		if s := held.take(master, path, a.Address); s != nil {
			v.signers[a.Address] = s
		}
	}
	r.show(v)
	held.destroy()
	return nil
}

// take derives the key at path if it belongs to want; what does not is in the
// drift report. A signer that was already held goes on, for those who use it.
func (s signers) take(master identity.MasterKey, path identity.Path, want address.Address) *signer {
	key, err := master.Agent(path)
	if err != nil || key.Address() != want {
		key.Destroy()
		return nil
	}
	if one := s[want]; one != nil {
		key.Destroy()
		delete(s, want)
		return one
	}
	return &signer{addr: want, key: key}
}

// restoreScopes completes the paths on disk and returns those it could not.
func (r *Registry) restoreScopes(lost []identity.Recoverable) (left []identity.Recoverable, restored int) {
	for _, one := range lost {
		a := r.view.Load().agents[one.Agent.ID]
		a.Path = &one.Path
		if _, err := r.save(a, identity.AgentKey{}); err != nil {
			r.c.Log("agent_scope_failed", slog.String("agentId", a.ID), slog.Any("error", err))
			left = append(left, one)
			continue
		}
		restored++
	}
	if restored > 0 {
		r.c.Log("agent_scopes_restored", slog.Int("agents", restored))
	}
	return left, restored
}

// check compares the records and keys with master. It changes nothing.
func (r *Registry) check(master identity.MasterKey) (identity.Drift, error) {
	var keys []identity.KeyRef
	for _, m := range r.c.Keys.List() {
		keys = append(keys, identity.KeyRef{ID: m.ID, Issuer: m.Issuer, Revoked: m.Revoked})
	}
	return identity.CheckDrift(master, r.Refs(), keys, r.c.Account.Device().ID)
}

// Lock destroys every signer. Signing after it fails with
// fault.HostIdentityUnavailable, also for who holds a Signer.
func (r *Registry) Lock() {
	_ = r.changing(func() error {
		r.c.Account.Lock()
		r.lock(r.Health())
		return nil
	})
}

func (r *Registry) lock(h Health) {
	v := *r.view.Load()
	held := v.signers
	v.signers, v.unlocked, v.health = nil, false, h
	r.show(v)
	held.destroy()
}

// Repair gives the mismatched agents that the owner confirmed fresh paths
// under the present master, whose old addresses end, and revokes the confirmed
// stale keys: one pass, in which one failure does not stop the rest. The error
// says that nothing was tried.
func (r *Registry) Repair(ctx context.Context, confirmed identity.Drift) (done Repaired, err error) {
	err = r.changing(func() error {
		master, err := r.c.Account.Unlock(ctx, "repair the agents of this host")
		if err != nil {
			return err
		}
		defer master.Destroy()
		found, err := r.check(master)
		if err != nil {
			return err
		}
		done = r.repair(ctx, master, found, confirmed)
		return r.unlockAgain(master)
	})
	return done, err
}

func (r *Registry) repair(ctx context.Context, master identity.MasterKey, found, confirmed identity.Drift) (done Repaired) {
	for _, m := range found.Mismatched {
		if !slices.ContainsFunc(confirmed.Mismatched, func(c identity.AgentRef) bool { return c.ID == m.ID && c.Address == m.Address }) {
			continue
		}
		a, err := r.move(ctx, r.view.Load().agents[m.ID], master, "agent_repaired")
		if err != nil {
			done.Failed = append(done.Failed, Failure{m.ID, m.Name, err})
			continue
		}
		done.Moved = append(done.Moved, a)
	}
	var stale []string
	for _, k := range found.StaleKeys {
		if slices.ContainsFunc(confirmed.StaleKeys, func(c identity.KeyRef) bool { return c.ID == k.ID }) {
			stale = append(stale, k.ID)
		}
	}
	if len(stale) == 0 {
		return done
	}
	n, err := r.c.Keys.RevokeStale(ctx, stale)
	if err != nil {
		done.Failed = append(done.Failed, Failure{Name: "stale access keys", Err: err})
	}
	done.KeysRevoked = n
	return done
}

// unlockAgain renews Health, and the signers if they are held.
func (r *Registry) unlockAgain(master identity.MasterKey) error {
	if r.Unlocked() {
		return r.unlock(master)
	}
	drift, err := r.check(master)
	if err != nil {
		return err
	}
	v := *r.view.Load()
	v.health.Drift = drift
	r.show(v)
	return nil
}

// Restore makes the phrase's master this host's identity, as Account.Restore
// does, drops the signers of another one and unlocks.
func (r *Registry) Restore(ctx context.Context, phrase secret.Bytes, anyway bool) (restored address.Address, err error) {
	err = r.changing(func() error {
		if restored, err = r.c.Account.Restore(ctx, phrase, r.Refs(), anyway); err != nil {
			return err
		}
		master, err := r.c.Account.Unlock(ctx, "unlock the agents of this host")
		if err != nil {
			r.lock(Health{})
			return fmt.Errorf("the identity is restored, but its key cannot be read back: %w", err)
		}
		defer master.Destroy()
		return r.unlock(master)
	})
	return restored, err
}

// Reset ends this host's identity: every agent's keys are revoked and its
// address cleared, all key metadata is dropped, revocations stay, then the
// master and its backups are deleted. It stops at the first failure, with the
// master still there, and can run again.
func (r *Registry) Reset(ctx context.Context) error {
	return r.changing(func() error {
		if err := r.c.Account.Confirm(ctx, "delete the identity of this host"); err != nil {
			return err
		}
		for _, a := range r.List() {
			if a.BuiltIn || a.Address.IsZero() && a.Path == nil {
				continue
			}
			if _, err := r.clear(ctx, a, "agent_reset"); err != nil {
				return fmt.Errorf("clearing agent %s: %w", a.ID, err)
			}
		}
		if err := r.c.Keys.Forget(ctx); err != nil {
			return err
		}
		if err := r.c.Account.Reset(ctx); err != nil {
			return err
		}
		r.lock(Health{})
		return nil
	})
}
