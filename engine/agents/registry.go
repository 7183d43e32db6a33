package agents

import (
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
)

// Config configures Open. Dir, Account and Keys are required.
type Config struct {
	Dir     string // <home>/agents, created when missing
	Account *identity.Account
	Keys    *accesskey.Keys
	// Retired is called with an address that ends, after its keys were revoked
	// and before the record changes; its error stops the change. It may run
	// again for the same address. nil does nothing.
	Retired func(ctx context.Context, a address.Address) error
	Now     func() time.Time                       // nil means time.Now
	Rand    io.Reader                              // nil means crypto/rand
	Log     func(event string, attrs ...slog.Attr) // nil drops events
}

// Registry is safe for concurrent use. Reads take a snapshot without a lock
// and see a change as soon as its method returned.
type Registry struct {
	c      Config
	files  files
	derive func(identity.MasterKey, identity.Path) (identity.AgentKey, error)
	view   atomic.Pointer[view]

	change sync.Mutex // one change at a time, held while the owner is asked

	notify    sync.Mutex // orders the calls of observers
	observers []func()
}

// view is an immutable picture.
type view struct {
	agents   map[string]Agent
	byAddr   map[address.Address]string
	damaged  map[string]error
	signers  signers
	unlocked bool
	health   Health
}

// Open loads every record and adds the built-in agent. A damaged file is
// reported by Damaged and left untouched; the others load.
func Open(c Config) (*Registry, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = func(string, ...slog.Attr) {}
	}
	if c.Retired == nil {
		c.Retired = func(context.Context, address.Address) error { return nil }
	}
	if err := atomicfile.MkdirAll(c.Dir); err != nil {
		return nil, err
	}
	agents, damaged, err := load(c.Dir)
	if err != nil {
		return nil, err
	}
	builtIn, edited := agents[DefaultID]
	if !edited {
		builtIn = Agent{ID: DefaultID, Name: "Osaurus", Description: "The owner's own agent"}
	}
	builtIn.BuiltIn, builtIn.BonjourEnabled = true, false
	agents[DefaultID] = builtIn
	r := &Registry{c: c, files: disk{}, derive: identity.MasterKey.Agent}
	r.show(view{agents: agents, damaged: damaged})
	return r, nil
}

// show makes v what everybody sees and what access keys are judged by.
func (r *Registry) show(v view) {
	v.byAddr = map[address.Address]string{}
	for id, a := range v.agents {
		if !a.Address.IsZero() && !a.BuiltIn {
			v.byAddr[a.Address] = id
		}
	}
	r.view.Store(&v)
	r.c.Keys.SetAudiences(r.c.Account.Address(), slices.Collect(maps.Keys(v.byAddr)))
}

// Damaged returns the files that were not loaded, and why.
func (r *Registry) Damaged() map[string]error { return maps.Clone(r.view.Load().damaged) }

// OnChange registers f, which is called after every change is durable and
// visible, one call at a time. f must not change agents.
func (r *Registry) OnChange(f func()) {
	r.notify.Lock()
	defer r.notify.Unlock()
	r.observers = append(r.observers, f)
}

// changing runs one change and then tells the observers, if anything moved.
func (r *Registry) changing(change func() error) error {
	before := r.view.Load()
	err := func() error {
		r.change.Lock()
		defer r.change.Unlock()
		return change()
	}()
	if r.view.Load() != before {
		r.notify.Lock()
		defer r.notify.Unlock()
		for _, f := range r.observers {
			f()
		}
	}
	return err
}

// List returns all agents, the built-in one first, then by creation.
func (r *Registry) List() []Agent {
	list := slices.Collect(maps.Values(r.view.Load().agents))
	slices.SortFunc(list, func(a, b Agent) int {
		if a.BuiltIn != b.BuiltIn {
			if a.BuiltIn {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// Get finds an agent by UUID, in any case.
func (r *Registry) Get(id string) (Agent, bool) {
	a, ok := r.view.Load().agents[strings.ToUpper(id)]
	return a, ok
}

// ByAddress finds the agent that has an address now.
func (r *Registry) ByAddress(a address.Address) (Agent, bool) {
	v := r.view.Load()
	id, ok := v.byAddr[a]
	return v.agents[id], ok
}

// Resolve finds an agent by UUID or address in any case. Errors:
// fault.InvalidAgentID when it is neither, fault.AgentNotFound.
func (r *Registry) Resolve(idOrAddress string) (Agent, error) {
	if len(idOrAddress) == uuidLength && uuid.Validate(idOrAddress) == nil {
		if a, ok := r.Get(idOrAddress); ok {
			return a, nil
		}
		return Agent{}, fault.AgentNotFound
	}
	addr, err := address.Parse(idOrAddress)
	if err != nil {
		return Agent{}, fault.InvalidAgentID
	}
	if a, ok := r.ByAddress(addr); ok {
		return a, nil
	}
	return Agent{}, fault.AgentNotFound
}

// Addresses returns the addresses of all agents that have one.
func (r *Registry) Addresses() []address.Address {
	return slices.Collect(maps.Keys(r.view.Load().byAddr))
}

// Refs returns what identity's checks need of every agent.
func (r *Registry) Refs() []identity.AgentRef {
	var refs []identity.AgentRef
	for _, a := range r.List() {
		refs = append(refs, a.Ref())
	}
	return refs
}

// Signer returns the signer of an agent's address. Nothing is unlocked for it.
// Errors: fault.UnknownAgentAddress, and fault.HostIdentityUnavailable while
// locked or when the master does not derive the address.
func (r *Registry) Signer(_ context.Context, a address.Address) (identity.Signer, error) {
	v := r.view.Load()
	if _, ok := v.byAddr[a]; !ok {
		return nil, fault.UnknownAgentAddress
	}
	if s, ok := v.signers[a]; ok {
		return s, nil
	}
	return nil, fault.HostIdentityUnavailable
}

// Unlocked reports whether signers are held.
func (r *Registry) Unlocked() bool { return r.view.Load().unlocked }

// Health returns what the last Unlock or Repair found.
func (r *Registry) Health() Health { return r.view.Load().health }

// save writes one record, then shows it. key, when set, becomes its signer.
func (r *Registry) save(a Agent, key identity.AgentKey) (Agent, error) {
	a.Updated = r.c.Now().Unix()
	raw, err := a.encode()
	if err != nil {
		return Agent{}, err
	}
	if err := r.files.Write(r.path(a.ID), raw); err != nil {
		return Agent{}, err
	}
	v := *r.view.Load()
	old := v.agents[a.ID]
	v.agents, v.signers = maps.Clone(v.agents), maps.Clone(v.signers)
	if old.Address != a.Address {
		delete(v.signers, old.Address)
	}
	v.agents[a.ID] = a
	if !key.IsZero() && v.unlocked {
		v.signers[a.Address] = &signer{addr: a.Address, key: key}
	} else {
		key.Destroy()
	}
	r.show(v)
	return a, nil
}

func (r *Registry) path(id string) string { return filepath.Join(r.c.Dir, id+".json") }
