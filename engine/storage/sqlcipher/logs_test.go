package sqlcipher

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
)

// cut is what a killed program leaves of a database of many pages: the file,
// and its write-ahead log or, with rollback, a journal that must be played
// back. Half of the work on record is in the log.
func cut(t *testing.T, key dek.Key, rollback bool) (file, log []byte) {
	t.Helper()
	f := File{Path: filepath.Join(t.TempDir(), "cut.sqlite"), Key: key}
	db := mustOpen(t, f, Options{})
	defer db.Abandon()
	suffix := "-wal"
	for _, s := range []string{"CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT)", "INSERT INTO notes VALUES (1, '" + sentence + "')"} {
		mustExec(t, db.Write, s)
	}
	for range 10 {
		mustExec(t, db.Write, "INSERT INTO notes(body) SELECT hex(randomblob(200)) FROM notes")
	}
	if err := db.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rollback {
		suffix = "-journal"
		for _, s := range []string{"PRAGMA journal_mode = DELETE", "PRAGMA cache_size = 10", "BEGIN IMMEDIATE", "PRAGMA user_version = 3", "UPDATE notes SET body = 'lost'", "INSERT INTO notes(body) SELECT hex(randomblob(300)) FROM notes"} {
			mustExec(t, db.Write, s)
		}
	} else {
		mustExec(t, db.Write, "UPDATE notes SET body = body || '.' WHERE id < 20")
	}
	return read(t, f.Path), read(t, f.Path+suffix)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// lay writes a database and a log beside it.
func lay(t *testing.T, key dek.Key, suffix string, file, log []byte) File {
	t.Helper()
	f := File{Path: filepath.Join(t.TempDir(), "laid.sqlite"), Key: key}
	for path, content := range map[string][]byte{f.Path: file, f.Path + suffix: log} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// TestLogsOfOthers: a log with pages of another database or key is refused by
// everything that opens the file, which stays as it is; the file's own log, cut
// anywhere, is used.
func TestLogsOfOthers(t *testing.T) {
	t.Parallel()
	mine, other := newKey(t, 1), newKey(t, 2)
	for _, rollback := range []bool{false, true} {
		suffix := "-wal"
		if rollback {
			suffix = "-journal"
		}
		file, own := cut(t, mine, rollback)
		_, sameKey := cut(t, mine, rollback)
		_, otherKey := cut(t, other, rollback)
		_, plain := cut(t, dek.Key{}, rollback)
		foreign := map[string][]byte{"same key": sameKey, "other key": otherKey, "plaintext": plain}
		if rollback {
			foreign["only a header"] = shorter(own[:512])
		}
		for name, log := range foreign {
			f := lay(t, mine, suffix, file, log)
			if got, err := ForeignLogs(f); err != nil || !slices.Equal(got, []string{f.Path + suffix}) {
				t.Errorf("%s%s: %v, %v", name, suffix, got, err)
			}
			_, openErr := Driver{}.Open(t.Context(), f, Options{})
			_, verifyErr := Driver{}.Verify(t.Context(), f)
			backupErr := Driver{}.Backup(t.Context(), f, File{Path: f.Path + ".copy", Key: other}, nil)
			if !errors.Is(openErr, ErrForeignLog) || !errors.Is(verifyErr, ErrForeignLog) || !errors.Is(backupErr, ErrForeignLog) {
				t.Errorf("%s%s: %v, %v, %v", name, suffix, openErr, verifyErr, backupErr)
			}
			if string(read(t, f.Path)) != string(file) || string(read(t, f.Path+suffix)) != string(log) {
				t.Errorf("%s%s: something changed", name, suffix)
			}
		}
		for _, n := range []int{0, 1, 31, 32, 100, 511, 512, 512 + 4096, len(own) / 2, len(own) - 1, len(own)} {
			f := lay(t, mine, suffix, file, own[:n])
			if got, err := ForeignLogs(f); err != nil || len(got) != 0 {
				// A journal cut behind its header may be anybody's.
				if rollback && n < 512+4096+8 && n >= 512 {
					continue
				}
				t.Errorf("own%s of %d bytes: %v, %v", suffix, n, got, err)
			}
		}
		f := lay(t, mine, suffix, file, own)
		verified(t, f)
		db := mustOpen(t, f, Options{})
		want := map[bool]string{false: sentence + ".", true: sentence}[rollback]
		if got := text(t, db.Read, "SELECT body FROM notes WHERE id = 1"); got != want {
			t.Errorf("%s: %q", suffix, got)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// shorter makes a journal's header say that there was one page.
func shorter(header []byte) []byte {
	header = slices.Clone(header)
	binary.BigEndian.PutUint32(header[8:], 0)
	binary.BigEndian.PutUint32(header[16:], 1)
	return header
}

// TestLogsOfPlaintext: of another plaintext database's log only what its first
// page says can be known; an encrypted one is told by it too.
func TestLogsOfPlaintext(t *testing.T) {
	t.Parallel()
	file, own := cut(t, dek.Key{}, true)
	if got, err := ForeignLogs(lay(t, dek.Key{}, "-journal", file, own)); err != nil || len(got) != 0 {
		t.Errorf("own: %v, %v", got, err)
	}
	_, sealed := cut(t, newKey(t, 1), true)
	if got, err := ForeignLogs(lay(t, dek.Key{}, "-journal", file, sealed)); err != nil || len(got) != 1 {
		t.Errorf("encrypted: %v, %v", got, err)
	}
}

// TestLogWithoutProof: with a key that proves neither the file nor its log,
// nobody is said to be foreign; a whole log proves a file whose first page is
// torn.
func TestLogWithoutProof(t *testing.T) {
	t.Parallel()
	file, log := cut(t, newKey(t, 1), false)
	if got, err := ForeignLogs(lay(t, newKey(t, 2), "-wal", file, log)); !errors.Is(err, ErrKey) {
		t.Errorf("%v, %v", got, err)
	}
	torn := slices.Clone(file)
	clear(torn[2000:PageSize])
	if got, err := ForeignLogs(lay(t, newKey(t, 1), "-wal", torn, log)); err != nil || len(got) != 0 {
		t.Errorf("torn: %v, %v", got, err)
	}
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		f := lay(t, newKey(t, 1), suffix, file, nil)
		if err := errors.Join(os.Remove(f.Path+suffix), os.Symlink(f.Path, f.Path+suffix)); err != nil {
			t.Fatal(err)
		}
		if _, err := (Driver{}).Open(t.Context(), f, Options{}); !errors.Is(err, disk.ErrUnsafe) {
			t.Errorf("%s is a link: %v", suffix, err)
		}
	}
}

// TestOneByte: SQLite takes a file of one byte for none and begins anew.
func TestOneByte(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 15, 16, 4095} {
		f := File{Path: filepath.Join(t.TempDir(), fmt.Sprint(n)), Key: newKey(t, 1)}
		if err := os.WriteFile(f.Path, make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
		_, openErr := Driver{}.Open(t.Context(), f, Options{Create: true})
		_, verifyErr := Driver{}.Verify(t.Context(), f)
		want := map[bool]error{true: ErrDamaged, false: ErrKey}[n == 1]
		if !errors.Is(openErr, want) || !errors.Is(verifyErr, want) || len(read(t, f.Path)) != n {
			t.Errorf("%d bytes: %v, %v, %d bytes left", n, openErr, verifyErr, len(read(t, f.Path)))
		}
	}
}

// FuzzLogs: whatever lies beside a database, looking at it ends.
func FuzzLogs(f *testing.F) {
	key := newKey(f, 1)
	seed := File{Path: filepath.Join(f.TempDir(), "seed.sqlite"), Key: key}
	db := mustOpen(f, seed, Options{})
	mustExec(f, db.Write, "PRAGMA user_version = 5")
	wal := read(f, seed.Path+"-wal")
	for _, s := range []string{"PRAGMA journal_mode = DELETE", "BEGIN IMMEDIATE", "PRAGMA user_version = 6"} {
		mustExec(f, db.Write, s)
	}
	journal := read(f, seed.Path+"-journal")
	if err := db.Abandon(); err != nil {
		f.Fatal(err)
	}
	f.Add(wal, journal)
	f.Add(wal[:walHeaderSize], append(shorter(journal[:512]), journal...))
	f.Add([]byte{}, []byte(journalMagic))
	f.Fuzz(func(t *testing.T, wal, journal []byte) {
		own := prover{size: PageSize, bytes: 3 * PageSize, salt: make([]byte, saltSize)}
		var err error
		if own.pages, err = newPages(key, own.salt); err != nil {
			t.Fatal(err)
		}
		for _, look := range []func() (logState, error){
			func() (logState, error) { return walState(logFile{bytes.NewReader(wal), int64(len(wal))}, &own) },
			func() (logState, error) {
				return journalState(logFile{bytes.NewReader(journal), int64(len(journal))}, &own)
			},
		} {
			if _, err := look(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
