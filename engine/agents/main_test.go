package agents

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

// Phrases of known-answers; public test keys.
const (
	aliceHex    = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
	alicePhrase = "project entry cook mango pause vast purse network regular mushroom divide chuckle river focus tobacco laundry galaxy tornado own online satisfy just wrap arctic"
	bobPhrase   = "flush crumble fish credit west spot length matrix group lucky belt beauty size drop hill bag kind calm rug scatter repeat rotate picnic resource"
)

var epoch = time.Unix(1_800_000_000, 0)

var errKilled = errors.New("the process was killed")

// killer ends the process at step at: before the step, or after it was done
// but before anybody learned so. Everything later fails too.
type killer struct {
	at    int // 0 never
	after bool
	steps int
	dead  bool
}

func (k *killer) step(do func() error) error {
	if k.dead {
		return errKilled
	}
	if k.steps++; k.steps != k.at {
		return do()
	}
	k.dead = true
	if k.after {
		if err := do(); err != nil {
			return err
		}
	}
	return errKilled
}

// vault is a keystore in memory that outlives a restart.
type vault struct {
	mu    sync.Mutex
	items map[[2]string][]byte
	k     *killer
}

func (v *vault) Get(_ context.Context, service, account string) (secret.Bytes, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if value, ok := v.items[[2]string{service, account}]; ok {
		return secret.New(value), nil
	}
	return secret.Bytes{}, fault.KeyNotFound
}

func (v *vault) Put(_ context.Context, service, account string, value secret.Bytes) error {
	return v.k.step(func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.items[[2]string{service, account}] = bytes.Clone(value.Expose())
		return nil
	})
}

func (v *vault) Delete(_ context.Context, service, account string) error {
	return v.k.step(func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.items, [2]string{service, account})
		return nil
	})
}

func (v *vault) List(_ context.Context, service string) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var accounts []string
	for at := range v.items {
		if at[0] == service {
			accounts = append(accounts, at[1])
		}
	}
	slices.Sort(accounts)
	return accounts, nil
}

type mortalFiles struct{ k *killer }

func (f mortalFiles) Write(path string, data []byte) error {
	return f.k.step(func() error { return disk{}.Write(path, data) })
}

func (f mortalFiles) Remove(path string) error {
	return f.k.step(func() error { return disk{}.Remove(path) })
}

// host is a home and what stands in it.
type host struct {
	t     testing.TB
	home  string
	vault *vault
	k     *killer
	now   time.Time

	account  *identity.Account
	keys     *accesskey.Keys
	registry *Registry
	retired  []address.Address
	events   []string
}

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{t: t, home: t.TempDir(), now: epoch, k: &killer{}}
	h.vault = &vault{items: map[[2]string][]byte{}, k: h.k}
	h.open()
	return h
}

// open starts the host anew on what is in its home.
func (h *host) open() {
	h.t.Helper()
	*h.k = killer{}
	now := func() time.Time { return h.now }
	log := func(event string, attrs ...slog.Attr) { h.events = append(h.events, fmt.Sprint(event, attrs)) }
	var err error
	if h.account, err = identity.OpenAccount(identity.AccountConfig{Vault: h.vault, Dir: filepath.Join(h.home, "identity"), Now: now}); err != nil {
		h.t.Fatal(err)
	}
	if h.keys, err = accesskey.Open(context.Background(), accesskey.Config{Vault: h.vault, Now: now, Log: log}); err != nil {
		h.t.Fatal(err)
	}
	h.registry, err = Open(Config{Dir: h.dir(), Account: h.account, Keys: h.keys, Now: now, Log: log,
		Retired: func(_ context.Context, a address.Address) error {
			return h.k.step(func() error { h.retired = append(h.retired, a); return nil })
		}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.registry.files = mortalFiles{h.k}
}

func (h *host) dir() string { return filepath.Join(h.home, "agents") }

// restored gives the host alice's identity and unlocks it.
func restored(t testing.TB) *host {
	t.Helper()
	h := newHost(t)
	if _, err := h.registry.Restore(t.Context(), text(alicePhrase), false); err != nil {
		t.Fatal(err)
	}
	h.events = nil
	return h
}

func (h *host) create(name string) Agent {
	h.t.Helper()
	a, err := h.registry.Create(h.t.Context(), Draft{Name: name})
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// assigned creates an agent with an address.
func (h *host) assigned(name string) Agent {
	h.t.Helper()
	a, err := h.registry.Assign(h.t.Context(), h.create(name).ID)
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// key mints an access key for an agent.
func (h *host) key(a address.Address) string {
	h.t.Helper()
	s, err := h.registry.Signer(h.t.Context(), a)
	if err != nil {
		h.t.Fatal(err)
	}
	minted, err := h.keys.Mint(h.t.Context(), s, accesskey.MintRequest{Expiration: accesskey.Days90})
	if err != nil {
		h.t.Fatal(err)
	}
	return string(minted.Token.Expose())
}

// signs fails the test unless the registry signs for a.
func (h *host) signs(a address.Address) {
	h.t.Helper()
	s, err := h.registry.Signer(h.t.Context(), a)
	if err != nil {
		h.t.Errorf("no signer for %s: %v", a, err)
		return
	}
	d := signature.SecureChannel.Digest([]byte("transcript"))
	sig, err := s.Sign(h.t.Context(), d)
	if err != nil || signature.Verify(d, sig, a) != nil || s.Address() != a {
		h.t.Errorf("signing for %s: %v", a, err)
	}
}

// file is the bytes of a record.
func (h *host) file(id string) []byte {
	h.t.Helper()
	raw, err := os.ReadFile(filepath.Join(h.dir(), id+".json"))
	if err != nil {
		h.t.Fatal(err)
	}
	return raw
}

func (h *host) writeFile(name, content string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir(), name), []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// every address that any record holds or held.
func (h *host) addresses() map[address.Address]int {
	all := map[address.Address]int{}
	for _, a := range h.registry.List() {
		if !a.Address.IsZero() {
			all[a.Address]++
		}
		for _, old := range a.Retired {
			all[old.Address]++
		}
	}
	return all
}

func (h *host) masterKey(scalar string) identity.MasterKey {
	h.t.Helper()
	raw, err := hex.DecodeString(scalar)
	if err != nil {
		h.t.Fatal(err)
	}
	m, err := identity.NewMasterKey(secret.Take(raw))
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

func text(s string) secret.Bytes { return secret.New([]byte(s)) }

func names(agents []Agent) []string {
	var out []string
	for _, a := range agents {
		out = append(out, a.Name)
	}
	return out
}

func sortedKeys(m map[string]error) []string { return slices.Sorted(maps.Keys(m)) }
