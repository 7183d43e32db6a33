package agents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"

	"github.com/google/uuid"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
)

// Create adds an agent without an address.
func (r *Registry) Create(_ context.Context, d Draft) (a Agent, err error) {
	err = r.changing(func() error {
		a, err = r.create(d)
		return err
	})
	return a, err
}

func (r *Registry) create(d Draft) (Agent, error) {
	d, err := d.clean()
	if err != nil {
		return Agent{}, err
	}
	v := r.view.Load()
	if len(v.agents) > MaxAgents {
		return Agent{}, fault.WithText(fault.Usage, fmt.Sprintf("a host has at most %d agents", MaxAgents))
	}
	id, err := uuid.NewRandomFromReader(r.c.Rand)
	if err != nil {
		return Agent{}, fmt.Errorf("agents: reading randomness: %w", err)
	}
	a := Agent{ID: strings.ToUpper(id.String()), Created: r.c.Now().Unix()}
	_, taken := v.agents[a.ID]
	if _, damaged := v.damaged[a.ID+".json"]; taken || damaged {
		return Agent{}, fault.New(fault.Exists, errors.New("agents: the randomness repeats"))
	}
	d.apply(&a)
	if a, err = r.save(a, identity.AgentKey{}); err == nil {
		r.log("agent_created", a)
	}
	return a, err
}

// Update changes the editable part of a record through edit. The built-in
// agent can be edited too.
func (r *Registry) Update(_ context.Context, id string, edit func(*Draft)) (a Agent, err error) {
	err = r.changing(func() error {
		a, err = r.update(id, edit)
		return err
	})
	return a, err
}

func (r *Registry) update(id string, edit func(*Draft)) (Agent, error) {
	a, ok := r.Get(id)
	if !ok {
		return Agent{}, fault.AgentNotFound
	}
	if err := r.view.Load().damaged[a.ID+".json"]; err != nil {
		return Agent{}, err
	}
	d := a.Draft()
	edit(&d)
	d, err := d.clean()
	if err != nil {
		return Agent{}, err
	}
	d.apply(&a)
	return r.save(a, identity.AgentKey{})
}

// Delete revokes the agent's keys, then removes its record.
func (r *Registry) Delete(ctx context.Context, id string) error {
	return r.changing(func() error {
		a, err := r.changeable(id)
		if err != nil {
			return err
		}
		return r.leave(ctx, a.Address, func() error {
			if err := r.files.Remove(r.path(a.ID)); err != nil {
				return err
			}
			v := *r.view.Load()
			v.agents, v.signers = maps.Clone(v.agents), maps.Clone(v.signers)
			delete(v.agents, a.ID)
			delete(v.signers, a.Address)
			r.show(v)
			r.log("agent_deleted", a)
			return nil
		})
	})
}

// Assign gives an agent its first address. One that has an address keeps it.
func (r *Registry) Assign(ctx context.Context, id string) (a Agent, err error) {
	err = r.changing(func() error {
		if a, err = r.changeable(id); err != nil || !a.Address.IsZero() {
			return err
		}
		a, err = r.moveWithMaster(ctx, a, "give "+a.Name+" an address", "agent_assigned")
		return err
	})
	return a, err
}

// Rotate gives an agent a fresh path and address. Every key for the old
// address is revoked before the record changes: a crash in between leaves the
// old address with no key to it, and Rotate can run again.
func (r *Registry) Rotate(ctx context.Context, id string) (a Agent, err error) {
	err = r.changing(func() error {
		if a, err = r.changeable(id); err != nil {
			return err
		}
		if a.Address.IsZero() {
			return fault.WithText(fault.Usage, "the agent has no address to rotate; assign one first")
		}
		a, err = r.moveWithMaster(ctx, a, "rotate the address of "+a.Name, "agent_rotated")
		return err
	})
	return a, err
}

// Revoke takes an agent's address and path away and revokes its keys. The
// agent stays.
func (r *Registry) Revoke(ctx context.Context, id string) (a Agent, err error) {
	err = r.changing(func() error {
		if a, err = r.changeable(id); err != nil || a.Address.IsZero() {
			return err
		}
		a, err = r.clear(ctx, a, "agent_revoked")
		return err
	})
	return a, err
}

func (r *Registry) clear(ctx context.Context, a Agent, event string) (Agent, error) {
	gone := a
	err := r.leave(ctx, a.Address, func() (err error) {
		a, err = r.save(a.moved(nil, address.Address{}, r.c.Now().Unix()), identity.AgentKey{})
		return err
	})
	if err != nil {
		return Agent{}, err
	}
	r.log(event, gone)
	return a, nil
}

func (r *Registry) moveWithMaster(ctx context.Context, a Agent, reason, event string) (Agent, error) {
	master, err := r.c.Account.Unlock(ctx, reason)
	if err != nil {
		return Agent{}, err
	}
	defer master.Destroy()
	return r.move(ctx, a, master, event)
}

// move gives a a fresh path under master. The key is derived before anything
// is revoked, so what can fail early does.
func (r *Registry) move(ctx context.Context, a Agent, master identity.MasterKey, event string) (Agent, error) {
	path, key, err := r.freshKey(master)
	if err != nil {
		return Agent{}, err
	}
	err = r.leave(ctx, a.Address, func() (err error) {
		a, err = r.save(a.moved(&path, key.Address(), r.c.Now().Unix()), key)
		return err
	})
	if err != nil {
		key.Destroy()
		return Agent{}, err
	}
	r.log(event, a)
	return a, nil
}

// freshKey derives the key at an index that is on disk as used, and skips
// those that derive none.
func (r *Registry) freshKey(master identity.MasterKey) (identity.Path, identity.AgentKey, error) {
	scope := r.c.Account.Device().ID
	for {
		index, err := r.c.Account.AllocateIndex(r.lowestIndex(scope))
		if err != nil {
			return identity.Path{}, identity.AgentKey{}, err
		}
		path := identity.Path{Index: index, Scope: scope}
		key, err := r.derive(master, path)
		if !errors.Is(err, identity.ErrSkipIndex) {
			return path, key, err
		}
	}
}

// lowestIndex is above every index of scope that a record holds or held,
// whatever the counter of the device says.
func (r *Registry) lowestIndex(scope string) uint64 {
	var lowest uint64
	see := func(p *identity.Path) {
		if p != nil && p.Scope == scope {
			lowest = max(lowest, uint64(p.Index)+1)
		}
	}
	for _, a := range r.view.Load().agents {
		see(a.Path)
		for _, old := range a.Retired {
			see(old.Path)
		}
	}
	return lowest
}

// leave ends an address around then, which changes the record. The signer is
// paused first, so no key can be minted for the address after its keys were
// revoked; it resumes when the change fails.
func (r *Registry) leave(ctx context.Context, old address.Address, then func() error) error {
	if old.IsZero() {
		return then()
	}
	s := r.view.Load().signers[old]
	if s != nil {
		s.pause(true)
	}
	err := r.retire(ctx, old)
	if err == nil {
		err = then()
	}
	switch {
	case s == nil:
	case err != nil:
		s.pause(false)
	default:
		s.destroy()
	}
	return err
}

func (r *Registry) retire(ctx context.Context, old address.Address) error {
	if _, err := r.c.Keys.RevokeAudience(ctx, old); err != nil {
		return fmt.Errorf("revoking the agent's access keys: %w", err)
	}
	return r.c.Retired(ctx, old)
}

// changeable finds an agent whose address may change.
func (r *Registry) changeable(id string) (Agent, error) {
	a, ok := r.Get(id)
	if !ok {
		return Agent{}, fault.AgentNotFound
	}
	if a.BuiltIn {
		return Agent{}, fault.WithText(fault.Usage, "the built-in agent has no address and cannot be deleted")
	}
	return a, nil
}

func (r *Registry) log(event string, a Agent) {
	attrs := []slog.Attr{slog.String("agentId", a.ID)}
	if !a.Address.IsZero() {
		attrs = append(attrs, slog.String("address", a.Address.String()))
	}
	r.c.Log(event, attrs...)
}
