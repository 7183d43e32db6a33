package storage

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/storage/sqlcipher"
)

// olderHost leaves plaintext databases as a host without encryption does.
func olderHost(w *world) map[string]string {
	return olderHostWith(w, ChatHistory, Memory, "plugin:com.acme.weather", "plugin:org.other")
}

func olderHostWith(w *world, ids ...ID) map[string]string {
	w.t.Helper()
	for _, id := range ids {
		path := filepath.Join(w.root, id.path())
		must(w.t, os.MkdirAll(filepath.Dir(path), 0o700))
		db, err := (sqlcipher.Driver{}).Open(w.t.Context(), sqlcipher.File{Path: path}, sqlcipher.Options{Create: true})
		must(w.t, err)
		must(w.t, db.Tx(w.t.Context(), func(tx *sql.Tx) error {
			for _, q := range []string{notes, "PRAGMA user_version = 7", "INSERT INTO notes(text) VALUES ('" + planted + string(id) + "')"} {
				if _, err := tx.Exec(q); err != nil {
					return err
				}
			}
			return nil
		}))
		must(w.t, db.Close())
	}
	// What the content is to be, read from a copy of the tree.
	twin := newWorld(w.t)
	must(w.t, os.CopyFS(twin.root, os.DirFS(w.root)))
	s := twin.open()
	want := content(w.t, s)
	must(w.t, s.Close())
	return want
}

func TestConverge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := olderHost(w)
	if len(w.readable()) != 4 {
		t.Fatal("the older host's tree is not plaintext")
	}
	s := w.open()
	var labels []string
	done, err := s.Converge(t.Context(), func(p Progress) { labels = append(labels, p.Label) })
	if err != nil || len(done.Converted) != 4 || len(done.Issues) != 0 || len(labels) < 4 {
		t.Fatalf("%+v, %v", done, err)
	}
	if left := w.readable(); len(left) > 0 {
		t.Errorf("readable: %v", left)
	}
	must(t, use(t, s, ChatHistory, func(db *sqlcipher.DB) error {
		var version int
		err := db.Read.QueryRow("PRAGMA user_version").Scan(&version)
		if version != 7 {
			t.Errorf("user_version %d", version)
		}
		return err
	}))
	if again, err := s.Converge(t.Context(), nil); err != nil || len(again.Converted) != 0 {
		t.Errorf("%+v, %v", again, err)
	}
	must(t, s.Close())
	w.settled("converged", want)
}

func TestConvergeStoppedAnywhere(t *testing.T) {
	t.Parallel()
	stops(t, func(w *world) map[string]string { return olderHostWith(w, ChatHistory, "plugin:org.other") }, func(s *Storage) error {
		done, err := s.Converge(context.Background(), nil)
		if err == nil && len(done.Issues) > 0 {
			err = done.Issues[0]
		}
		return err
	})
}

func TestPostureThereAndBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fill(t, s)
	want := content(t, s)
	done, err := s.SetPosture(t.Context(), PosturePlaintext, nil)
	if err != nil || len(done.Converted) != 5 || s.Posture() != PosturePlaintext {
		t.Fatalf("%+v, %v", done, err)
	}
	if left := w.readable(); len(left) != 5 {
		t.Errorf("readable: %v", left)
	}
	if got := content(t, s); !maps.Equal(got, want) {
		t.Error("the content differs in plaintext")
	}
	must(t, s.Close())
	w.settled("plaintext", want)
	s = w.open()
	if s.Posture() != PosturePlaintext {
		t.Fatal("the posture is forgotten")
	}
	if done, err := s.SetPosture(t.Context(), PostureEncrypted, nil); err != nil || len(done.Converted) != 5 {
		t.Fatalf("%+v, %v", done, err)
	}
	if left := w.readable(); len(left) > 0 {
		t.Errorf("readable: %v", left)
	}
	must(t, s.Close())
	w.settled("encrypted", want)
}

func TestPostureStoppedAnywhere(t *testing.T) {
	t.Parallel()
	t.Run("to plaintext", func(t *testing.T) {
		t.Parallel()
		stops(t, filledLittle, func(s *Storage) error {
			_, err := s.SetPosture(context.Background(), PosturePlaintext, nil)
			return err
		})
	})
	t.Run("to encrypted", func(t *testing.T) {
		t.Parallel()
		stops(t, func(w *world) map[string]string {
			want := filledLittle(w)
			s := w.open()
			_, err := s.SetPosture(w.t.Context(), PosturePlaintext, nil)
			must(w.t, err)
			must(w.t, s.Close())
			return want
		}, func(s *Storage) error {
			_, err := s.SetPosture(context.Background(), PostureEncrypted, nil)
			return err
		})
	})
}

// TestMarkerDecryptsNothing: who can write the root cannot have it decrypted.
func TestMarkerDecryptsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := filled(w)
	must(t, os.WriteFile(filepath.Join(w.root, postureFile), []byte(`{"mode":"plaintext","version":1}`), 0o600))
	must(t, os.Remove(filepath.Join(w.root, manifestFile)))
	s := w.open()
	if s.Posture() != PostureEncrypted {
		t.Error("the marker is obeyed")
	}
	_, err := s.Converge(t.Context(), nil)
	must(t, err)
	addNotes(t, s, Methods, 1)
	if left := w.readable(); len(left) > 0 {
		t.Errorf("readable: %v", left)
	}
	must(t, s.Close())
	s = w.open()
	got := content(t, s)
	delete(got, string(Methods))
	if !maps.Equal(got, want) {
		t.Error("the content differs")
	}
}

// TestPlaintextSwappedIn: a plaintext database in an encrypted one's place is
// not opened until the owner says that it is theirs.
func TestPlaintextSwappedIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	filled(w)
	path := filepath.Join(w.root, Memory.path())
	must(t, os.Remove(path))
	db, err := (sqlcipher.Driver{}).Open(t.Context(), sqlcipher.File{Path: path}, sqlcipher.Options{Create: true})
	must(t, err)
	_, err = db.Write.Exec(notes)
	must(t, err)
	must(t, db.Close())
	s := w.open()
	nothing := func(*sqlcipher.DB) error { return nil }
	var issue Issue
	if err := use(t, s, Memory, nothing); !errors.As(err, &issue) || issue.Kind != IssueUnexpectedPlaintext {
		t.Fatalf("%v", err)
	}
	status, err := s.Status()
	must(t, err)
	for _, st := range status.Stores {
		if st.ID == Memory && (st.State != StateRefused || st.Issue != IssueUnexpectedPlaintext || !strings.Contains(st.Next, "--accept")) {
			t.Errorf("%+v", st)
		}
	}
	must(t, s.Accept(t.Context(), Memory))
	must(t, use(t, s, Memory, nothing))
	if left := w.readable(); len(left) > 0 || len(s.Issues()) > 0 {
		t.Errorf("readable: %v, %v", left, s.Issues())
	}
}
