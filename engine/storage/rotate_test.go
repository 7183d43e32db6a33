package storage

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/sqlcipher"
)

// filled prepares a root with everything in it.
func filled(w *world) map[string]string {
	s := w.open()
	fill(w.t, s)
	want := content(w.t, s)
	must(w.t, s.Close())
	return want
}

func filledLittle(w *world) map[string]string {
	s := w.open()
	fillLittle(w.t, s)
	want := content(w.t, s)
	must(w.t, s.Close())
	return want
}

func rotateOnce(s *Storage) error {
	_, err := s.Rotate(context.Background(), RotateOptions{})
	return err
}

func TestRotate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fill(t, s)
	want := content(t, s)
	old := s.keys[0].Clone()
	var last Progress
	done, err := s.Rotate(t.Context(), RotateOptions{Progress: func(p Progress) {
		if p.Done < last.Done || p.Done > p.Total {
			t.Errorf("progress runs from %+v to %+v", last, p)
		}
		last = p
	}})
	must(t, err)
	if done.Old != old.ID() || done.New != s.Key().ID || done.New == done.Old || done.Stores != 5 || done.Files != 7 || last.Done != last.Total || last.Total == 0 {
		t.Errorf("%+v, %+v", done, last)
	}
	if got := content(t, s); !maps.Equal(got, want) {
		t.Error("the content differs")
	}
	must(t, s.Close())
	if _, err := (sqlcipher.Driver{}).Verify(t.Context(), sqlcipher.File{Path: filepath.Join(w.root, "chat-history/history.sqlite"), Key: old}); !errors.Is(err, sqlcipher.ErrKey) {
		t.Errorf("the old key: %v", err)
	}
	if left := w.readable(); len(left) > 0 {
		t.Errorf("readable: %v", left)
	}
	w.settled("after", want)
	if accounts, err := w.vault.List(t.Context(), "com.osaurus.storage"); err != nil || len(accounts) != 2 {
		t.Errorf("after a clean start the keystore has %v, %v", accounts, err)
	}
}

func TestRotateStoppedAnywhere(t *testing.T) {
	t.Parallel()
	stops(t, filledLittle, rotateOnce)
}

// TestRotateToADerivedKey: the key comes from the master and a salt that
// survives; the next drawn key forgets the salt.
func TestRotateToADerivedKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := filled(w)
	s := w.open()
	master := secret.New(make([]byte, 32))
	_, err := s.Rotate(t.Context(), RotateOptions{Master: master})
	must(t, err)
	salt, err := os.ReadFile(filepath.Join(w.root, saltFile))
	must(t, err)
	again, err := dek.Derive(master, salt)
	if err != nil || again.ID() != s.Key().ID {
		t.Errorf("the salt on disk derives another key, %v", err)
	}
	kept, err := w.vault.Get(t.Context(), "com.osaurus.storage", "data-encryption-salt")
	if err != nil || string(kept.Expose()) != string(salt) {
		t.Errorf("the salt in the keystore: %v", err)
	}
	must(t, s.Close())
	w.settled("derived", want)
	s = w.open()
	must(t, rotateOnce(s))
	if exists(filepath.Join(w.root, saltFile)) {
		t.Error("the salt of the key before is left")
	}
	must(t, s.Close())
	w.settled("drawn", want)
}

// TestRotateLeavesWhatDoesNotOpen: a damaged attachment is left and told of, a
// damaged database refuses the rotation, a locked one stays locked.
func TestRotateLeavesWhatDoesNotOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fill(t, s)
	hash, err := s.Blobs().PutBytes([]byte("soon damaged"))
	must(t, err)
	flip(t, s.Blobs().Path(hash), 40)
	done, err := s.Rotate(t.Context(), RotateOptions{})
	if err != nil || len(done.Left) != 1 || done.Left[0] != "chat-history/blobs/"+string(hash)+".osec" {
		t.Errorf("%+v, %v", done, err)
	}
	must(t, s.closeStores())
	flip(t, filepath.Join(w.root, "memory/memory.sqlite"), 4096+100)
	key := s.Key().ID
	var issue Issue
	if err := rotateOnce(s); !errors.As(err, &issue) || issue.Store != Memory || issue.Kind != IssueCorrupt {
		t.Errorf("%v", err)
	}
	if s.Key().ID != key {
		t.Error("the key changed")
	}
	addNotes(t, s, ChatHistory, 1)
}

func flip(t testing.TB, path string, at int64) {
	t.Helper()
	raw, err := os.ReadFile(path)
	must(t, err)
	raw[at] ^= 1
	must(t, os.WriteFile(path, raw, 0o600))
}

func TestRotateNeedsRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := filled(w)
	s := w.open()
	s.disk.Space = func(string) (int64, error) { return spare, nil }
	if err := rotateOnce(s); !errors.Is(err, ErrNoSpace) {
		t.Errorf("%v", err)
	}
	must(t, s.Close())
	w.settled("no room", want)
}

func TestRotateCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := filled(w)
	s := w.open()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Rotate(ctx, RotateOptions{Progress: func(Progress) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if got := content(t, s); !maps.Equal(got, want) {
		t.Error("the content differs")
	}
	must(t, s.Close())
	w.settled("cancelled", want)
}

// TestForgedJournal: a journal that no key proves moves nothing.
func TestForgedJournal(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"plaintext": `{"id":"x","items":[{"path":"chat-history/history.sqlite","state":"pending","store":"chat-history"}],"kind":"posture","mac_new":"00","mac_old":"00","new_key_id":"0000000000000000","old_key_id":"0000000000000000","phase":"commit","to":"plaintext","v":1}`,
		"rotation":  `{"id":"x","items":[],"kind":"rotate","mac_new":"","mac_old":"","new_key_id":"0000000000000000","old_key_id":"0000000000000000","phase":"commit","to":"encrypted","v":1}`,
		"half":      `{"id":"x","items":[{"pa`,
		"outside":   `{"id":"x","items":[{"path":"../../etc/passwd","state":"pending","store":""}],"kind":"rotate","phase":"prepare","v":1}`,
		"newer":     `{"v":2}`,
	} {
		w := newWorld(t)
		want := filled(w)
		must(t, os.WriteFile(filepath.Join(w.root, journalFile), []byte(text), 0o600))
		w.settled(name, want)
		if left := w.readable(); len(left) > 0 {
			t.Errorf("%s: readable: %v", name, left)
		}
	}
}

func TestOneOperationAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fill(t, s)
	asked := false
	_, err := s.Rotate(t.Context(), RotateOptions{Progress: func(Progress) {
		if asked {
			return
		}
		asked = true
		if err := rotateOnce(s); !errors.Is(err, fault.StorageBusy) {
			t.Errorf("a second rotation: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		st, err := s.Store(ChatHistory, Options{})
		must(t, err)
		if err := st.Use(ctx, nil); !errors.Is(err, fault.StorageBusy) {
			t.Errorf("a user whose time is up: %v", err)
		}
		if status, err := s.Status(); err != nil || status.Operation != "rotate" || len(status.Stores) < 5 {
			t.Errorf("%+v, %v", status, err)
		}
	}})
	if err != nil || !asked {
		t.Error(err)
	}
}
