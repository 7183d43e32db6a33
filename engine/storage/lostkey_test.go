package storage

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
	"osaurus/engine/storage/sqlcipher"
)

func master(b byte) secret.Bytes {
	return secret.New([]byte(strings.Repeat(string(rune(b)), 32)))
}

// TestRestoreADerivedKey: the identity and the salt on disk bring back the key
// a keystore lost, another identity does not, and nothing is touched.
func TestRestoreADerivedKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := filled(w)
	s := w.open()
	if err := s.RestoreKey(t.Context(), master('a')); !errors.Is(err, fault.Usage) {
		t.Errorf("restored over a key that is there: %v", err)
	}
	_, err := s.Rotate(t.Context(), RotateOptions{Master: master('a')})
	must(t, err)
	id := s.Key().ID
	must(t, s.Close())
	w.vault = keystore.NewMemory()

	s = w.open()
	if got := s.Key().State; got != KeyMissing {
		t.Fatalf("the key is %s", got)
	}
	before := w.tree()
	if err := s.RestoreKey(t.Context(), master('b')); !errors.Is(err, fault.StorageKeyMissing) {
		t.Errorf("another identity: %v", err)
	}
	if !maps.Equal(w.tree(), before) || s.Key().State != KeyMissing {
		t.Error("another identity changed something")
	}
	must(t, s.RestoreKey(t.Context(), master('a')))
	if got := s.Key(); got.State != KeyReady || got.ID != id {
		t.Errorf("%+v", got)
	}
	must(t, s.Close())
	w.settled("restored", want)
}

// TestRestoreWithoutManifest: a sealed file or a database proves a key too.
func TestRestoreWithoutManifest(t *testing.T) {
	t.Parallel()
	for _, sealedToo := range []bool{true, false} {
		w := newWorld(t)
		s := w.open()
		addNotes(t, s, Memory, 2)
		if sealedToo {
			must(t, s.WriteSealed(t.Context(), "identity/peers.json", []byte("{}")))
		}
		_, err := s.Rotate(t.Context(), RotateOptions{Master: master('a')})
		must(t, errors.Join(err, s.Close(), os.Remove(s.file(manifestFile))))
		w.vault = keystore.NewMemory()
		s = w.open()
		if err := s.RestoreKey(t.Context(), master('b')); !errors.Is(err, fault.StorageKeyMissing) {
			t.Errorf("another identity: %v", err)
		}
		must(t, s.RestoreKey(t.Context(), master('a')))
		addNotes(t, s, Memory, 1)
		must(t, s.Close())
	}
}

// TestRestoreADrawnKey says that no identity gives it.
func TestRestoreADrawnKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	filled(w)
	w.vault = keystore.NewMemory()
	if err := w.open().RestoreKey(t.Context(), master('a')); !errors.Is(err, fault.Usage) {
		t.Errorf("%v", err)
	}
}

// TestStartOver: a lost key does not end a home. All it was needed for is set
// aside whole, and the old keystore still opens that.
func TestStartOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	filled(w)
	s := w.open()
	if _, err := s.StartOver(t.Context()); !errors.Is(err, fault.Usage) {
		t.Fatalf("started over though the key is there: %v", err)
	}
	old, err := s.vault.Current(t.Context())
	must(t, errors.Join(err, s.Close()))
	w.vault = keystore.NewMemory()

	s = w.open()
	if err := s.Reset(t.Context(), Memory); err != nil || s.Key().State != KeyMissing {
		t.Errorf("reset of one store made a key: %v", err)
	}
	moved, err := s.StartOver(t.Context())
	must(t, err)
	if moved < 5 || s.Key().State != KeyReady || s.Key().ID == old.ID() {
		t.Errorf("%d files set aside, %+v", moved, s.Key())
	}
	for _, id := range []ID{ChatHistory, Memory} {
		addNotes(t, s, id, 2)
	}
	must(t, s.WriteSealed(t.Context(), "identity/peers.json", []byte("{}")))
	must(t, s.Close())
	s = w.open()
	if st, err := s.Status(); err != nil || st.Key.State != KeyReady {
		t.Errorf("%+v, %v", st, err)
	}
	aside, err := s.Quarantine()
	must(t, err)
	opened := 0
	for _, q := range aside {
		if q.Store != "" {
			f := sqlcipher.File{Path: filepath.Join(w.root, q.Folder, filepath.Base(q.Path)), Key: old}
			_, err := s.engine.Verify(t.Context(), f)
			must(t, err)
			opened++
		}
	}
	if opened < 2 {
		t.Errorf("%d databases were set aside", opened)
	}
}

// TestStopWhileStartingOver: cut off anywhere, asking again ends it, and no
// key is made before everything is aside.
func TestStopWhileStartingOver(t *testing.T) {
	t.Parallel()
	for at := 1; ; at++ {
		w := newWorld(t)
		filledLittle(w)
		w.vault = keystore.NewMemory()
		b := &brake{}
		s, err := w.tryOpen(b)
		must(t, err)
		b.n, b.at, b.dead = 0, at, true
		_, err = s.StartOver(t.Context())
		_ = s.Close() // a killed process would not
		if !b.fired {
			must(t, err)
			break
		}
		s = w.open()
		if s.Key().State == KeyMissing {
			_, err := s.StartOver(t.Context())
			must(t, err)
		}
		addNotes(t, s, ChatHistory, 1)
		must(t, s.Close())
	}
}

// TestPlaintextAfterALostManifest: whoever can take the manifest away, or
// write one, cannot have a plaintext file taken for the owner's, whatever is
// opened first (decisions D5).
func TestPlaintextAfterALostManifest(t *testing.T) {
	t.Parallel()
	for name, forge := range map[string]func(string) error{
		"removed": os.Remove,
		"forged": func(path string) error {
			return os.WriteFile(path, []byte(`{"key_id":"0000000000000000","mac":"00","stores":{"memory":{"first_seen":1,"format":"plaintext","key_id":"0000000000000000","path":"memory/memory.sqlite","state":"ready"}},"v":1}`), 0o600)
		},
	} {
		w := newWorld(t)
		s := w.open()
		addNotes(t, s, ChatHistory, 2)
		addNotes(t, s, Memory, 2)
		must(t, s.Close())
		other := newWorld(t)
		other.root = w.root + "-other"
		plain := other.open()
		_, err := plain.SetPosture(t.Context(), PosturePlaintext, nil)
		must(t, err)
		addNotes(t, plain, Memory, 1)
		must(t, plain.Close())
		text, err := os.ReadFile(plain.file(Memory.path()))
		must(t, errors.Join(err, os.WriteFile(s.file(Memory.path()), text, 0o600), forge(s.file(manifestFile))))
		for range 2 { // the second start has a manifest that verifies
			s = w.open()
			addNotes(t, s, ChatHistory, 1)
			err = use(t, s, Memory, func(*sqlcipher.DB) error { return nil })
			if !errors.Is(err, fault.StorePlaintext) {
				t.Errorf("%s: a plaintext file was taken in: %v", name, err)
			}
			must(t, s.Close())
		}
		s = w.open()
		must(t, s.Accept(t.Context(), Memory))
		addNotes(t, s, Memory, 1)
		must(t, s.Close())
	}
}
