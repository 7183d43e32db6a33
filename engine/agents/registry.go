package agents

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
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
	Dir     string // <home>/agents
	Account *identity.Account
	Keys    *accesskey.Keys
	// Retired is called with an address that ended, after its keys were
	// revoked and before the record changes; nil does nothing.
	Retired func(ctx context.Context, a address.Address) error
	Now     func() time.Time
	Rand    io.Reader
	Log     func(event string, attrs ...slog.Attr)
}

// Registry is safe for concurrent use. Reads take a snapshot without a lock.
type Registry struct {
	c    Config
	view atomic.Pointer[view]

	mu        sync.Mutex // serialises changes
	observers []func()
	damaged   map[string]error // file name -> why it was not loaded
}

// view is an immutable picture of the records and signers.
type view struct {
	agents   map[string]Agent
	byAddr   map[address.Address]string
	signers  map[address.Address]identity.AgentKey
	unlocked bool
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
	r := &Registry{c: c, damaged: map[string]error{}}
	agents, err := r.load()
	if err != nil {
		return nil, err
	}
	agents[DefaultID] = Agent{ID: DefaultID, Name: "Osaurus", Description: "The owner's own agent", BuiltIn: true}
	r.view.Store(newView(agents, nil, false))
	return r, nil
}

func (r *Registry) load() (map[string]Agent, error) {
	entries, err := os.ReadDir(r.c.Dir)
	if err != nil {
		return nil, err
	}
	agents := map[string]Agent{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(id, ".") || !e.Type().IsRegular() {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(r.c.Dir, e.Name()))
		if err != nil {
			return nil, err
		}
		a, err := parse(raw, id)
		if err != nil {
			r.damaged[e.Name()] = err
			continue
		}
		agents[a.ID] = a
	}
	return agents, nil
}

func newView(agents map[string]Agent, signers map[address.Address]identity.AgentKey, unlocked bool) *view {
	v := &view{agents: agents, byAddr: map[address.Address]string{}, signers: signers, unlocked: unlocked}
	for id, a := range agents {
		if !a.Address.IsZero() {
			v.byAddr[a.Address] = id
		}
	}
	return v
}

// Damaged returns the files that were not loaded, and why.
func (r *Registry) Damaged() map[string]error { return maps.Clone(r.damaged) }

// OnChange registers f, called after every change is durable. f must not call
// back into changing methods.
func (r *Registry) OnChange(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observers = append(r.observers, f)
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
		if a.Created != b.Created {
			return int(a.Created - b.Created)
		}
		return strings.Compare(a.ID, b.ID)
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
	return v.agents[id], ok && !a.IsZero()
}

// Resolve finds an agent by UUID or address in any case. Errors:
// fault.InvalidAgentID when it is neither, fault.AgentNotFound.
func (r *Registry) Resolve(idOrAddress string) (Agent, error) {
	if len(idOrAddress) == 36 && uuid.Validate(idOrAddress) == nil {
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

// Signer returns the signer of an agent's address. Nothing is unlocked for it:
// fault.UnknownAgentAddress, or fault.HostIdentityUnavailable while locked.
func (r *Registry) Signer(_ context.Context, a address.Address) (identity.Signer, error) {
	v := r.view.Load()
	if _, ok := v.byAddr[a]; !ok || a.IsZero() {
		return nil, fault.UnknownAgentAddress
	}
	if key, ok := v.signers[a]; ok {
		return key, nil
	}
	return nil, fault.HostIdentityUnavailable
}

// Unlocked reports whether signers are held.
func (r *Registry) Unlocked() bool { return r.view.Load().unlocked }

// Unlock derives the key of every agent with an address and keeps it until
// Lock. An agent whose stored address the master does not derive gets no
// signer: the drift check reports it.
func (r *Registry) Unlock(master identity.MasterKey) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.view.Load()
	signers := map[address.Address]identity.AgentKey{}
	for _, a := range v.agents {
		p := a.Path()
		if p == nil || a.Address.IsZero() {
			continue
		}
		key, err := master.Agent(*p)
		if err != nil {
			return err
		}
		if key.Address() != a.Address {
			key.Destroy()
			continue
		}
		signers[a.Address] = key
	}
	r.view.Store(newView(v.agents, signers, true))
	return nil
}

// Lock destroys every signer. Signing in flight must have ended.
func (r *Registry) Lock() {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.view.Load()
	r.view.Store(newView(v.agents, nil, false))
	for _, key := range v.signers {
		key.Destroy()
	}
}

// save writes one record, then shows it. signer is the key of its address when
// it is known.
func (r *Registry) saveLocked(a Agent, signer *identity.AgentKey) error {
	a.Updated = r.c.Now().Unix()
	raw, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(r.path(a.ID), append(raw, '\n')); err != nil {
		return err
	}
	v := r.view.Load()
	agents, signers := maps.Clone(v.agents), maps.Clone(v.signers)
	if old := agents[a.ID]; old.Address != a.Address {
		delete(signers, old.Address)
	}
	agents[a.ID] = a
	if signer != nil && v.unlocked {
		signers[a.Address] = *signer
	}
	r.view.Store(newView(agents, signers, v.unlocked))
	r.changedLocked()
	return nil
}

func (r *Registry) changedLocked() {
	for _, f := range r.observers {
		f()
	}
}

func (r *Registry) path(id string) string { return filepath.Join(r.c.Dir, id+".json") }

// getLocked finds an agent that may be changed.
func (r *Registry) getLocked(id string) (Agent, error) {
	a, ok := r.Get(id)
	if !ok {
		return Agent{}, fault.AgentNotFound
	}
	if a.BuiltIn {
		return Agent{}, fault.WithText(fault.Usage, "the built-in agent cannot be changed")
	}
	return a, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
