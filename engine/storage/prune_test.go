package storage

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/storage/dek"
)

// committed cuts a rotation off at each step after its commit, has do damage
// what is left, and looks whether everything still opens.
func committed(t *testing.T, do func(*world)) {
	t.Helper()
	first := newWorld(t)
	want := filledLittle(first)
	seen := 0
	for at := 1; ; at++ {
		w := first.twin()
		b := &brake{at: at, dead: true}
		s, err := w.tryOpen(b)
		if err == nil {
			err = rotateOnce(s)
		}
		if s != nil {
			_ = s.Close() // it is dead
		}
		if !b.fired {
			must(t, err)
			break
		}
		text, _ := os.ReadFile(filepath.Join(w.root, journalFile))
		if !bytes.Contains(text, []byte(`"phase":"commit"`)) {
			continue
		}
		seen++
		do(w)
		s = w.open()
		if got := content(t, s); !maps.Equal(got, want) {
			t.Fatalf("step %d: the content differs:\n%v\nwant\n%v", at, got, want)
		}
		must(t, s.Close())
		w.settled("later", want)
	}
	if seen < 10 {
		t.Errorf("only %d steps", seen)
	}
}

// TestJournalLost: without its journal a rotation that has begun to put files
// in their places forgets no key that one of them needs.
func TestJournalLost(t *testing.T) {
	t.Parallel()
	committed(t, func(w *world) { must(t, os.Remove(filepath.Join(w.root, journalFile))) })
}

func TestJournalGarbled(t *testing.T) {
	t.Parallel()
	committed(t, func(w *world) { flip(t, filepath.Join(w.root, journalFile), 5) })
}

// TestJournalMembers: what a newer host says beside what we know is
// authenticated and passed over.
func TestJournalMembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fillLittle(t, s)
	key := s.keys[0]
	j := journal{V: journalVersion, ID: "x", Kind: kindRotate, Phase: phaseDone, OldKeyID: key.ID(), NewKeyID: key.ID(), Items: []item{}}
	text := `{"note":{"b":1.50,"a":[]},"id":"x","items":[],"kind":"rotate","new_key_id":"` + key.ID().String() + `","old_key_id":"` + key.ID().String() + `","phase":"done","to":"","v":1}`
	mac, err := journalMAC([]byte(text), key)
	must(t, err)
	if plain, err := j.mac(key); err != nil || plain == mac {
		t.Fatalf("the MAC does not cover it, %v", err)
	}
	signed := strings.TrimSuffix(text, "}") + `,"mac_old":"00","mac_new":"` + mac + `"}`
	must(t, os.WriteFile(s.file(journalFile), []byte(signed), 0o600))
	if got, err := s.readJournal(); err != nil || got.Phase != phaseDone {
		t.Errorf("%+v, %v", got, err)
	}
	must(t, os.WriteFile(s.file(journalFile), []byte(strings.Replace(signed, "1.50", "1.51", 1)), 0o600))
	if _, err := s.readJournal(); err == nil {
		t.Error("a changed member was taken")
	}
}

// TestCopyGone: a committed rotation one of whose copies is gone, or is not
// what it made, leaves the file as it is and its key in the keystore.
func TestCopyGone(t *testing.T) {
	t.Parallel()
	committed(t, func(w *world) {
		copies, err := filepath.Glob(filepath.Join(w.root, "*", "*"+rekeyed))
		must(t, err)
		blobs, err := filepath.Glob(filepath.Join(w.root, "*", "*", "*"+rekeyed))
		must(t, err)
		for i, path := range append(copies, blobs...) {
			if i%2 == 0 {
				must(t, os.Remove(path))
			} else {
				must(t, os.WriteFile(path, make([]byte, 4096), 0o600))
			}
		}
	})
}

// TestOnlyCopy: a copy is not swept while the file it is of is gone.
func TestOnlyCopy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	filledLittle(w)
	path := filepath.Join(w.root, filepath.FromSlash(ChatHistory.path()))
	must(t, os.Rename(path, path+rekeyed))
	other := filepath.Join(w.root, "nothing"+rekeyed)
	must(t, os.WriteFile(other, nil, 0o600))
	must(t, w.open().Close())
	if !exists(path+rekeyed) || exists(other) {
		t.Error("the only copy was swept, or another was not")
	}
}

// TestRecordNamesAnotherKey: a file is opened and converged with the key it
// has, whatever its record says.
func TestRecordNamesAnotherKey(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(*Storage) error{
		"converge": func(s *Storage) error {
			done, err := s.Converge(t.Context(), nil)
			if err == nil && len(done.Issues)+len(done.Converted) > 0 {
				err = fmt.Errorf("%+v", done)
			}
			return err
		},
		"verify": func(s *Storage) error {
			issues, files, err := s.VerifyAll(t.Context(), nil)
			if err == nil && len(issues)+len(files) > 0 {
				err = fmt.Errorf("%v %v", issues, files)
			}
			return err
		},
		"rotate": rotateOnce,
		"open":   func(*Storage) error { return nil },
	} {
		w := newWorld(t)
		want := filledLittle(w)
		s := w.open()
		old, err := dek.Generate(nil)
		must(t, err)
		must(t, s.vault.Retire(t.Context(), old))
		s.mu.Lock()
		err = s.record(ChatHistory, func(r *row) { r.KeyID = old.ID() })
		s.mu.Unlock()
		must(t, err)
		must(t, s.Close())
		s = w.open()
		if err := do(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := content(t, s); !maps.Equal(got, want) {
			t.Errorf("%s: the content differs", name)
		}
		must(t, s.Close())
	}
}

// TestCopyFromBefore: a database from before a rotation, put back while its key
// is still there, is not let in; its key stays.
func TestCopyFromBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	filledLittle(w)
	path := filepath.Join(w.root, filepath.FromSlash(ChatHistory.path()))
	before, err := os.ReadFile(path)
	must(t, err)
	s := w.open()
	must(t, rotateOnce(s))
	must(t, s.Close())
	must(t, os.WriteFile(path, before, 0o600))
	for range 2 {
		s = w.open()
		must(t, s.Probe(t.Context()))
		issues, _, err := s.VerifyAll(t.Context(), nil)
		if seen := s.Issues(); err != nil || len(seen) != 1 || len(issues) != 1 || seen[0].Kind != IssueCorrupt || issues[0].Kind != IssueCorrupt {
			t.Errorf("%v, %v, %v", seen, issues, err)
		}
		var issue Issue
		if err := rotateOnce(s); !errors.As(err, &issue) || issue.Store != ChatHistory {
			t.Errorf("rotated: %v", err)
		}
		if keys, err := s.vault.Others(t.Context()); err != nil || len(keys) != 1 {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		must(t, s.Close())
	}
}
