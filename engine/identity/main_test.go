package identity

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// Keys and phrases of known-answers; public test keys.
const (
	aliceHex     = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
	bobHex       = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
	alicePhrase  = "project entry cook mango pause vast purse network regular mushroom divide chuckle river focus tobacco laundry galaxy tornado own online satisfy just wrap arctic"
	bobPhrase    = "flush crumble fish credit west spot length matrix group lucky belt beauty size drop hill bag kind calm rug scatter repeat rotate picnic resource"
	aliceAddress = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
	bobAddress   = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
)

var epoch = time.Unix(1_800_000_000, 0)

// vaultMap is a keystore in memory. Copies of the pointer are the same store,
// so it survives a "restart".
type vaultMap struct {
	mu    sync.Mutex
	items map[string][]byte // account -> value, of VaultService
	// fail, when set, may refuse any call by its name.
	fail func(call string) error
}

func newVault() *vaultMap { return &vaultMap{items: map[string][]byte{}} }

func (v *vaultMap) begin(call string) (func(), error) {
	v.mu.Lock()
	if v.fail != nil {
		if err := v.fail(call); err != nil {
			v.mu.Unlock()
			return nil, err
		}
	}
	return v.mu.Unlock, nil
}

func (v *vaultMap) Get(_ context.Context, service, account string) (secret.Bytes, error) {
	end, err := v.begin("get")
	if err != nil {
		return secret.Bytes{}, err
	}
	defer end()
	value, ok := v.items[account]
	if !ok || service != VaultService {
		return secret.Bytes{}, fault.KeyNotFound
	}
	return secret.New(value), nil
}

func (v *vaultMap) Put(_ context.Context, service, account string, value secret.Bytes) error {
	if service != VaultService {
		return errors.New("put into a foreign service: " + service)
	}
	end, err := v.begin("put")
	if err != nil {
		return err
	}
	defer end()
	v.items[account] = slices.Clone(value.Expose())
	return nil
}

func (v *vaultMap) Delete(_ context.Context, _, account string) error {
	end, err := v.begin("delete")
	if err != nil {
		return err
	}
	defer end()
	delete(v.items, account)
	return nil
}

func (v *vaultMap) List(context.Context, string) ([]string, error) {
	end, err := v.begin("list")
	if err != nil {
		return nil, err
	}
	defer end()
	return slices.Sorted(maps.Keys(v.items)), nil
}

// holds reports whether a scalar is kept under any account with this prefix.
func (v *vaultMap) holds(prefix, scalar string) bool {
	for account, value := range v.items {
		if len(account) >= len(prefix) && account[:len(prefix)] == prefix && hex.EncodeToString(value) == scalar {
			return true
		}
	}
	return false
}

type world struct {
	vault *vaultMap
	dir   string
	now   time.Time
	rand  *scripted
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return &world{vault: newVault(), dir: t.TempDir(), now: epoch, rand: &scripted{}}
}

// with puts a master in place as an earlier host would have left it.
func (w *world) with(t testing.TB, scalar string) *world {
	t.Helper()
	w.vault.items[VaultAccount] = unhex(t, scalar)
	master, err := w.open(t).Unlock(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	master.Destroy()
	return w
}

func (w *world) config() AccountConfig {
	return AccountConfig{Vault: w.vault, Dir: w.dir, Now: func() time.Time { return w.now }, Rand: w.rand}
}

func (w *world) open(t testing.TB) *Account {
	t.Helper()
	a, err := OpenAccount(w.config())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// scripted yields what was queued, then a counter: deterministic and never
// twice the same.
type scripted struct {
	queue []byte
	n     byte
}

func (s *scripted) Read(p []byte) (int, error) {
	n := copy(p, s.queue)
	s.queue = s.queue[n:]
	for i := n; i < len(p); i++ {
		s.n++
		p[i] = s.n
	}
	return len(p), nil
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func master(t testing.TB, scalar string) MasterKey {
	t.Helper()
	m, err := NewMasterKey(secret.New(unhex(t, scalar)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Destroy)
	return m
}

func text(s string) secret.Bytes { return secret.New([]byte(s)) }

func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

// events records what an account logs.
type events struct{ names []string }

func (e *events) log(event string, _ ...slog.Attr) { e.names = append(e.names, event) }
