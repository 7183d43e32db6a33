package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"osaurus/engine/keystore"
	"osaurus/engine/secret"
	"osaurus/engine/storage/blob"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sealed"
	"osaurus/engine/storage/sqlcipher"
)

// planted must never be readable on disk.
const planted = "the walrus keeps the ledger under the third stone"

var errStopped = errors.New("stopped here")

// brake counts the steps of everything that changes anything, and refuses one
// of them; dead refuses all that follow too, as a killed process would.
type brake struct {
	mu    sync.Mutex
	n     int
	at    int // 0 never
	dead  bool
	fired bool
}

func (b *brake) step() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
	if b.at > 0 && (b.n == b.at || b.dead && b.n > b.at) {
		b.fired = true
		return errStopped
	}
	return nil
}

// stoppable is a keystore whose changes are steps.
type stoppable struct {
	keystore.Store
	b *brake
}

func (s stoppable) Put(ctx context.Context, service, account string, v secret.Bytes) error {
	if err := s.b.step(); err != nil {
		return err
	}
	return s.Store.Put(ctx, service, account, v)
}

func (s stoppable) Delete(ctx context.Context, service, account string) error {
	if err := s.b.step(); err != nil {
		return err
	}
	return s.Store.Delete(ctx, service, account)
}

// world is a root and its keystore, which outlive each Storage.
type world struct {
	t     testing.TB
	root  string
	vault *keystore.Memory
	clock time.Time
	logs  bytes.Buffer
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return &world{t: t, root: filepath.Join(t.TempDir(), "root"), vault: keystore.NewMemory(), clock: time.Unix(1_800_000_000, 0)}
}

// tryOpen opens the root with a brake on everything that changes it.
func (w *world) tryOpen(b *brake) (*Storage, error) {
	c := Config{Root: w.root, Keystore: stoppable{w.vault, b}, Now: func() time.Time { return w.clock }, Log: func(event string, attrs ...slog.Attr) { fmt.Fprintln(&w.logs, event, attrs) }}
	c.Disk.Step = func(disk.Op, string) error { return b.step() }
	return Open(w.t.Context(), c)
}

func (w *world) open() *Storage {
	w.t.Helper()
	s, err := w.tryOpen(&brake{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.Close() }) // most tests close it themselves
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func use(t testing.TB, s *Storage, id ID, do func(*sqlcipher.DB) error) error {
	t.Helper()
	st, err := s.Store(id, Options{})
	must(t, err)
	return st.Use(t.Context(), do)
}

// notes is the table the tests keep.
const notes = `CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT)`

func addNotes(t testing.TB, s *Storage, id ID, n int) {
	t.Helper()
	must(t, use(t, s, id, func(db *sqlcipher.DB) error {
		return db.Tx(t.Context(), func(tx *sql.Tx) error {
			if _, err := tx.Exec(notes); err != nil {
				return err
			}
			for i := range n {
				if _, err := tx.Exec("INSERT INTO notes(text) VALUES (?)", fmt.Sprintf("%s, %s %d", planted, id, i)); err != nil {
					return err
				}
			}
			return nil
		})
	}))
}

// fill puts something of every kind into s.
func fill(t testing.TB, s *Storage) {
	t.Helper()
	for _, id := range []ID{ChatHistory, Memory, "plugin:com.acme.weather", "plugin:org.other", "agent:00000000-0000-4000-8000-00000000000A"} {
		addNotes(t, s, id, 40)
	}
	for i := range 5 {
		_, err := s.Blobs().PutBytes([]byte(strings.Repeat(planted, 1000*i+1)))
		must(t, err)
	}
	must(t, s.WriteSealed(t.Context(), "identity/peers.json", []byte(`{"peer":"`+planted+`"}`)))
	must(t, s.WriteSealed(t.Context(), "agent-invites/one.json", []byte(`{}`)))
}

// fillLittle is enough to stop at every step of an operation over it.
func fillLittle(t testing.TB, s *Storage) {
	t.Helper()
	addNotes(t, s, ChatHistory, 3)
	addNotes(t, s, "plugin:org.other", 3)
	_, err := s.Blobs().PutBytes([]byte(planted))
	must(t, err)
	must(t, s.WriteSealed(t.Context(), "identity/peers.json", []byte(`{"peer":"`+planted+`"}`)))
}

// content is everything s can read, by name.
func content(t testing.TB, s *Storage) map[string]string {
	t.Helper()
	out := map[string]string{}
	ids, err := found(s.root)
	must(t, err)
	for _, id := range ids {
		h := sha256.New()
		err := use(t, s, id, func(db *sqlcipher.DB) error {
			rows, err := db.Read.QueryContext(t.Context(), "SELECT id, text FROM notes ORDER BY id")
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var n int
				var text string
				if err := rows.Scan(&n, &text); err != nil {
					return err
				}
				fmt.Fprintln(h, n, text)
			}
			return rows.Err()
		})
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		out[string(id)] = hex.EncodeToString(h.Sum(nil))
	}
	files, err := s.sealedFiles()
	must(t, err)
	keys, err := s.Keys()
	must(t, err)
	for _, f := range files {
		text, err := sealed.ReadFile(s.file(f.rel), keys, f.label, 1<<30)
		if err != nil {
			t.Fatalf("%s: %v", f.rel, err)
		}
		out[f.rel] = string(blob.Of(text))
	}
	return out
}

// readable lists the files below the root that show the planted sentence or
// are plaintext databases.
func (w *world) readable() []string {
	w.t.Helper()
	var all []string
	must(w.t, filepath.WalkDir(w.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte(planted[:20])) || bytes.HasPrefix(raw, []byte("SQLite format 3")) {
			all = append(all, path)
		}
		return err
	}))
	return all
}

// tree hashes every file below the root.
func (w *world) tree() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	must(w.t, filepath.WalkDir(w.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		out[path] = string(blob.Of(raw))
		return err
	}))
	return out
}

// settled checks the invariants of a root at rest: everything is there, nothing
// is readable, no copy is left, and one more start changes nothing.
func (w *world) settled(name string, want map[string]string) {
	w.t.Helper()
	s := w.open()
	if got := content(w.t, s); !maps.Equal(got, want) {
		w.t.Fatalf("%s: the content differs:\n%v\nwant\n%v", name, got, want)
	}
	must(w.t, s.Close())
	s = w.open()
	must(w.t, s.Close())
	for path := range w.tree() {
		if isLeftover(filepath.Base(path)) || strings.HasSuffix(path, journalFile) {
			w.t.Fatalf("%s: %s is left", name, path)
		}
	}
	if _, err := w.vault.Get(w.t.Context(), "com.osaurus.storage", "data-encryption-key.next"); err == nil {
		w.t.Fatalf("%s: a staged key is left", name)
	}
}

// twin is a world with the same files and keys.
func (w *world) twin() *world {
	w.t.Helper()
	n := newWorld(w.t)
	n.clock = w.clock
	must(w.t, filepath.WalkDir(w.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(n.root, strings.TrimPrefix(path, w.root))
		if e.IsDir() {
			return os.Mkdir(to, 0o700)
		}
		raw, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(to, raw, 0o600))
	}))
	accounts, err := w.vault.List(w.t.Context(), "com.osaurus.storage")
	must(w.t, err)
	for _, a := range accounts {
		key, err := w.vault.Get(w.t.Context(), "com.osaurus.storage", a)
		must(w.t, err)
		must(w.t, n.vault.Put(w.t.Context(), "com.osaurus.storage", a, key))
		key.Destroy()
	}
	return n
}

// stops runs do with the brake at each step in turn until it gets through, and
// looks at what is left after each.
func stops(t *testing.T, prepare func(*world) map[string]string, do func(*Storage) error) {
	t.Helper()
	first := newWorld(t)
	want := prepare(first)
	for _, dead := range []bool{true, false} {
		for at := 1; ; at++ {
			w := first.twin()
			b := &brake{at: at, dead: dead}
			name := fmt.Sprintf("dead %v, step %d", dead, at)
			s, err := w.tryOpen(b)
			if err == nil {
				err = do(s)
			}
			if !dead && err != nil && s != nil {
				if perr := s.Prewarm(t.Context()); perr != nil {
					t.Fatalf("%s: after the failure: %v", name, perr)
				}
				if got := content(t, s); !maps.Equal(got, want) {
					t.Fatalf("%s: the content differs right after the failure", name)
				}
			}
			if s != nil {
				_ = s.Close() // it may be dead
			}
			w.settled(name, want)
			if !b.fired {
				if err != nil {
					t.Fatal(err)
				}
				if at < 10 {
					t.Fatalf("only %d steps", at)
				}
				break
			}
		}
	}
}
