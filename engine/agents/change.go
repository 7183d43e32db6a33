package agents

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strings"

	"github.com/google/uuid"

	"osaurus/engine/address"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
)

// Create adds an agent without an address.
func (r *Registry) Create(_ context.Context, d Draft) (Agent, error) {
	d, err := d.clean()
	if err != nil {
		return Agent{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.view.Load().agents) >= MaxAgents {
		return Agent{}, fault.WithText(fault.Usage, fmt.Sprintf("a host has at most %d agents", MaxAgents))
	}
	var raw [16]byte
	if _, err := io.ReadFull(r.c.Rand, raw[:]); err != nil {
		return Agent{}, err
	}
	id, err := uuid.NewRandomFromReader(strings.NewReader(string(raw[:])))
	if err != nil {
		return Agent{}, err
	}
	a := Agent{ID: strings.ToUpper(id.String()), Created: r.c.Now().Unix()}
	d.apply(&a)
	if err := r.saveLocked(a, nil); err != nil {
		return Agent{}, err
	}
	a, _ = r.Get(a.ID)
	return a, nil
}

// Update replaces the editable part of a record.
func (r *Registry) Update(_ context.Context, id string, edit func(*Draft)) (Agent, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, err := r.getLocked(id)
	if err != nil {
		return Agent{}, err
	}
	d := a.Draft()
	edit(&d)
	if d, err = d.clean(); err != nil {
		return Agent{}, err
	}
	d.apply(&a)
	if err := r.saveLocked(a, nil); err != nil {
		return Agent{}, err
	}
	a, _ = r.Get(a.ID)
	return a, nil
}

// Delete revokes the agent's keys, then removes its record.
func (r *Registry) Delete(ctx context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, err := r.getLocked(id)
	if err != nil {
		return err
	}
	if err := r.retireLocked(ctx, a.Address); err != nil {
		return err
	}
	if err := ignoreMissing(atomicfile.Remove(r.path(a.ID))); err != nil {
		return err
	}
	v := r.view.Load()
	agents := maps.Clone(v.agents)
	delete(agents, a.ID)
	r.view.Store(newView(agents, v.signers, v.unlocked))
	r.c.Log("agent_deleted", slog.String("agentId", a.ID))
	r.changedLocked()
	return nil
}

// Assign gives an agent its first address. One that has an address keeps it.
func (r *Registry) Assign(ctx context.Context, id string) (Agent, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, err := r.getLocked(id)
	if err != nil || !a.Address.IsZero() {
		return a, err
	}
	master, err := r.c.Account.Unlock(ctx, "give "+a.Name+" an address")
	if err != nil {
		return Agent{}, err
	}
	defer master.Destroy()
	return r.moveLocked(a, master, "agent_assigned")
}

// Rotate gives an agent a fresh path and address. Every key for the old
// address is revoked before the record changes, so a crash between the two
// leaves an agent that nobody can reach at its old address and that can be
// rotated again.
func (r *Registry) Rotate(ctx context.Context, id string) (Agent, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, err := r.getLocked(id)
	if err != nil {
		return Agent{}, err
	}
	if a.Address.IsZero() {
		return Agent{}, fault.WithText(fault.Usage, "the agent has no address to rotate; assign one first")
	}
	master, err := r.c.Account.Unlock(ctx, "rotate the address of "+a.Name)
	if err != nil {
		return Agent{}, err
	}
	defer master.Destroy()
	if err := r.retireLocked(ctx, a.Address); err != nil {
		return Agent{}, err
	}
	return r.moveLocked(a, master, "agent_rotated")
}

// Revoke takes an agent's address and path away and revokes its keys. The
// agent stays.
func (r *Registry) Revoke(ctx context.Context, id string) (Agent, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, err := r.getLocked(id)
	if err != nil {
		return Agent{}, err
	}
	return r.clearLocked(ctx, a, "agent_revoked")
}

func (r *Registry) clearLocked(ctx context.Context, a Agent, event string) (Agent, error) {
	if a.Address.IsZero() {
		return a, nil
	}
	if err := r.retireLocked(ctx, a.Address); err != nil {
		return Agent{}, err
	}
	r.c.Log(event, slog.String("agentId", a.ID), slog.String("address", a.Address.String()))
	a.setPath(nil, address.Address{})
	if err := r.saveLocked(a, nil); err != nil {
		return Agent{}, err
	}
	a, _ = r.Get(a.ID)
	return a, nil
}

func (r *Registry) retireLocked(ctx context.Context, old address.Address) error {
	if old.IsZero() {
		return nil
	}
	if _, err := r.c.Keys.RevokeAudience(ctx, old); err != nil {
		return fmt.Errorf("revoking the agent's keys: %w", err)
	}
	return r.c.Retired(ctx, old)
}

// moveLocked allocates an index that is on disk before the address is shown,
// skips those that derive no key, and stores the new address.
func (r *Registry) moveLocked(a Agent, master identity.MasterKey, event string) (Agent, error) {
	for {
		index, err := r.c.Account.AllocateIndex(r.lowestIndex())
		if err != nil {
			return Agent{}, err
		}
		path := identity.Path{Index: index, Scope: r.c.Account.Device().ID}
		key, err := master.Agent(path)
		if errors.Is(err, identity.ErrSkipIndex) {
			continue
		}
		if err != nil {
			return Agent{}, err
		}
		a.setPath(&path, key.Address())
		if err := r.saveLocked(a, &key); err != nil {
			key.Destroy()
			return Agent{}, err
		}
		r.c.Log(event, slog.String("agentId", a.ID), slog.String("address", a.Address.String()))
		a, _ = r.Get(a.ID)
		return a, nil
	}
}

// lowestIndex is above every index a record holds, whatever the counter says.
func (r *Registry) lowestIndex() uint64 {
	var lowest uint64
	for _, a := range r.view.Load().agents {
		if a.Index != nil {
			lowest = max(lowest, uint64(*a.Index)+1)
		}
	}
	return lowest
}

// RepairScopes writes back the scope of agents that lost it. No key changes.
// It returns how many were repaired.
func (r *Registry) RepairScopes(_ context.Context, d identity.Drift) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var failed error
	n := 0
	for _, rec := range d.Recoverable {
		a, err := r.getLocked(rec.Agent.ID)
		if err == nil {
			a.setPath(&rec.Path, a.Address)
			err = r.saveLocked(a, nil)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", rec.Agent.Name, err))
			continue
		}
		n++
	}
	return n, failed
}

// RepairForward gives every mismatched agent a fresh path under the current
// master and revokes stale keys, in one pass. What failed is joined; the rest
// is done.
func (r *Registry) RepairForward(ctx context.Context, master identity.MasterKey, d identity.Drift) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var failed error
	for _, m := range d.Mismatched {
		a, err := r.getLocked(m.ID)
		if err == nil {
			err = r.retireLocked(ctx, a.Address)
		}
		if err == nil {
			_, err = r.moveLocked(a, master, "agent_repaired")
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", m.Name, err))
		}
	}
	ids := make([]string, 0, len(d.StaleKeys))
	for _, k := range d.StaleKeys {
		ids = append(ids, k.ID)
	}
	if _, err := r.c.Keys.RevokeStale(ctx, ids); err != nil {
		failed = errors.Join(failed, fmt.Errorf("stale keys: %w", err))
	}
	return failed
}

// ClearAll takes every address away: part of Reset identity.
func (r *Registry) ClearAll(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var failed error
	for _, a := range r.view.Load().agents {
		if a.BuiltIn {
			continue
		}
		if _, err := r.clearLocked(ctx, a, "agent_reset"); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", a.Name, err))
		}
	}
	return failed
}
