package sqlcipher

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
)

// source makes a database with rows still in its write-ahead log when keep
// is given a copy of both; otherwise it is closed.
func source(t *testing.T, key dek.Key) File {
	t.Helper()
	f := File{filepath.Join(t.TempDir(), "db.sqlite"), key}
	db := mustOpen(t, f, Options{})
	fill(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}

func mustVerify(t *testing.T, f File) Report {
	t.Helper()
	r, err := Driver{}.Verify(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// search counts the rows a word is found in, through the index.
func search(t *testing.T, f File, word string) string {
	t.Helper()
	db := mustOpen(t, f, Options{})
	defer db.Close()
	return text(t, db.Write, "SELECT count(*) FROM fts_notes JOIN notes ON notes.rowid = fts_notes.rowid WHERE fts_notes MATCH ? AND notes.body LIKE '%' || ? || '%'", word, word)
}

func TestCopies(t *testing.T) {
	t.Parallel()
	a, b := newKey(t, 0), newKey(t, 1)
	for name, c := range map[string]struct {
		from, to dek.Key
		copy     func(context.Context, File, File, Progress) error
	}{
		"rotation":   {a, b, Driver{}.Backup},
		"duplicate":  {dek.Key{}, dek.Key{}, Driver{}.Backup},
		"encryption": {dek.Key{}, a, Driver{}.Export},
		"decryption": {a, dek.Key{}, Driver{}.Export},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := source(t, c.from)
			before, err := os.ReadFile(src.Path)
			if err != nil {
				t.Fatal(err)
			}
			dst := File{src.Path + ".copy", c.to}
			var done, total int64
			if err := c.copy(t.Context(), src, dst, func(d, n int64) { done, total = d, n }); err != nil {
				t.Fatal(err)
			}
			if done != total || total == 0 {
				t.Errorf("progress ended at %d of %d", done, total)
			}
			want, got := mustVerify(t, src), mustVerify(t, dst)
			if !got.Same(want) || got.UserVersion != 7 || got.ApplicationID != 77 || got.Rows["notes"] != 89 {
				t.Errorf("the copy is %+v, its source %+v", got, want)
			}
			if n, m := search(t, src, "number55"), search(t, dst, "number55"); n != "1" || m != "1" {
				t.Errorf("a word is found %s and %s times", n, m)
			}
			raw, err := os.ReadFile(dst.Path)
			if err != nil || bytes.Contains(raw, []byte("planted")) == dst.Encrypted() {
				t.Errorf("plaintext in an encrypted copy or none in a plain one, %v", err)
			}
			if after, err := os.ReadFile(src.Path); err != nil || name == "duplicate" && !bytes.Equal(before, after) {
				t.Errorf("the source changed, %v", err)
			}
			if info, err := os.Stat(dst.Path); err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			left, err := os.ReadDir(filepath.Dir(src.Path))
			if err != nil || len(left) != 2 {
				t.Errorf("%d files, %v", len(left), err)
			}
			// The next id is remembered, so a deleted row's is not given again.
			db := mustOpen(t, dst, Options{})
			defer db.Close()
			mustExec(t, db.Write, "INSERT INTO numbered(x) VALUES(2)")
			if id := text(t, db.Write, "SELECT max(id) FROM numbered"); id != "42" {
				t.Errorf("the next id is %s", id)
			}
		})
	}
}

// TestCopiesIncludeTheLog: rows that are only in the write-ahead log of a
// host that was killed are copied too.
func TestCopiesIncludeTheLog(t *testing.T) {
	t.Parallel()
	a := newKey(t, 0)
	live := File{filepath.Join(t.TempDir(), "db"), a}
	db := mustOpen(t, live, Options{})
	defer db.Close()
	mustExec(t, db.Write, "CREATE TABLE t(x)")
	if err := db.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustExec(t, db.Write, "INSERT INTO t VALUES('late')")
	dead := File{filepath.Join(t.TempDir(), "db"), a}
	for _, suffix := range []string{"", "-wal"} {
		// A copy of what a killed process leaves; reading the live file here
		// costs it its locks, which nothing else contends for.
		raw, err := os.ReadFile(live.Path + suffix)
		if err != nil || len(raw) == 0 || os.WriteFile(dead.Path+suffix, raw, 0o600) != nil {
			t.Fatalf("%d bytes, %v", len(raw), err)
		}
	}
	dst := File{dead.Path + ".copy", newKey(t, 1)}
	if err := (Driver{}).Backup(t.Context(), dead, dst, nil); err != nil {
		t.Fatal(err)
	}
	if r := mustVerify(t, dst); r.Rows["t"] != 1 {
		t.Errorf("%+v", r)
	}
}

func TestCopiesRefused(t *testing.T) {
	t.Parallel()
	a := newKey(t, 0)
	src := source(t, a)
	plain, sealed := File{Path: src.Path + ".plain"}, File{src.Path + ".sealed", newKey(t, 1)}
	taken := File{src.Path + ".taken", a}
	if err := os.WriteFile(taken.Path, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		err, want error
	}{
		"a backup that decrypts":     {Driver{}.Backup(t.Context(), src, plain, nil), ErrNotVerified},
		"an export that does not":    {Driver{}.Export(t.Context(), src, sealed, nil), ErrNotVerified},
		"a backup with a wrong key":  {Driver{}.Backup(t.Context(), File{src.Path, newKey(t, 9)}, sealed, nil), ErrKey},
		"an export with a wrong key": {Driver{}.Export(t.Context(), File{src.Path, newKey(t, 9)}, plain, nil), ErrKey},
		"a backup onto a file":       {Driver{}.Backup(t.Context(), src, taken, nil), fs.ErrExist},
		"an export onto a file":      {Driver{}.Export(t.Context(), src, File{Path: taken.Path}, nil), fs.ErrExist},
		"an export of nothing":       {Driver{}.Export(t.Context(), File{src.Path + ".none", a}, plain, nil), fs.ErrNotExist},
		"a cancelled backup":         {Driver{}.Backup(ctx, src, sealed, nil), context.Canceled},
		"a cancelled export":         {Driver{}.Export(ctx, src, plain, nil), context.Canceled},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(src.Path)); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if raw, err := os.ReadFile(taken.Path); err != nil || string(raw) != "kept" {
		t.Error("a file was overwritten")
	}
}

// TestCopyThatCannotReachTheDisk: a refused step is an error and leaves no
// copy behind.
func TestCopyThatCannotReachTheDisk(t *testing.T) {
	t.Parallel()
	src, full := source(t, newKey(t, 0)), errors.New("no space")
	for _, op := range []disk.Op{disk.Create, disk.Sync, disk.SyncDir} {
		for n := range 2 {
			seen := 0
			d := Driver{disk.Disk{Step: func(o disk.Op, _ string) error {
				if o == op {
					if seen++; seen > n {
						return full
					}
				}
				return nil
			}}}
			for _, dst := range []File{{src.Path + ".b", newKey(t, 1)}, {Path: src.Path + ".e"}} {
				seen = 0
				run := d.Backup
				if !dst.Encrypted() {
					run = d.Export
				}
				err := run(t.Context(), src, dst, nil)
				_, stat := os.Lstat(dst.Path)
				if err != nil && (!errors.Is(err, full) || !errors.Is(stat, fs.ErrNotExist)) || err == nil && stat != nil {
					t.Errorf("%s after %d: %v, %v", op, n, err, stat)
				}
				os.Remove(dst.Path)
			}
		}
	}
}

// TestDamage flips one bit in each part of a page and of the file (fault
// test 9): Verify or opening says so, and names no content.
func TestDamage(t *testing.T) {
	t.Parallel()
	src := source(t, newKey(t, 0))
	good, err := os.ReadFile(src.Path)
	if err != nil {
		t.Fatal(err)
	}
	pages := len(good) / PageSize
	middle := pages / 2 * PageSize
	for name, at := range map[string]int{
		"salt": 3, "page 1": 500, "page 1's tag": PageSize - 1, "page 1's IV": PageSize - 80, "middle page": middle + 9, "middle IV": middle + PageSize - 70,
		"middle tag": middle + PageSize - 5, "last page": len(good) - 2000, "last byte": len(good) - 1,
	} {
		bad := bytes.Clone(good)
		bad[at] ^= 0x10
		checkDamaged(t, src, name, bad)
	}
	swapped := bytes.Clone(good)
	copy(swapped[2*PageSize:3*PageSize], good[3*PageSize:4*PageSize])
	copy(swapped[3*PageSize:4*PageSize], good[2*PageSize:3*PageSize])
	checkDamaged(t, src, "two pages swapped", swapped)
	other := source(t, newKey(t, 0))
	foreign, err := os.ReadFile(other.Path)
	if err != nil {
		t.Fatal(err)
	}
	copy(foreign[:PageSize], good[:PageSize])
	checkDamaged(t, src, "pages of another file", foreign)
	checkDamaged(t, src, "half a page cut", good[:len(good)-PageSize/2])
	checkDamaged(t, src, "two pages cut", good[:len(good)-2*PageSize])
	checkDamaged(t, src, "half a page", good[:PageSize/2])
}

func checkDamaged(t *testing.T, src File, name string, content []byte) {
	t.Helper()
	bad := File{filepath.Join(t.TempDir(), "db"), src.Key}
	if err := os.WriteFile(bad.Path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Driver{}.Verify(t.Context(), bad)
	if err == nil {
		t.Errorf("%s went unnoticed", name)
	} else if strings.Contains(err.Error(), "planted") {
		t.Errorf("%s: the error tells content: %v", name, err)
	}
}

func TestVerifyFindsAForgottenIndex(t *testing.T) {
	t.Parallel()
	src := source(t, newKey(t, 0))
	db := mustOpen(t, src, Options{})
	mustExec(t, db.Write, "DROP TRIGGER notes_ai")
	mustExec(t, db.Write, "INSERT INTO notes VALUES('late', 'unindexed')")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := (Driver{}).Verify(t.Context(), src); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

func TestVerifyReadsTheLog(t *testing.T) {
	t.Parallel()
	src := source(t, newKey(t, 0))
	db := mustOpen(t, src, Options{})
	mustExec(t, db.Write, "INSERT INTO notes VALUES('late', 'x')")
	if _, err := (Driver{}).Verify(t.Context(), src); err != nil && !errors.Is(err, ErrBusy) {
		t.Errorf("while it is open: %v", err)
	}
	db.Close()
	if r := mustVerify(t, src); r.Rows["notes"] != 90 {
		t.Errorf("%+v", r.Rows)
	}
}
