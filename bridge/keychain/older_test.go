package keychain

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/keystore/keystoretest"
	"osaurus/engine/secret"
)

// attic is an Older in memory.
type attic struct {
	mu    sync.Mutex
	items map[string]string // by service/account
	fails error             // of every call
	stuck error             // of Remove
}

func (o *attic) Get(service, account string) (secret.Bytes, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	v, ok := o.items[service+"/"+account]
	switch {
	case o.fails != nil:
		return secret.Bytes{}, o.fails
	case !ok:
		return secret.Bytes{}, fault.KeyNotFound
	}
	return secret.New([]byte(v)), nil
}

func (o *attic) Accounts(service string) (list []string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name := range o.items {
		if rest, ok := cutService(name, service); ok {
			list = append(list, rest)
		}
	}
	return list, o.fails
}

func cutService(name, service string) (account string, ok bool) {
	if len(name) > len(service) && name[:len(service)+1] == service+"/" {
		return name[len(service)+1:], true
	}
	return "", false
}

func (o *attic) Remove(service, account string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := errors.Join(o.fails, o.stuck); err != nil {
		return err
	}
	delete(o.items, service+"/"+account)
	return nil
}

func (o *attic) has(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.items[name]
	return ok
}

func get(t *testing.T, s keystore.Store, account string) string {
	t.Helper()
	v, err := s.Get(t.Context(), "s", account)
	if err != nil {
		t.Fatalf("%s: %v", account, err)
	}
	defer v.Destroy()
	return string(v.Expose())
}

// TestAdopterIsAStore: with nothing old, and with an attic full of others'.
func TestAdopterIsAStore(t *testing.T) {
	t.Parallel()
	for what, items := range map[string]map[string]string{"empty": {}, "others": {"other/a": "x"}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			keystoretest.Run(t, func(*testing.T) (keystore.Store, func() keystore.Store) {
				return Adopt(keystore.NewMemory(), &attic{items: items}), nil
			})
		})
	}
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	inner, old := keystore.NewMemory(), &attic{items: map[string]string{"s/a": "1", "s/b": "2", "s/gone": "3", "s/new": "4"}}
	s := Adopt(inner, old)
	if list, err := s.List(t.Context(), "s"); err != nil || !slices.Equal(list, []string{"a", "b", "gone", "new"}) {
		t.Errorf("%v, %v", list, err)
	}
	if got := get(t, s, "a"); got != "1" || old.has("s/a") || get(t, inner, "a") != "1" {
		t.Errorf("it was not taken over: %q, %v", got, old.items)
	}
	if !old.has("s/b") {
		t.Error("one that nobody read was touched")
	}
	if err := s.Delete(t.Context(), "s", "gone"); err != nil || old.has("s/gone") {
		t.Errorf("deleted, and it would come back: %v", err)
	}
	if _, err := s.Get(t.Context(), "s", "gone"); !errors.Is(err, fault.KeyNotFound) {
		t.Errorf("deleted: %v", err)
	}
	if err := s.Put(t.Context(), "s", "new", secret.New([]byte("5"))); err != nil || old.has("s/new") || get(t, s, "new") != "5" {
		t.Errorf("replaced: %v", err)
	}
}

// forgetful loses what is put into it, or gives back something else.
type forgetful struct {
	keystore.Store
	lost error
	as   string
}

func (f *forgetful) Get(ctx context.Context, service, account string) (secret.Bytes, error) {
	v, err := f.Store.Get(ctx, service, account)
	switch {
	case err != nil:
		return v, err
	case f.lost != nil:
		return secret.Bytes{}, f.lost
	}
	return secret.New([]byte(f.as)), nil
}

// TestNothingGoesUnproven: an old item stays until its copy was read back.
func TestNothingGoesUnproven(t *testing.T) {
	t.Parallel()
	for want, inner := range map[error]*forgetful{fault.KeystoreLocked: {keystore.NewMemory(), fault.KeystoreLocked, ""}, fault.KeystoreCorrupt: {keystore.NewMemory(), nil, "other"}} {
		old := &attic{items: map[string]string{"s/a": "1", "s/b": "1"}}
		s := Adopt(inner, old)
		if _, err := s.Get(t.Context(), "s", "a"); !errors.Is(err, want) || !old.has("s/a") {
			t.Errorf("%v, want %v; %v", err, want, old.items)
		}
		if err := s.Put(t.Context(), "s", "b", secret.New([]byte("2"))); !errors.Is(err, want) || !old.has("s/b") {
			t.Errorf("put: %v, want %v; %v", err, want, old.items)
		}
	}
}

// TestCrashBetweenCopyAndRemoval: the next process finishes.
func TestCrashBetweenCopyAndRemoval(t *testing.T) {
	t.Parallel()
	inner, old := keystore.NewMemory(), &attic{items: map[string]string{"s/a": "1", "s/differs": "old"}, stuck: errors.New("cut off")}
	if get(t, Adopt(inner, old), "a") != "1" || !old.has("s/a") {
		t.Fatal("there is nothing to finish")
	}
	old.stuck = nil
	if err := inner.Put(t.Context(), "s", "differs", secret.New([]byte("new"))); err != nil {
		t.Fatal(err)
	}
	s := Adopt(inner, old)
	if get(t, s, "a") != "1" || old.has("s/a") {
		t.Error("it was not finished")
	}
	if get(t, s, "differs") != "new" || !old.has("s/differs") {
		t.Error("an item that differs was removed")
	}
}

// TestLockedAtticIsNoEmptyOne: what cannot be read never looks like nothing.
func TestLockedAtticIsNoEmptyOne(t *testing.T) {
	t.Parallel()
	inner, old := keystore.NewMemory(), &attic{items: map[string]string{}, fails: fault.KeystoreLocked}
	if err := inner.Put(t.Context(), "s", "here", secret.New([]byte("1"))); err != nil {
		t.Fatal(err)
	}
	s := Adopt(inner, old)
	_, getErr := s.Get(t.Context(), "s", "a")
	_, listErr := s.List(t.Context(), "s")
	for what, err := range map[string]error{"Get": getErr, "List": listErr, "Delete": s.Delete(t.Context(), "s", "a"), "Put": s.Put(t.Context(), "s", "a", secret.New([]byte("x")))} {
		if !errors.Is(err, fault.KeystoreLocked) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if get(t, s, "here") != "1" {
		t.Error("an item that is there cannot be read")
	}
}
