package storage

import (
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/storage/archive"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/sqlcipher"
)

// told is what verify and an export say is not there.
func told(t *testing.T, s *Storage) (issues []Issue, files []string, failed map[string]string) {
	t.Helper()
	issues, files, err := s.VerifyAll(t.Context(), nil)
	must(t, err)
	dest := t.TempDir()
	done, err := s.Export(t.Context(), ExportOptions{Dest: dest})
	must(t, err)
	failed = map[string]string{}
	for _, it := range done.Failed {
		failed[it.Path] = it.Error
	}
	text, err := os.ReadFile(filepath.Join(done.Path, "manifest.json"))
	must(t, err)
	var m archive.Manifest
	must(t, json.Unmarshal(text, &m))
	if m.Complete != (len(failed) == 0) {
		t.Errorf("complete %v, failed %v", m.Complete, failed)
	}
	if _, err := archive.Open(done.Path); err != nil {
		t.Error(err)
	}
	return issues, files, failed
}

// TestGoneStore: a database on record that is gone is told of.
func TestGoneStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	filled(w)
	must(t, os.Remove(filepath.Join(w.root, Memory.path())))
	must(t, os.RemoveAll(filepath.Join(w.root, "Tools", "org.other")))
	issues, files, failed := told(t, w.open())
	if len(issues) != 2 || issues[0].Kind != IssueMissing || issues[1].Kind != IssueMissing || len(files) != 0 {
		t.Errorf("%v, %v", issues, files)
	}
	if want := map[string]string{"databases/memory/memory.sqlite": "missing", "databases/Tools/org.other/data/data.db": "missing"}; !maps.Equal(failed, want) {
		t.Errorf("%v", failed)
	}
}

// TestGoneBlob: an attachment that a turn mentions and that is gone, or is a
// link, is told of; a key that the linked one may need is not replaced.
func TestGoneBlob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fill(t, s)
	here, err := s.Blobs().PutBytes([]byte("here"))
	must(t, err)
	gone, err := s.Blobs().PutBytes([]byte("gone"))
	must(t, err)
	linked, err := s.Blobs().PutBytes([]byte("linked"))
	must(t, err)
	must(t, use(t, s, ChatHistory, func(db *sqlcipher.DB) error {
		return db.Tx(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec("CREATE TABLE turns (id TEXT, attachments TEXT)")
			for _, h := range []string{string(here), string(gone), string(gone), string(linked)} {
				_, e := tx.Exec("INSERT INTO turns VALUES ('x', ?)", `[{"kind":"image_ref","hash":"`+h+`"}]`)
				err = errors.Join(err, e)
			}
			return err
		})
	}))
	must(t, os.Remove(s.Blobs().Path(gone)))
	must(t, os.Rename(s.Blobs().Path(linked), filepath.Join(w.root, "elsewhere")))
	must(t, os.Symlink("../../elsewhere", s.Blobs().Path(linked)))
	issues, files, failed := told(t, s)
	slices.Sort(files)
	want := []string{"chat-history/blobs/" + string(gone) + ".osec", "chat-history/blobs/" + string(linked) + ".osec"}
	slices.Sort(want)
	if len(issues) != 0 || !slices.Equal(files, want) {
		t.Errorf("%v, %v", issues, files)
	}
	if !maps.Equal(failed, map[string]string{"blobs/" + string(gone): "missing", "blobs/" + string(linked): "unsafe-path"}) {
		t.Errorf("%v", failed)
	}
	key := s.Key().ID
	if err := rotateOnce(s); !errors.Is(err, fault.StoreUnsafePath) || s.Key().ID != key {
		t.Errorf("%v", err)
	}
}

// TestLinkedFolder: nothing is written or read through a link in place of a
// folder, no operation passes over what is behind it, and no key goes.
func TestLinkedFolder(t *testing.T) {
	t.Parallel()
	for _, rel := range []string{"chat-history", blobsDir, "identity"} {
		w := newWorld(t)
		want := filled(w)
		path := filepath.Join(w.root, filepath.FromSlash(rel))
		moved := filepath.Join(t.TempDir(), "moved")
		must(t, os.Rename(path, moved))
		must(t, os.Symlink(moved, path))
		s := w.open()
		before, err := os.ReadDir(moved)
		must(t, err)
		if rel == "identity" {
			err = s.WriteSealed(t.Context(), "identity/peers.json", []byte("{}"))
			if readErr := s.ReadSealed(t.Context(), "identity/peers.json", 100, nil); !errors.Is(readErr, fault.StoreUnsafePath) {
				t.Errorf("%s: read: %v", rel, readErr)
			}
		} else {
			_, err = s.Blobs().PutBytes([]byte("new"))
			if _, listErr := s.Blobs().List(); !errors.Is(listErr, fault.StoreUnsafePath) {
				t.Errorf("%s: listed: %v", rel, listErr)
			}
		}
		if !errors.Is(err, fault.StoreUnsafePath) {
			t.Errorf("%s: written: %v", rel, err)
		}
		if after, err := os.ReadDir(moved); err != nil || len(after) != len(before) {
			t.Errorf("%s: something was written, %v", rel, err)
		}
		key := s.Key().ID
		if err := rotateOnce(s); !errors.Is(err, fault.StoreUnsafePath) || s.Key().ID != key {
			t.Errorf("%s: rotated: %v", rel, err)
		}
		_, files, failed := told(t, s)
		if !slices.Contains(files, rel) || failed["config/"+rel] != "unsafe-path" {
			t.Errorf("%s: %v, %v", rel, files, failed)
		}
		must(t, s.Close())
		must(t, os.Remove(path))
		must(t, os.Rename(moved, path))
		w.settled(rel, want)
	}
}

// TestUnrecordedLocked: status and verify agree on a database that is not on
// record and whose key nobody has.
func TestUnrecordedLocked(t *testing.T) {
	t.Parallel()
	other := newWorld(t)
	filled(other)
	w := newWorld(t)
	s := w.open()
	addNotes(t, s, ChatHistory, 1)
	raw, err := os.ReadFile(filepath.Join(other.root, Memory.path()))
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(s.file(Memory.path())), 0o700))
	must(t, os.WriteFile(s.file(Memory.path()), raw, 0o600))
	must(t, s.Probe(t.Context()))
	seen := s.Issues()
	issues, _, failed := told(t, s)
	if len(seen) != 1 || len(issues) != 1 || seen[0].Kind != IssueLocked || issues[0].Kind != IssueLocked || failed["databases/memory/memory.sqlite"] != "locked" {
		t.Errorf("%v, %v, %v", seen, issues, failed)
	}
}

// TestOldKeyStays: a retired key that a file behind a link may need is not
// forgotten.
func TestOldKeyStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fillLittle(t, s)
	old, err := dek.Generate(nil)
	must(t, err)
	must(t, s.vault.Retire(t.Context(), old))
	must(t, s.Close())
	path := filepath.Join(w.root, "identity")
	must(t, os.Rename(path, path+".moved"))
	must(t, os.Symlink("identity.moved", path))
	must(t, w.open().Close())
	if keys, err := s.vault.Others(t.Context()); err != nil || len(keys) != 1 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	must(t, os.Remove(path))
	must(t, os.Rename(path+".moved", path))
	must(t, w.open().Close())
	if keys, err := s.vault.Others(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}
