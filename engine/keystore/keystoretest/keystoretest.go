// Package keystoretest is the suite that every keystore.Store passes.
package keystoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// Run checks a kind of store. open returns an empty one and, where it outlives
// its process, a way to open it again; reopen is nil where it does not.
func Run(t *testing.T, open func(t *testing.T) (s keystore.Store, reopen func() keystore.Store)) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, keystore.Store){
		"missing items": missing, "replace": replace, "names": names, "values": values,
		"copies": copies, "concurrent": concurrent, "closed": closed,
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			test(t, s)
			if err := s.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
		})
	}
	if s, reopen := open(t); reopen != nil {
		t.Run("durable", func(t *testing.T) { durable(t, s, reopen) })
	} else if err := s.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
}

var ctx = context.Background()

func put(t *testing.T, s keystore.Store, service, account, value string) {
	t.Helper()
	v := secret.New([]byte(value))
	defer v.Destroy()
	if err := s.Put(ctx, service, account, v); err != nil {
		t.Fatalf("putting %s/%s: %v", service, account, err)
	}
}

func want(t *testing.T, s keystore.Store, service, account, value string) {
	t.Helper()
	v, err := s.Get(ctx, service, account)
	if err != nil || string(v.Expose()) != value {
		t.Errorf("%s/%s holds %d bytes, want %d: %v", service, account, v.Len(), len(value), err)
	}
	v.Destroy()
}

func wantList(t *testing.T, s keystore.Store, service string, accounts ...string) {
	t.Helper()
	got, err := s.List(ctx, service)
	if err != nil || !slices.Equal(got, accounts) {
		t.Errorf("%s lists %q, want %q: %v", service, got, accounts, err)
	}
}

func missing(t *testing.T, s keystore.Store) {
	if _, err := s.Get(ctx, "a", "b"); !errors.Is(err, fault.KeyNotFound) {
		t.Errorf("an item that never was: %v", err)
	}
	if err := s.Delete(ctx, "a", "b"); err != nil {
		t.Errorf("deleting it: %v", err)
	}
	wantList(t, s, "a")
	put(t, s, "a", "b", "x")
	if err := s.Delete(ctx, "a", "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "a", "b"); !errors.Is(err, fault.KeyNotFound) {
		t.Errorf("a deleted item: %v", err)
	}
	wantList(t, s, "a")
}

func replace(t *testing.T, s keystore.Store) {
	put(t, s, "a", "b", "first")
	held, err := s.Get(ctx, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "b", "second, longer")
	want(t, s, "a", "b", "second, longer")
	if string(held.Expose()) != "first" {
		t.Error("replacing reached into a copy that was handed out")
	}
	wantList(t, s, "a", "b")
}

func names(t *testing.T, s keystore.Store) {
	odd := []string{"com.osaurus.account", "ü 🔑", "with/slash", "..", "a\nb", strings.Repeat("n", 200)}
	for i, service := range odd {
		for j, account := range odd {
			put(t, s, service, account, fmt.Sprint(i, j))
		}
	}
	sorted := slices.Sorted(slices.Values(odd))
	for i, service := range odd {
		wantList(t, s, service, sorted...)
		for j, account := range odd {
			want(t, s, service, account, fmt.Sprint(i, j))
		}
	}
	wantList(t, s, "com.osaurus")
}

func values(t *testing.T, s keystore.Store) {
	for _, v := range []string{"", "\x00", "\x00\xff\xfe", strings.Repeat("\x80", 64<<10)} {
		put(t, s, "a", "v", v)
		want(t, s, "a", "v", v)
	}
}

// copies: the store, its caller and its reader destroy apart.
func copies(t *testing.T, s keystore.Store) {
	v := secret.New([]byte("kept"))
	if err := s.Put(ctx, "a", "b", v); err != nil {
		t.Fatal(err)
	}
	v.Destroy()
	got, err := s.Get(ctx, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	got.Destroy()
	want(t, s, "a", "b", "kept")
}

func concurrent(t *testing.T, s keystore.Store) {
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			mine, value := fmt.Sprint("mine", i), []byte(strings.Repeat("x", i))
			for range 5 {
				for _, account := range []string{mine, "shared"} {
					if err := s.Put(ctx, "a", account, secret.New(value)); err != nil {
						t.Error(err)
					}
				}
				got, err := s.Get(ctx, "a", mine)
				if err != nil || !bytes.Equal(got.Expose(), value) {
					t.Errorf("%s: %v", mine, err)
				}
				if _, err := s.List(ctx, "a"); err != nil {
					t.Error(err)
				}
			}
			if err := s.Delete(ctx, "a", mine); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	wantList(t, s, "a", "shared")
}

// closed: nothing is answered after Close, and least of all "not found".
func closed(t *testing.T, s keystore.Store) {
	put(t, s, "a", "b", "x")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, getErr := s.Get(ctx, "a", "b")
	_, listErr := s.List(ctx, "a")
	for what, err := range map[string]error{"Get": getErr, "List": listErr, "Put": s.Put(ctx, "a", "b", secret.New([]byte("y"))), "Delete": s.Delete(ctx, "a", "none")} {
		if !errors.Is(err, fault.KeystoreLocked) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
}

func durable(t *testing.T, s keystore.Store, reopen func() keystore.Store) {
	put(t, s, "a", "kept", "1")
	put(t, s, "a", "replaced", "old")
	put(t, s, "a", "deleted", "2")
	put(t, s, "a", "replaced", "new")
	if err := s.Delete(ctx, "a", "deleted"); err != nil {
		t.Fatal(err)
	}
	strength := s.Strength()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen()
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	want(t, s, "a", "kept", "1")
	want(t, s, "a", "replaced", "new")
	wantList(t, s, "a", "kept", "replaced")
	if s.Strength() != strength {
		t.Errorf("it was %s and is %s", strength, s.Strength())
	}
}
