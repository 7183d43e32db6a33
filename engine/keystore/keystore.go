// Package keystore is the port for small secrets and its portable stores: a
// sealed file and memory. The operating system's own keystores stand behind
// the same port in bridge.
package keystore

import (
	"context"
	"slices"
	"sync"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// Store keeps small secrets under (service, account). It is safe for
// concurrent use. A store that cannot be read is never the same as one
// without the item.
type Store interface {
	// Get returns a copy that the caller destroys. Errors: fault.KeyNotFound,
	// fault.KeystoreLocked, fault.KeystoreCorrupt, fault.KeystoreDenied.
	Get(ctx context.Context, service, account string) (secret.Bytes, error)
	// Put creates or replaces an item; it is durable when Put returns nil.
	Put(ctx context.Context, service, account string, value secret.Bytes) error
	// Delete removes an item durably. A missing one is no error.
	Delete(ctx context.Context, service, account string) error
	// List returns the accounts of a service, sorted.
	List(ctx context.Context, service string) ([]string, error)
	// Strength says what protects the items at rest.
	Strength() Strength
	// Close forgets everything held in memory. Later calls fail locked.
	Close() error
}

// Remarker is a Store that has something to say to its owner about where its
// items are, in a sentence and an explanation; "" when all is as it should be.
type Remarker interface {
	Remark() (sentence, explanation string)
}

// Strength is what stands between a stolen disk and the items (decisions D10).
type Strength uint8

// The strengths, weakest first.
const (
	invalidStrength Strength = iota
	Unwrapped                // readable by whoever reads the file
	Passphrase               // sealed under a passphrase
	LoginSession             // sealed by the login session
	Hardware                 // sealed by hardware of this machine
)

// String returns the words shown to people.
func (s Strength) String() string {
	switch s {
	case Unwrapped:
		return "unwrapped"
	case Passphrase:
		return "passphrase"
	case LoginSession:
		return "login session"
	case Hardware:
		return "hardware"
	}
	return "unknown"
}

// items is the plain content of a store: service, account, value.
type items map[string]map[string]secret.Bytes

func (m items) get(service, account string) (secret.Bytes, error) {
	v, ok := m[service][account]
	if !ok {
		return secret.Bytes{}, fault.KeyNotFound
	}
	return v.Clone(), nil
}

func (m items) put(service, account string, value secret.Bytes) {
	if m[service] == nil {
		m[service] = map[string]secret.Bytes{}
	}
	m[service][account] = value
}

func (m items) list(service string) []string {
	accounts := []string{}
	for a := range m[service] {
		accounts = append(accounts, a)
	}
	slices.Sort(accounts)
	return accounts
}

func (m items) destroy() {
	for _, accounts := range m {
		for _, v := range accounts {
			v.Destroy()
		}
	}
}

// Memory is a Store that lasts as long as the process.
type Memory struct {
	mu     sync.Mutex
	items  items
	closed bool
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{items: items{}} }

// Get implements Store.
func (m *Memory) Get(_ context.Context, service, account string) (secret.Bytes, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return secret.Bytes{}, fault.KeystoreLocked
	}
	return m.items.get(service, account)
}

// Put implements Store.
func (m *Memory) Put(_ context.Context, service, account string, value secret.Bytes) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fault.KeystoreLocked
	}
	if old, ok := m.items[service][account]; ok {
		defer old.Destroy()
	}
	m.items.put(service, account, value.Clone())
	return nil
}

// Delete implements Store.
func (m *Memory) Delete(_ context.Context, service, account string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fault.KeystoreLocked
	}
	if old, ok := m.items[service][account]; ok {
		old.Destroy()
		delete(m.items[service], account)
	}
	return nil
}

// List implements Store.
func (m *Memory) List(_ context.Context, service string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, fault.KeystoreLocked
	}
	return m.items.list(service), nil
}

// Strength implements Store.
func (m *Memory) Strength() Strength { return Unwrapped }

// Close implements Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.items.destroy()
	m.items, m.closed = items{}, true
	return nil
}
