package identity

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/secret"
)

var errKilled = errors.New("the process was killed")

// killer ends the process at step at: before the step, or after it was done
// but before anybody learned so. Everything later fails too.
type killer struct {
	at    int
	after bool
	steps int
	dead  bool
}

func (k *killer) step(do func() error) error {
	if k.dead {
		return errKilled
	}
	if k.steps++; k.steps < k.at {
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

// mortalVault and mortalFiles count the steps that change something.
type mortalVault struct {
	*vaultMap
	k *killer
}

func (v mortalVault) Put(ctx context.Context, service, account string, value secret.Bytes) error {
	return v.k.step(func() error { return v.vaultMap.Put(ctx, service, account, value) })
}

func (v mortalVault) Delete(ctx context.Context, service, account string) error {
	return v.k.step(func() error { return v.vaultMap.Delete(ctx, service, account) })
}

type mortalFiles struct{ k *killer }

func (f mortalFiles) Write(path string, data []byte) error {
	return f.k.step(func() error { return disk{}.Write(path, data) })
}

func (f mortalFiles) Remove(path string) error {
	return f.k.step(func() error { return disk{}.Remove(path) })
}

func (w *world) openMortal(t *testing.T, k *killer) *Account {
	t.Helper()
	c := w.config()
	c.Vault = mortalVault{w.vault, k}
	a, err := OpenAccount(c)
	if err != nil {
		t.Fatal(err)
	}
	a.files, a.device.files = mortalFiles{k}, mortalFiles{k}
	return a
}

// everyCrash runs change in a fresh world once for each step at which it can
// die, on both sides of the step, and then has the survivors checked. It
// fails if the change has fewer steps than promised.
func everyCrash(t *testing.T, steps int, setup func(*testing.T) *world, change func(context.Context, *Account) error, check func(*testing.T, *world, *Account)) {
	t.Helper()
	for at := 1; ; at++ {
		for _, after := range []bool{false, true} {
			w := setup(t)
			k := &killer{at: at, after: after}
			err := change(t.Context(), w.openMortal(t, k))
			if !k.dead {
				if err != nil {
					t.Fatalf("the undisturbed change: %v", err)
				}
				if at-1 != steps {
					t.Errorf("the change has %d steps, want %d: update this test", at-1, steps)
				}
				return
			}
			if !errors.Is(err, errKilled) {
				t.Errorf("killed at step %d (after: %v), but the change returned %v", at, after, err)
			}
			check(t, w, w.open(t))
		}
	}
}

// consistent wants a state that an owner can go on from, and one master that
// unlocks and stands on record after unlocking.
func consistent(t *testing.T, a *Account, allowed ...string) State {
	t.Helper()
	s, err := a.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.State != Ready {
		return s.State
	}
	m, err := a.Unlock(t.Context(), "check")
	if err != nil {
		t.Fatalf("a present master does not unlock: %v", err)
	}
	defer m.Destroy()
	if a.Address() != m.Address() {
		t.Errorf("on record %s, in the keystore %s", a.Address(), m.Address())
	}
	if len(allowed) > 0 && !strings.Contains(strings.Join(allowed, " "), m.Address().String()) {
		t.Errorf("the master is %s, want one of %v", m.Address(), allowed)
	}
	return Ready
}

func TestCrashWhileGenerating(t *testing.T) {
	t.Parallel()
	everyCrash(t, 2,
		func(t *testing.T) *world { w := newWorld(t); w.open(t); return w },
		func(ctx context.Context, a *Account) error { _, err := a.Generate(ctx); return err },
		func(t *testing.T, w *world, a *Account) {
			switch state := consistent(t, a); state {
			case None:
				if _, err := a.Generate(t.Context()); err != nil {
					t.Errorf("starting over: %v", err)
				}
			case Ready: // created but never shown: it shows now
				if p, err := a.Phrase(t.Context()); err != nil || p.IsZero() {
					t.Errorf("the phrase nobody saw: %v", err)
				}
			default:
				t.Errorf("state %s", state)
			}
		})
}

func TestCrashWhileRestoring(t *testing.T) {
	t.Parallel()
	everyCrash(t, 3,
		func(t *testing.T) *world { return newWorld(t).with(t, aliceHex) },
		func(ctx context.Context, a *Account) error {
			_, err := a.Restore(ctx, text(bobPhrase), nil, true)
			return err
		},
		func(t *testing.T, w *world, a *Account) {
			if consistent(t, a, aliceAddress, bobAddress) != Ready || !w.vault.holds(VaultAccount, aliceHex) && !w.vault.holds(backupAccount, aliceHex) {
				t.Fatal("the old master is lost")
			}
			if _, err := a.Restore(t.Context(), text(bobPhrase), nil, true); err != nil {
				t.Fatal(err)
			}
			consistent(t, a, bobAddress)
			if !w.vault.holds(backupAccount, aliceHex) {
				t.Error("the old master is no longer kept")
			}
		})
}

func TestCrashWhileConfirmingAReplacement(t *testing.T) {
	t.Parallel()
	everyCrash(t, 2,
		func(t *testing.T) *world {
			w := newWorld(t).with(t, aliceHex)
			a := w.open(t)
			for _, phrase := range []string{bobPhrase, alicePhrase} {
				if _, err := a.Restore(t.Context(), text(phrase), nil, true); err != nil {
					t.Fatal(err)
				}
			}
			return w
		},
		func(ctx context.Context, a *Account) error { return a.ConfirmReplacement(ctx) },
		func(t *testing.T, w *world, a *Account) {
			if consistent(t, a, aliceAddress) != Ready {
				t.Error("the master is gone")
			}
			if err := a.ConfirmReplacement(t.Context()); err != nil || len(w.vault.items) != 1 {
				t.Errorf("again: %v, %d items", err, len(w.vault.items))
			}
		})
}

func TestCrashWhileUndoing(t *testing.T) {
	t.Parallel()
	everyCrash(t, 3,
		func(t *testing.T) *world {
			w := newWorld(t).with(t, aliceHex)
			if _, err := w.open(t).Restore(t.Context(), text(bobPhrase), nil, true); err != nil {
				t.Fatal(err)
			}
			return w
		},
		func(ctx context.Context, a *Account) error { _, err := a.UndoReplacement(ctx); return err },
		func(t *testing.T, w *world, a *Account) {
			if consistent(t, a, aliceAddress, bobAddress) != Ready || !w.vault.holds("", aliceHex) {
				t.Error("the kept master is lost")
			}
		})
}

func TestCrashWhileResetting(t *testing.T) {
	t.Parallel()
	var device Device
	everyCrash(t, 3,
		func(t *testing.T) *world {
			w := newWorld(t).with(t, aliceHex)
			a := w.open(t)
			device = a.Device()
			if _, err := a.AllocateIndex(7); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Restore(t.Context(), text(bobPhrase), nil, true); err != nil {
				t.Fatal(err)
			}
			return w
		},
		func(ctx context.Context, a *Account) error { return a.Reset(ctx) },
		func(t *testing.T, w *world, a *Account) {
			if state := consistent(t, a, bobAddress); state == None && a.Address().IsZero() == false {
				t.Error("none, but an address shows")
			}
			if err := a.Reset(t.Context()); err != nil || len(w.vault.items) != 0 {
				t.Errorf("again: %v, %d items", err, len(w.vault.items))
			}
			if state := consistent(t, a); state != None || a.Device() != device {
				t.Errorf("state %s, device %+v", state, a.Device())
			}
			if index, err := a.AllocateIndex(0); err != nil || index != 8 {
				t.Errorf("index %d, %v", index, err)
			}
		})
}

func TestCrashWhileAcknowledging(t *testing.T) {
	t.Parallel()
	everyCrash(t, 1,
		func(t *testing.T) *world { return newWorld(t).with(t, aliceHex) },
		func(ctx context.Context, a *Account) error { return a.Acknowledge(ctx) },
		func(t *testing.T, _ *world, a *Account) { consistent(t, a, aliceAddress) })
}

func TestCrashWhileAllocating(t *testing.T) {
	t.Parallel()
	var shown []uint32
	everyCrash(t, 3,
		func(t *testing.T) *world { shown = nil; return newWorld(t) },
		func(_ context.Context, a *Account) error {
			for range 3 {
				index, err := a.AllocateIndex(0)
				if err != nil {
					return err
				}
				shown = append(shown, index)
			}
			return nil
		},
		func(t *testing.T, _ *world, a *Account) {
			next, err := a.AllocateIndex(0)
			if err != nil || len(shown) > 0 && next <= shown[len(shown)-1] {
				t.Errorf("index %d after %v, %v", next, shown, err)
			}
		})
}

func TestCrashWhileMintingARequestToken(t *testing.T) {
	t.Parallel()
	var shown uint64
	mint := func(ctx context.Context, a *Account) (uint64, error) {
		m, err := a.Unlock(ctx, "sign")
		if err != nil {
			return 0, err
		}
		defer m.Destroy()
		token, err := a.MintRequestToken(ctx, m, TokenRequest{Audience: "host", Action: "GET /"})
		if err != nil {
			return 0, err
		}
		parsed, err := ParseRequestToken(string(token.Expose()))
		return parsed.Claims.Counter, err
	}
	everyCrash(t, 2,
		func(t *testing.T) *world { shown = 0; return newWorld(t).with(t, aliceHex) },
		func(ctx context.Context, a *Account) (err error) {
			if shown, err = mint(ctx, a); err == nil {
				shown, err = mint(ctx, a)
			}
			return err
		},
		func(t *testing.T, _ *world, a *Account) {
			if next, err := mint(t.Context(), a); err != nil || next <= shown {
				t.Errorf("counter %d after %d, %v", next, shown, err)
			}
		})
}

// A crash in the middle of writing leaves a temporary file beside the record;
// it disturbs nothing.
func TestLeftoversOfACrashAreIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	for _, name := range []string{".account.json.tmp-123", ".device.json.tmp-456"} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(`{"version":`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	consistent(t, w.open(t), aliceAddress)
}
