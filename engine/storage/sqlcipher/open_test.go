package sqlcipher

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/secret"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
)

const sentence = "a planted sentence nobody may find on disk"

func newKey(t testing.TB, first byte) dek.Key {
	t.Helper()
	b := make([]byte, dek.Size)
	for i := range b {
		b[i] = first + byte(i)
	}
	k, err := dek.New(secret.Take(b))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustOpen(t testing.TB, f File, o Options) *DB {
	t.Helper()
	o.Create = true
	db, err := Driver{}.Open(t.Context(), f, o)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func mustExec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func text(t testing.TB, db *sql.DB, query string, args ...any) string {
	t.Helper()
	var got string
	if err := db.QueryRow(query, args...).Scan(&got); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return got
}

func fill(t testing.TB, db *DB) {
	t.Helper()
	for _, s := range []string{
		"CREATE TABLE notes(id TEXT PRIMARY KEY, body TEXT NOT NULL)",
		"CREATE VIRTUAL TABLE fts_notes USING fts5(body, content='notes', tokenize='unicode61 remove_diacritics 2')",
		"CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN INSERT INTO fts_notes(rowid, body) VALUES (new.rowid, new.body); END",
		"CREATE TABLE numbered(id INTEGER PRIMARY KEY AUTOINCREMENT, x)",
		"INSERT INTO numbered(id, x) VALUES(41, 1)",
		"PRAGMA user_version = 7",
		"PRAGMA application_id = 77",
	} {
		mustExec(t, db.Write, s)
	}
	for i := range 200 {
		mustExec(t, db.Write, "INSERT INTO notes VALUES(?, ?)", fmt.Sprintf("id-%d", i), fmt.Sprintf("%s number%d", sentence, i))
	}
	mustExec(t, db.Write, "DELETE FROM notes WHERE id LIKE 'id-1%'")
	mustExec(t, db.Write, "INSERT INTO fts_notes(fts_notes) VALUES('rebuild')")
	mustExec(t, db.Write, "ANALYZE")
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]dek.Key{"encrypted": newKey(t, 0), "plaintext": {}} {
		for _, durable := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s durable=%v", name, durable), func(t *testing.T) {
				t.Parallel()
				f := File{filepath.Join(t.TempDir(), "sub dir", "a?b#%41.sqlite"), key}
				db := mustOpen(t, f, Options{Readers: 2, Durable: durable})
				defer db.Close()
				want := map[string]string{"journal_mode": "wal", "temp_store": "2", "cache_size": "-20000", "foreign_keys": "1",
					"cell_size_check": "1", "secure_delete": "2", "synchronous": "1", "busy_timeout": "5000", "trusted_schema": "0"}
				if durable {
					want["synchronous"], want["fullfsync"], want["checkpoint_fullfsync"] = "2", "1", "1"
				}
				if f.Encrypted() {
					want["cipher_page_size"], want["kdf_iter"] = "4096", "256000"
				}
				for pragma, value := range want {
					if got := text(t, db.Write, "PRAGMA "+pragma); got != value {
						t.Errorf("%s is %s, want %s", pragma, got, value)
					}
				}
				if got := text(t, db.Read, "PRAGMA wal_autocheckpoint"); got != "0" {
					t.Errorf("a reader checkpoints after %s pages", got)
				}
				mustExec(t, db.Write, "CREATE TABLE t(x)")
				if _, err := db.Read.Exec("INSERT INTO t VALUES(1)"); err == nil {
					t.Error("a reader wrote")
				}
				for path, mode := range map[string]fs.FileMode{f.Path: 0o600, f.Path + "-wal": 0o600, f.Path + "-shm": 0o600, filepath.Dir(f.Path): 0o700} {
					if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
						t.Errorf("%s: %v, %v", filepath.Base(path), info.Mode(), err)
					}
				}
			})
		}
	}
}

// TestNothingReadable looks at the bytes of the file, its log and everything
// beside it while it is open and after it was closed.
func TestNothingReadable(t *testing.T) {
	t.Parallel()
	f := File{filepath.Join(t.TempDir(), "db.sqlite"), newKey(t, 0)}
	db := mustOpen(t, f, Options{Readers: 1})
	fill(t, db)
	mustExec(t, db.Write, "CREATE TEMP TABLE spill AS SELECT a.body FROM notes a, notes b LIMIT 20000")
	if n := text(t, db.Read, "SELECT count(*) FROM fts_notes WHERE fts_notes MATCH 'planted'"); n == "0" {
		t.Fatal("the index finds nothing")
	}
	look := func(when string) {
		total := int64(0)
		for _, path := range append(Sidecars(f.Path), f.Path) {
			raw, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			total += int64(len(raw))
			for _, needle := range []string{"SQLite format", "planted", "nobody may", "CREATE TABLE", "fts_notes"} {
				if err != nil || bytes.Contains(raw, []byte(needle)) {
					t.Errorf("%s: %s contains %q, %v", when, filepath.Base(path), needle, err)
				}
			}
		}
		if total == 0 {
			t.Errorf("%s: there was nothing to look at", when)
		}
	}
	// Copies are looked at: opening and closing the files themselves would
	// drop the locks of the open connection.
	look("open")
	if err := db.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	look("after a checkpoint")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	look("closed")
	if format, _, err := Detect(f.Path); err != nil || format != Encrypted {
		t.Errorf("detected %v, %v", format, err)
	}
}

func TestWrongKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	right := File{filepath.Join(dir, "db"), newKey(t, 0)}
	mustOpen(t, right, Options{}).Close()
	plain := File{Path: filepath.Join(dir, "plain")}
	mustOpen(t, plain, Options{}).Close()
	for name, c := range map[string]struct {
		file File
		want error
	}{
		"another key":             {File{right.Path, newKey(t, 1)}, ErrKey},
		"no key":                  {File{Path: right.Path}, ErrKey},
		"a key for plaintext":     {File{plain.Path, newKey(t, 0)}, ErrPlaintext},
		"a missing file":          {File{filepath.Join(dir, "none"), newKey(t, 0)}, fs.ErrNotExist},
		"a folder":                {File{dir, newKey(t, 0)}, disk.ErrUnsafe},
		"a missing file, no key":  {File{Path: filepath.Join(dir, "none")}, fs.ErrNotExist},
		"a file that is no store": {File{os.Args[0], newKey(t, 0)}, ErrKey},
	} {
		if name == "a file that is no store" {
			c.file.Path = filepath.Join(dir, "odd")
			if err := os.WriteFile(c.file.Path, []byte("12345"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		db, err := Driver{}.Open(t.Context(), c.file, Options{})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if db != nil {
			db.Close()
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a missing file was created")
	}
	db, err := Driver{}.Open(t.Context(), right, Options{})
	if err != nil {
		t.Fatalf("after failed attempts: %v", err)
	}
	db.Close()
}

// TestErrorsTellNothing: neither the key nor a row's text is in any error.
func TestErrorsTellNothing(t *testing.T) {
	t.Parallel()
	f := File{filepath.Join(t.TempDir(), "db"), newKey(t, 0)}
	db := mustOpen(t, f, Options{})
	defer db.Close()
	mustExec(t, db.Write, "CREATE TABLE t(x UNIQUE)")
	mustExec(t, db.Write, "INSERT INTO t VALUES(?)", sentence)
	_, unique := db.Write.Exec("INSERT INTO t VALUES(?)", sentence)
	_, wrong := Driver{}.Open(t.Context(), File{f.Path, newKey(t, 1)}, Options{})
	for _, err := range []error{unique, wrong} {
		if err == nil {
			t.Fatal("no error")
		}
		for _, secret := range []string{"planted", "0102030405", "000102", "_pragma"} {
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), secret) {
				t.Errorf("%v tells %q", err, secret)
			}
		}
	}
}

func TestTx(t *testing.T) {
	t.Parallel()
	db := mustOpen(t, File{filepath.Join(t.TempDir(), "db"), newKey(t, 0)}, Options{Readers: 1})
	defer db.Close()
	mustExec(t, db.Write, "CREATE TABLE t(x)")
	insert := func(tx *sql.Tx) error { _, err := tx.Exec("INSERT INTO t VALUES(1)"); return err }
	broken := errors.New("broken")
	if err := db.Tx(t.Context(), insert); err != nil {
		t.Fatal(err)
	}
	if err := db.Tx(t.Context(), func(tx *sql.Tx) error { return errors.Join(insert(tx), broken) }); !errors.Is(err, broken) {
		t.Error(err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = db.Tx(t.Context(), func(tx *sql.Tx) error { _ = insert(tx); panic("x") })
	}()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Tx(ctx, insert); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := text(t, db.Read, "SELECT count(*) FROM t"); n != "1" {
		t.Errorf("%s rows", n)
	}
}

func TestDetect(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	header := make([]byte, 4096)
	copy(header, magic)
	header[16], header[17] = 0x10, 0
	small := bytes.Clone(header[:512])
	small[16], small[17] = 2, 0
	huge := bytes.Repeat([]byte{0}, 65536)
	copy(huge, header)
	huge[16], huge[17] = 0, 1
	odd := bytes.Clone(header)
	odd[16] = 0x11
	for name, c := range map[string]struct {
		content []byte
		want    Format
	}{
		"empty": {nil, Empty}, "one byte": {[]byte{1}, Foreign}, "4095 bytes": {make([]byte, 4095), Foreign}, "4096 bytes": {make([]byte, 4096), Encrypted},
		"4097 bytes": {make([]byte, 4097), Foreign}, "plaintext": {header, Plaintext}, "512-byte pages": {small, Plaintext}, "64 KiB pages": {huge, Plaintext},
		"magic alone": {header[:16], Foreign}, "magic, half a page": {header[:2048], Foreign}, "magic, a page and a bit": {append(bytes.Clone(header), 1), Foreign},
		"magic, odd page size": {odd, Foreign}, "8192 bytes": {make([]byte, 8192), Encrypted},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, size, err := Detect(path); err != nil || got != c.want || size != int64(len(c.content)) {
			t.Errorf("%s: %v of %d bytes, %v", name, got, size, err)
		}
	}
	if got, _, err := Detect(filepath.Join(dir, "none")); err != nil || got != Missing {
		t.Errorf("%v, %v", got, err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "plaintext"), link); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Detect(link); !errors.Is(err, disk.ErrUnsafe) {
		t.Error(err)
	}
	if Format(99).String() != "unknown" || Plaintext.String() != "plaintext" {
		t.Error("formats are misnamed")
	}
}
