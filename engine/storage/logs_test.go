package storage

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"osaurus/engine/storage/sqlcipher"
)

// logOf returns the write-ahead log a killed host leaves of a store.
func logOf(w *world, id ID) []byte {
	w.t.Helper()
	s := w.open()
	addNotes(w.t, s, id, 5)
	log, err := os.ReadFile(s.file(id.path()) + "-wal")
	must(w.t, err)
	if len(log) == 0 {
		w.t.Fatal("no log")
	}
	must(w.t, s.Close())
	return log
}

// TestForeignLog: the log of another home, or of another store under the same
// key, is set aside by whatever opens the store first; nothing of the store
// changes.
func TestForeignLog(t *testing.T) {
	t.Parallel()
	from := newWorld(t)
	filled(from)
	first := newWorld(t)
	want := filled(first)
	sameKey := logOf(first.twin(), Memory)
	for name, log := range map[string][]byte{"other home": logOf(from, ChatHistory), "other store": sameKey} {
		for how, do := range map[string]func(*world, *Storage) error{
			"probe":  func(w *world, s *Storage) error { return s.Probe(w.t.Context()) },
			"verify": func(w *world, s *Storage) error { _, _, err := s.VerifyAll(w.t.Context(), nil); return err },
			"rotate": func(_ *world, s *Storage) error { return rotateOnce(s) },
			"plain": func(w *world, s *Storage) error {
				_, err := s.SetPosture(w.t.Context(), PosturePlaintext, nil)
				return err
			},
			"export": func(w *world, s *Storage) error {
				_, err := s.Export(w.t.Context(), ExportOptions{Dest: w.t.TempDir()})
				return err
			},
		} {
			w := first.twin()
			must(t, os.WriteFile(filepath.Join(w.root, filepath.FromSlash(ChatHistory.path())+"-wal"), log, 0o600))
			s := w.open()
			must(t, do(w, s))
			if got := content(t, s); !maps.Equal(got, want) {
				t.Errorf("%s, %s: the content differs", name, how)
			}
			all, err := s.Quarantine()
			if err != nil || len(all) != 1 || all[0].Path != ChatHistory.path()+"-wal" || all[0].Format != sqlcipher.Foreign.String() {
				t.Fatalf("%s, %s: %+v, %v", name, how, all, err)
			}
			aside, err := os.ReadFile(filepath.Join(s.file(all[0].Folder), "history.sqlite-wal"))
			if err != nil || string(aside) != string(log) {
				t.Errorf("%s, %s: another log was set aside, %v", name, how, err)
			}
			must(t, s.Close())
		}
	}
}

// TestOneByteStore: a file cut to one byte is damaged, not new.
func TestOneByteStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	filled(w)
	path := filepath.Join(w.root, Memory.path())
	must(t, os.Truncate(path, 1))
	s := w.open()
	must(t, s.Probe(t.Context()))
	if issues := s.Issues(); len(issues) != 1 || issues[0].Kind != IssueCorrupt {
		t.Errorf("%v", issues)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 1 {
		t.Errorf("%v, %v", info, err)
	}
}
