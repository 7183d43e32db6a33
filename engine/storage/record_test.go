package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/sealed"
)

// recordIssues are the records that Status tells of.
func recordIssues(t *testing.T, s *Storage) map[ID]StoreStatus {
	t.Helper()
	must(t, s.Probe(t.Context()))
	st, err := s.Status()
	must(t, err)
	all := map[ID]StoreStatus{}
	for _, one := range st.Stores {
		if one.Record() {
			all[one.ID] = one
		}
	}
	return all
}

// TestDamagedRecord: whatever befell it, the root opens, Status tells of this
// one file and how to go on, and nothing is lost when the owner does.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	foreign, err := dek.New(secret.New(make([]byte, dek.Size)))
	must(t, err)
	flip := func(at int) func(string, []byte) error {
		return func(path string, b []byte) error {
			b[at] ^= 1
			return os.WriteFile(path, b, 0o600)
		}
	}
	for name, c := range map[string]struct {
		damage func(path string, content []byte) error
		want   fault.Code
		issue  IssueKind
	}{
		"flipped": {flip(40), fault.StateCorrupt, IssueCorrupt},
		"flags":   {flip(5), fault.StateCorrupt, IssueCorrupt},
		"cut":     {func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)-1], 0o600) }, fault.StateCorrupt, IssueCorrupt},
		"empty":   {func(path string, _ []byte) error { return os.WriteFile(path, nil, 0o600) }, fault.StateCorrupt, IssueCorrupt},
		"plain":   {func(path string, _ []byte) error { return os.WriteFile(path, []byte("{}"), 0o600) }, fault.StateCorrupt, IssueCorrupt},
		"a link": {func(path string, _ []byte) error {
			return errors.Join(os.Rename(path, path+".x"), os.Symlink(path+".x", path))
		}, fault.StateCorrupt, IssueCorrupt},
		"another's name": {func(path string, _ []byte) error { return sealAs(path, foreign, "tasks.json") }, fault.StorageLocked, IssueLocked},
		"a foreign key":  {func(path string, _ []byte) error { return sealAs(path, foreign, "identity/peers.json") }, fault.StorageLocked, IssueLocked},
	} {
		for _, rel := range []string{"identity/peers.json", "providers/remote.json"} {
			t.Run(name+" "+filepath.Base(rel), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				s := w.open()
				must(t, s.WriteSealed(t.Context(), rel, []byte(`{"a":1}`)))
				path := s.file(rel) + sealed.Ext
				content, err := os.ReadFile(path)
				must(t, errors.Join(err, s.Close(), c.damage(path, content)))
				before := w.tree()

				s = w.open()
				parse := func([]byte) error { t.Error("it was parsed"); return nil }
				if err := s.ReadSealed(t.Context(), rel, maxDocument, parse); !errors.Is(err, c.want) {
					t.Errorf("reading: %v", err)
				}
				told := recordIssues(t, s)
				st, ok := told[ID(rel)]
				if len(told) != 1 || !ok || st.Issue != c.issue || st.State != StateRefused || st.Path != rel+sealed.Ext || st.Next == "" || st.Explain() == "" {
					t.Errorf("told: %+v", told)
				}
				if err := s.Retry(t.Context(), ID(rel)); !errors.Is(err, c.want) {
					t.Errorf("retry: %v", err)
				}
				for name, sum := range before {
					if w.tree()[name] != sum {
						t.Errorf("%s was changed", name)
					}
				}
				must(t, s.Reset(t.Context(), ID(rel+sealed.Ext)))
				if told := recordIssues(t, s); len(told) != 0 {
					t.Errorf("after the reset: %+v", told)
				}
				if err := s.ReadSealed(t.Context(), rel, maxDocument, parse); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("after the reset: %v", err)
				}
				aside, err := s.Quarantine()
				must(t, err)
				if len(aside) != 1 || aside[0].Path != rel+sealed.Ext || !exists(filepath.Join(w.root, aside[0].Folder, filepath.Base(path))) {
					t.Errorf("set aside: %+v", aside)
				}
				must(t, s.WriteSealed(t.Context(), rel, []byte(`{"b":1}`)))
				must(t, s.ReadSealed(t.Context(), rel, maxDocument, func([]byte) error { return nil }))
			})
		}
	}
}

func sealAs(path string, key dek.Key, name string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w, err := sealed.NewWriter(f, key, sealed.Label{Purpose: sealed.JSON, Name: name}, nil)
	if err == nil {
		_, err = w.Write([]byte("{}"))
	}
	return errors.Join(err, w.Close(), f.Close())
}

// TestRecordThatDoesNotParse is told of by whoever reads it, and set aside
// with its plain twin.
func TestRecordThatDoesNotParse(t *testing.T) {
	t.Parallel()
	s := newWorld(t).open()
	const rel = "tasks.json"
	refuse := func([]byte) error { return fault.StateCorrupt }
	must(t, s.WriteSealed(t.Context(), rel, []byte("no list")))
	must(t, os.WriteFile(s.file(rel), []byte("older"), 0o600))
	if err := s.Reset(t.Context(), rel); !errors.Is(err, fault.Usage) || !exists(s.file(rel)+sealed.Ext) {
		t.Errorf("a record nobody complained of was set aside: %v", err)
	}
	must(t, s.Probe(t.Context()))
	if err := s.ReadSealed(t.Context(), rel, maxDocument, refuse); !errors.Is(err, fault.StateCorrupt) {
		t.Fatal(err)
	}
	if told := recordIssues(t, s); told[rel].Issue != IssueCorrupt { // though it opens
		t.Errorf("told: %+v", told)
	}
	must(t, s.Reset(t.Context(), rel))
	if exists(s.file(rel)+sealed.Ext) || exists(s.file(rel)) {
		t.Error("it is still there")
	}
	if aside, err := s.Quarantine(); err != nil || len(aside) != 2 {
		t.Errorf("set aside: %+v, %v", aside, err)
	}
}

func TestRecordNames(t *testing.T) {
	t.Parallel()
	for id, want := range map[ID]string{
		"identity/peers.json": "identity/peers.json", "identity/peers.json.osec": "identity/peers.json", "agent-invites/a.json": "agent-invites/a.json", "tasks.json": "tasks.json",
		"memory": "", "config/server.json": "", "identity/../tasks.json": "", "providers/../x.json": "", "providers/x": "", "/tasks.json": "", "../tasks.json": "", "": "", "chat-history/blobs/x.osec": "", "security.log": "",
	} {
		if got := recordOf(id); got != want {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
}

// TestRecordsWaitForTheKey: without a key it is the key that is told of.
func TestRecordsWaitForTheKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	must(t, errors.Join(s.WriteSealed(t.Context(), "tasks.json", []byte("{}")), s.Close(), w.vault.Delete(t.Context(), dek.Service, dek.Account)))
	s = w.open()
	if err := s.ReadSealed(t.Context(), "tasks.json", maxDocument, nil); !errors.Is(err, fault.StorageKeyMissing) {
		t.Errorf("reading: %v", err)
	}
	if told := recordIssues(t, s); len(told) != 0 {
		t.Errorf("told: %+v", told)
	}
	if err := s.Reset(t.Context(), "tasks.json"); !errors.Is(err, fault.StorageKeyMissing) || !exists(s.file("tasks.json")+sealed.Ext) {
		t.Errorf("reset without the key: %v", err)
	}
}
