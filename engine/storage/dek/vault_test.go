package dek

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// broken fails, or forgets, what it is told to.
type broken struct {
	keystore.Store
	get, put, list error
	forgets        bool
}

func (b broken) Get(ctx context.Context, service, account string) (secret.Bytes, error) {
	if b.get != nil {
		return secret.Bytes{}, b.get
	}
	return b.Store.Get(ctx, service, account)
}

func (b broken) Put(ctx context.Context, service, account string, v secret.Bytes) error {
	if b.forgets {
		v = secret.New(make([]byte, v.Len()))
	}
	if b.put != nil {
		return b.put
	}
	return b.Store.Put(ctx, service, account, v)
}

func (b broken) List(ctx context.Context, service string) ([]string, error) {
	if b.list != nil {
		return nil, b.list
	}
	return b.Store.List(ctx, service)
}

func TestVaultLife(t *testing.T) {
	t.Parallel()
	ctx, store := t.Context(), keystore.NewMemory()
	v := Vault{store}
	if _, err := v.Current(ctx); !errors.Is(err, fault.KeyNotFound) {
		t.Fatal(err)
	}
	first, err := v.Create(ctx, bytes.NewReader(sequence(0, Size)))
	if err != nil || first.ID() != testKey(t).ID() {
		t.Fatalf("%v, %v", first.ID(), err)
	}
	if raw, err := store.Get(ctx, "com.osaurus.storage", "data-encryption-key"); err != nil || !bytes.Equal(raw.Expose(), sequence(0, Size)) {
		t.Errorf("the item is not the raw key, %v", err)
	}
	if _, err := v.Create(ctx, nil); !errors.Is(err, fault.Exists) {
		t.Errorf("a second key was made: %v", err)
	}
	second, err := Generate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.Stage(ctx, second), v.Retire(ctx, first), v.Install(ctx, second)); err != nil {
		t.Fatal(err)
	}
	others, err := v.Others(ctx)
	if err != nil || len(others) != 2 || !others[0].Equal(first) || !others[1].Equal(second) {
		t.Fatalf("%d others, %v", len(others), err)
	}
	if next, err := v.Next(ctx); err != nil || !next.Equal(second) {
		t.Error(err)
	}
	if err := errors.Join(v.Unstage(ctx), v.Forget(ctx, first.ID()), v.Forget(ctx, first.ID())); err != nil {
		t.Fatal(err)
	}
	if others, err := v.Others(ctx); err != nil || len(others) != 0 {
		t.Errorf("%d others, %v", len(others), err)
	}
	if got, err := v.Current(ctx); err != nil || !got.Equal(second) {
		t.Errorf("the current key: %v", err)
	}
	if err := errors.Join(v.PutSalt(ctx, secret.New(sequence(1, SaltSize))), v.PutPosture(ctx, []byte("{}"))); err != nil {
		t.Fatal(err)
	}
	salt, err := v.Salt(ctx)
	if posture, perr := v.Posture(ctx); err != nil || perr != nil || salt.Len() != SaltSize || string(posture) != "{}" {
		t.Errorf("%v, %v", err, perr)
	}
}

// TestNeverANewKeyInDoubt: an unreadable keystore is not an empty one, and a
// key that was not kept is not used.
func TestNeverANewKeyInDoubt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		store keystore.Store
		want  error
	}{
		"locked":        {broken{Store: keystore.NewMemory(), get: fault.KeystoreLocked}, fault.KeystoreLocked},
		"denied":        {broken{Store: keystore.NewMemory(), get: fault.KeystoreDenied}, fault.KeystoreDenied},
		"corrupt":       {broken{Store: keystore.NewMemory(), get: fault.KeystoreCorrupt}, fault.KeystoreCorrupt},
		"refuses write": {broken{Store: keystore.NewMemory(), put: fault.KeystoreDenied}, fault.KeystoreDenied},
		"forgets":       {broken{Store: keystore.NewMemory(), forgets: true}, ErrReadBack},
	} {
		if k, err := (Vault{c.store}).Create(t.Context(), nil); !errors.Is(err, c.want) || !k.IsZero() {
			t.Errorf("%s: %v", name, err)
		}
	}
	store := keystore.NewMemory()
	for _, n := range []int{1, Size - 1, Size + 1} {
		if err := store.Put(t.Context(), Service, Account, secret.New(make([]byte, n))); err != nil {
			t.Fatal(err)
		}
		if _, err := (Vault{store}).Current(t.Context()); !errors.Is(err, fault.KeystoreCorrupt) {
			t.Errorf("a value of %d bytes: %v", n, err)
		}
		if _, err := (Vault{store}).Create(t.Context(), nil); !errors.Is(err, fault.KeystoreCorrupt) {
			t.Errorf("it was replaced: %v", err)
		}
	}
	if err := store.Put(t.Context(), Service, Account+".next", secret.New([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	if _, err := (Vault{store}).Others(t.Context()); !errors.Is(err, fault.KeystoreCorrupt) {
		t.Error(err)
	}
	if _, err := (Vault{broken{Store: store, list: fault.KeystoreLocked}}).Others(t.Context()); !errors.Is(err, fault.KeystoreLocked) {
		t.Error(err)
	}
}
