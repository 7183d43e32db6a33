package sqlcipher

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// filled makes a database with a table, a full-text index and a hole.
func filled(t *testing.T, f File) Report {
	t.Helper()
	db, err := Driver{}.Open(t.Context(), f, Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Tx(t.Context(), func(tx *sql.Tx) error {
		for _, s := range []string{"CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)", "CREATE VIRTUAL TABLE f USING fts5(text, content=t, content_rowid=id)", "CREATE TABLE gone (b BLOB)", "INSERT INTO gone VALUES (zeroblob(100000))", "PRAGMA user_version = 7"} {
			if _, err := tx.Exec(s); err != nil {
				return err
			}
		}
		for i := range 500 {
			text := fmt.Sprintf("the walrus spoke %d times of the ledger", i)
			if _, err := tx.Exec("INSERT INTO t VALUES (?, ?)", i*3, text); err != nil {
				return err
			}
		}
		_, err := tx.Exec("INSERT INTO f(f) VALUES ('rebuild')")
		return err
	})
	if err == nil {
		_, err = db.Write.Exec("DROP TABLE gone")
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return verified(t, f)
}

func verified(t *testing.T, f File) Report {
	t.Helper()
	r, err := Driver{}.Verify(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestPlainPagesAndBack: what is written plain is the same database, opens
// without a key, and becomes an encrypted one again under another key.
func TestPlainPagesAndBack(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []bool{true, false} {
		dir := t.TempDir()
		src := File{Path: filepath.Join(dir, "src.sqlite")}
		if encrypted {
			src.Key = newKey(t, 1)
		}
		want := filled(t, src)
		var plain bytes.Buffer
		var told int64
		if err := WritePlain(t.Context(), &plain, src, func(done, total int64) { told = done }); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(src.Path)
		if err != nil || info.Size() != int64(plain.Len()) || told != info.Size() {
			t.Fatalf("%d bytes of %d, told %d: %v", plain.Len(), info.Size(), told, err)
		}
		out := File{Path: filepath.Join(dir, "plain.sqlite")}
		if err := os.WriteFile(out.Path, plain.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := verified(t, out); !got.Same(want) {
			t.Errorf("plain: %+v, want %+v", got, want)
		}
		if got := Sealable(plain.Bytes()[:100], info.Size()); got != encrypted {
			t.Errorf("Sealable is %v for pages of an encrypted=%v database", got, encrypted)
		}
		var sealed bytes.Buffer
		back := File{Path: filepath.Join(dir, "back.sqlite"), Key: newKey(t, 2)}
		err = WriteSealed(t.Context(), &sealed, bytes.NewReader(plain.Bytes()), int64(plain.Len()), back.Key, nil)
		if !encrypted {
			if !errors.Is(err, ErrNotVerified) {
				t.Errorf("pages without room were sealed: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(sealed.Bytes(), []byte("walrus")) {
			t.Error("the sealed pages are readable")
		}
		if err := os.WriteFile(back.Path, sealed.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := verified(t, back); !got.Same(want) {
			t.Errorf("back: %+v, want %+v", got, want)
		}
	}
}

// TestWritePlainRefuses: another key, a changed page, a log beside the file, a
// cancelled context.
func TestWritePlainRefuses(t *testing.T) {
	t.Parallel()
	src := File{Path: filepath.Join(t.TempDir(), "src.sqlite"), Key: newKey(t, 1)}
	filled(t, src)
	raw, err := os.ReadFile(src.Path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(ctx context.Context, f File) error {
		var out bytes.Buffer
		return WritePlain(ctx, &out, f, nil)
	}
	if err := try(t.Context(), File{Path: src.Path, Key: newKey(t, 2)}); !errors.Is(err, ErrDamaged) {
		t.Errorf("another key: %v", err)
	}
	for _, at := range []int{3, 20, 4020, 4090, 4096 + 7, len(raw) - 1, len(raw) - 4096} {
		bad := bytes.Clone(raw)
		bad[at] ^= 1
		path := filepath.Join(t.TempDir(), "bad.sqlite")
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := try(t.Context(), File{Path: path, Key: src.Key}); !errors.Is(err, ErrDamaged) {
			t.Errorf("a flipped bit at %d: %v", at, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := try(ctx, src); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := os.WriteFile(src.Path+"-wal", []byte("log"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := try(t.Context(), src); !errors.Is(err, ErrBusy) {
		t.Errorf("a log beside it: %v", err)
	}
}
