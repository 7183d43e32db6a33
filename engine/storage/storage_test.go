package storage

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sqlcipher"
)

func TestFirstUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	if k := s.Key(); k.State != KeyFresh {
		t.Errorf("a key before anything needs one: %+v", k)
	}
	fill(t, s)
	want := content(t, s)
	if k := s.Key(); k.State != KeyReady || k.ID.IsZero() || k.Keystore != keystore.NewMemory().Strength() {
		t.Errorf("%+v", k)
	}
	if left := w.readable(); len(left) > 0 {
		t.Errorf("readable while open: %v", left)
	}
	must(t, s.Close())
	if left := w.readable(); len(left) > 0 {
		t.Errorf("readable: %v", left)
	}
	if strings.Contains(w.logs.String(), "walrus") {
		t.Error("the log has content")
	}
	for path := range w.tree() {
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
	w.settled("again", want)
}

func TestMissingKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fill(t, s)
	want := content(t, s)
	must(t, s.Close())
	const service, account = "com.osaurus.storage", "data-encryption-key"
	key, err := w.vault.Get(t.Context(), service, account)
	must(t, err)
	must(t, w.vault.Delete(t.Context(), service, account))
	before := w.tree()
	s = w.open()
	if k := s.Key(); k.State != KeyMissing {
		t.Fatalf("%+v", k)
	}
	nothing := func(*sqlcipher.DB) error { return nil }
	for _, id := range []ID{ChatHistory, Memory, Methods, "plugin:org.other"} {
		var issue Issue
		if err := use(t, s, id, nothing); !errors.As(err, &issue) || issue.Kind != IssueLocked {
			t.Errorf("%s: %v", id, err)
		}
	}
	_, err = s.Blobs().PutBytes([]byte("x"))
	for name, err := range map[string]error{
		"a blob": err, "a sealed file": s.WriteSealed(t.Context(), "identity/peers.json", nil),
		"rotation": func() error { _, err := s.Rotate(t.Context(), RotateOptions{}); return err }(),
	} {
		if !errors.Is(err, fault.StorageKeyMissing) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !maps.Equal(before, w.tree()) {
		t.Error("something was written without a key")
	}
	must(t, w.vault.Put(t.Context(), service, account, key))
	must(t, s.Retry(t.Context(), ChatHistory))
	if got := content(t, s); !maps.Equal(got, want) {
		t.Error("after the key came back the content differs")
	}
}

// TestEvidence: each single trace of encryption keeps a new key from being made.
func TestEvidence(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		manifestFile, journalFile, provisioned, saltFile, "chat-history/blobs/x.osec", "identity/peers.json.osec", "quarantine/x/history.sqlite",
		"Tools/org.other/data/data.db", "agents/00000000-0000-4000-8000-00000000000A/db.sqlite", "scheduler.sqlite",
	} {
		w := newWorld(t)
		path := filepath.Join(w.root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(strings.Repeat("\x17random", 1171)[:8192]), 0o600))
		s := w.open()
		if k := s.Key(); k.State != KeyMissing {
			t.Errorf("%s: %+v", name, k)
		}
		if _, err := s.Keys(); !errors.Is(err, fault.StorageKeyMissing) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// locked is a keystore that does not answer.
type locked struct{ keystore.Store }

func (locked) Get(context.Context, string, string) (secret.Bytes, error) {
	return secret.Bytes{}, fault.KeystoreLocked
}

func TestLockedKeystore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fill(t, s)
	must(t, s.Close())
	before := w.tree()
	s, err := Open(t.Context(), Config{Root: w.root, Keystore: locked{w.vault}})
	must(t, err)
	if k := s.Key(); k.State != KeyLocked {
		t.Errorf("%+v", k)
	}
	if err := use(t, s, ChatHistory, nil); !errors.Is(err, fault.StorageLocked) {
		t.Errorf("%v", err)
	}
	if _, err := s.Keys(); !errors.Is(err, fault.StorageLocked) {
		t.Errorf("%v", err)
	}
	must(t, s.Close())
	if !maps.Equal(before, w.tree()) {
		t.Error("something was written with the keystore locked")
	}
}

// TestOlderKey: a keystore from a backup has an older key than the files.
func TestOlderKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fill(t, s)
	must(t, s.Close())
	must(t, w.vault.Put(t.Context(), "com.osaurus.storage", "data-encryption-key", secret.New(make([]byte, 32))))
	s = w.open()
	var issue Issue
	if err := use(t, s, ChatHistory, nil); !errors.As(err, &issue) || issue.Kind != IssueLocked {
		t.Errorf("%v", err)
	}
}

// TestDiskTroubleIsTold: a store that does not open for want of room says so.
func TestDiskTroubleIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := Config{Root: w.root, Keystore: w.vault}
	var refused error
	c.Disk.Step = func(op disk.Op, _ string) error {
		if op == disk.Create {
			return refused
		}
		return nil
	}
	s, err := Open(t.Context(), c)
	must(t, err)
	defer s.Close()
	for want, cause := range map[string]error{"the disk is full": syscall.ENOSPC, "the disk is read-only": syscall.EROFS, "the disk reports an error": syscall.EIO} {
		refused = &os.PathError{Op: "open", Path: "x", Err: cause}
		if err := use(t, s, ChatHistory, nil); err == nil || err.Error() != "store chat-history: "+want {
			t.Errorf("%v", err)
		}
	}
}
