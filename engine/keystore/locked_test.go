package keystore

import (
	"errors"
	"path/filepath"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// TestLocked: every call fails with the reason, and the kind of store shows.
func TestLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "k.osks")
	f, err := OpenFile(path, secret.New([]byte("p")), FileOptions{MemoryKiB: 64, Passes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	_, none := OpenFile(path, secret.Bytes{}, FileOptions{})
	_, wrong := OpenFile(path, secret.New([]byte("q")), FileOptions{MemoryKiB: 64, Passes: 1})
	for why, want := range map[error]Strength{none: Passphrase, wrong: Passphrase, fault.New(fault.KeystoreLocked, errors.New("no bus")): LoginSession, errors.New("x"): LoginSession} {
		l := NewLocked(why)
		if l.Strength() != want || !errors.Is(l.Why(), why) {
			t.Errorf("%v: %v", why, l.Strength())
		}
		_, get := l.Get(t.Context(), "s", "a")
		_, list := l.List(t.Context(), "s")
		for _, err := range []error{get, list, l.Put(t.Context(), "s", "a", secret.Bytes{}), l.Delete(t.Context(), "s", "a")} {
			if !errors.Is(err, fault.KeystoreLocked) || !errors.Is(err, why) {
				t.Errorf("%v: %v", why, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
