package storage

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/storage/sqlcipher"
)

func TestReset(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := filled(w)
	path := filepath.Join(w.root, Memory.path())
	damaged, err := os.ReadFile(path)
	must(t, err)
	flip(t, path, 20)
	damaged[20] ^= 1
	s := w.open()
	nothing := func(*sqlcipher.DB) error { return nil }
	var issue Issue
	if err := use(t, s, Memory, nothing); !errors.As(err, &issue) || issue.Kind != IssueCorrupt {
		t.Fatalf("%v", err)
	}
	if err := s.Retry(t.Context(), Memory); !errors.As(err, &issue) {
		t.Errorf("retried: %v", err)
	}
	must(t, s.Reset(t.Context(), Memory))
	must(t, use(t, s, Memory, nothing))
	if len(s.Issues()) != 0 {
		t.Errorf("issues %v", s.Issues())
	}
	all, err := s.Quarantine()
	if err != nil || len(all) != 1 || all[0].Store != Memory || all[0].KeyID != s.Key().ID || all[0].Format != "encrypted" || all[0].MovedAt.Unix() != w.clock.Unix() {
		t.Fatalf("%+v, %v", all, err)
	}
	aside, err := os.ReadFile(filepath.Join(w.root, all[0].Folder, "memory.sqlite"))
	if err != nil || string(aside) != string(damaged) {
		t.Errorf("what was set aside is not what was there, %v", err)
	}
	if name := filepath.Base(all[0].Folder); !strings.HasPrefix(name, "20270115T080000Z-memory-") || len(name) != len("20270115T080000Z-memory-")+8 {
		t.Errorf("folder %s", name)
	}
	delete(want, string(Memory))
	addNotes(t, s, Memory, 0)
	got := content(t, s)
	delete(got, string(Memory))
	if !maps.Equal(got, want) {
		t.Error("other stores differ")
	}
	// The key that the quarantined file needs outlives rotations.
	must(t, rotateOnce(s))
	must(t, s.Close())
	s = w.open()
	must(t, s.Close())
	s = w.open()
	if len(s.keys) != 2 {
		t.Errorf("%d keys after the rotation", len(s.keys))
	}
}

// TestResetStoppedAnywhere: the database is either where it was, with its
// content, or set aside whole.
func TestResetStoppedAnywhere(t *testing.T) {
	t.Parallel()
	for at := 1; ; at++ {
		w := newWorld(t)
		want := filledLittle(w)
		b := &brake{at: at, dead: true}
		s, err := w.tryOpen(b)
		if err == nil {
			err = s.Reset(context.Background(), ChatHistory)
			_ = s.Close() // it may be dead
		}
		s = w.open()
		aside, qerr := s.Quarantine()
		must(t, qerr)
		switch len(aside) {
		case 0:
			if got := content(t, s); !maps.Equal(got, want) {
				t.Fatalf("step %d: the content differs", at)
			}
		case 1:
			if _, err := os.Stat(filepath.Join(w.root, aside[0].Folder, "history.sqlite")); err != nil {
				t.Fatalf("step %d: %v", at, err)
			}
			addNotes(t, s, ChatHistory, 1)
		default:
			t.Fatalf("step %d: %v", at, aside)
		}
		must(t, s.Close())
		if !b.fired {
			must(t, err)
			return
		}
	}
}

func TestMissingStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	filled(w)
	must(t, os.Remove(filepath.Join(w.root, ChatHistory.path())))
	s := w.open()
	nothing := func(*sqlcipher.DB) error { return nil }
	var issue Issue
	if err := use(t, s, ChatHistory, nothing); !errors.As(err, &issue) || issue.Kind != IssueMissing || exists(filepath.Join(w.root, ChatHistory.path())) {
		t.Fatalf("%v", err)
	}
	must(t, s.Reset(t.Context(), ChatHistory))
	must(t, use(t, s, ChatHistory, nothing))
}

// TestUnsafePaths: nothing is opened or written through a link, a folder, a
// pipe or a second name.
func TestUnsafePaths(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(path, outside string) error{
		"link": func(path, outside string) error { return os.Symlink(filepath.Join(outside, "x.sqlite"), path) },
		"second name": func(path, outside string) error {
			other := filepath.Join(outside, "x.sqlite")
			return errors.Join(os.WriteFile(other, make([]byte, 8192), 0o600), os.Link(other, path))
		},
		"folder": func(path, _ string) error { return os.Mkdir(path, 0o700) },
		"linked folder": func(path, outside string) error {
			return errors.Join(os.Remove(filepath.Dir(path)), os.Symlink(outside, filepath.Dir(path)))
		},
	} {
		w := newWorld(t)
		outside := t.TempDir()
		path := filepath.Join(w.root, Memory.path())
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, plant(path, outside))
		s := w.open()
		var issue Issue
		if err := use(t, s, Memory, nil); !errors.As(err, &issue) || issue.Kind != IssueUnsafePath {
			t.Errorf("%s: %v", name, err)
		}
		entries, err := os.ReadDir(outside)
		if err != nil || len(entries) > 1 {
			t.Errorf("%s: outside is %v, %v", name, entries, err)
		}
	}
}
