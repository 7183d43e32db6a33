package sqlcipher

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/storage/dek"
)

// keyLiteral is how the other program is given the test's key 00..1f.
const keyLiteral = `PRAGMA key = "x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f'";`

// other finds another SQLCipher 4: the one that testdata/fetch-sqlcipher.sh
// unpacks under build/, or one that is installed.
func other(t *testing.T) string {
	t.Helper()
	fetched, err := filepath.Abs("../../../build/sqlcipher/sqlcipher")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{fetched, "sqlcipher"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := exec.Command(path, ":memory:", "PRAGMA cipher_version").Output()
		if err == nil && strings.HasPrefix(string(out), "4.") {
			return path
		}
	}
	t.Skip("no other SQLCipher 4 is here; testdata/fetch-sqlcipher.sh brings one")
	return ""
}

// tell runs statements in the other program and returns what it printed.
func tell(t *testing.T, program, path, statements string) string {
	t.Helper()
	cmd := exec.Command(program, "-bail", path)
	cmd.Stdin = strings.NewReader(keyLiteral + "\n" + statements)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "ok\n")
}

const otherSchema = `
CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE VIRTUAL TABLE fts_notes USING fts5(body, content='notes', content_rowid='id', tokenize='unicode61 remove_diacritics 2');
CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN INSERT INTO fts_notes(rowid, body) VALUES (new.id, new.body); END;
INSERT INTO notes(body) VALUES('the planted sentence of another program'), ('Crème brûlée');
PRAGMA user_version = 7;
`

// checkOther expects the rows that the other program wrote, the last one of
// them in its write-ahead log, and writes a row in turn.
func checkOther(t *testing.T, f File) {
	t.Helper()
	db := mustOpen(t, f, Options{Readers: 1})
	defer db.Close()
	for query, want := range map[string]string{
		"SELECT count(*) FROM notes":          "3",
		"SELECT body FROM notes WHERE id = 3": "only in the write-ahead log",
		"SELECT notes.body FROM notes JOIN fts_notes ON fts_notes.rowid = id WHERE fts_notes MATCH 'creme'":             "Crème brûlée",
		"SELECT notes.body FROM notes JOIN fts_notes ON fts_notes.rowid = id WHERE fts_notes MATCH '\"ahead\" \"log\"'": "only in the write-ahead log",
		"PRAGMA user_version": "7",
	} {
		if got := text(t, db.Read, query); got != want {
			t.Errorf("%s: %q", query, got)
		}
	}
	if _, err := db.Write.Exec("INSERT INTO notes(body) VALUES('ours')"); err != nil {
		t.Fatal(err)
	}
}

// TestRecordedFile opens files that SQLCipher 4.6.1 wrote, a write-ahead log
// included, without needing that program.
func TestRecordedFile(t *testing.T) {
	t.Parallel()
	f := File{filepath.Join(t.TempDir(), "db"), newKey(t, 0)}
	for _, suffix := range []string{"", "-wal"} {
		raw, err := os.ReadFile("testdata/other-4.6.1.db" + suffix)
		if err == nil {
			err = os.WriteFile(f.Path+suffix, raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	checkOther(t, f)
	if r := mustVerify(t, f); r.Rows["notes"] != 4 || r.UserVersion != 7 {
		t.Errorf("%+v", r)
	}
}

// TestOtherWritesWeRead: the other program is killed with rows in its log.
func TestOtherWritesWeRead(t *testing.T) {
	t.Parallel()
	program := other(t)
	for _, journal := range []string{"WAL", "DELETE"} {
		dir := t.TempDir()
		f := File{filepath.Join(dir, "db"), newKey(t, 0)}
		live := filepath.Join(dir, "live")
		keep := fmt.Sprintf("\n.shell cp '%s' '%s'; cp '%s-wal' '%s-wal' 2>/dev/null || true\n", live, f.Path, live, f.Path)
		tell(t, program, live, "PRAGMA journal_mode = "+journal+";"+otherSchema+"PRAGMA wal_checkpoint(TRUNCATE);\nINSERT INTO notes(body) VALUES('only in the write-ahead log');"+keep)
		if _, err := os.Stat(f.Path + "-wal"); (err == nil) != (journal == "WAL") {
			t.Fatalf("%s: the log: %v", journal, err)
		}
		checkOther(t, f)
		if got := tell(t, program, f.Path, "SELECT count(*) FROM fts_notes WHERE fts_notes MATCH 'ours'; PRAGMA cipher_integrity_check;"); got != "1" {
			t.Errorf("%s: the other program answers %q", journal, got)
		}
	}
}

// TestWeWriteOtherReads: files of every kind that we make, one with a
// write-ahead log that was never moved into it.
func TestWeWriteOtherReads(t *testing.T) {
	t.Parallel()
	program := other(t)
	key := newKey(t, 0)
	plain := source(t, dek.Key{})
	encrypted, rotated := File{plain.Path + ".encrypted", key}, File{plain.Path + ".rotated", key}
	if err := (Driver{}).Export(t.Context(), plain, encrypted, nil); err != nil {
		t.Fatal(err)
	}
	if err := (Driver{}).Backup(t.Context(), source(t, newKey(t, 1)), rotated, nil); err != nil {
		t.Fatal(err)
	}
	live := File{filepath.Join(t.TempDir(), "db"), key}
	db := mustOpen(t, live, Options{})
	fill(t, db)
	torn := File{filepath.Join(t.TempDir(), "db"), key}
	for _, suffix := range []string{"", "-wal"} {
		raw, err := os.ReadFile(live.Path + suffix)
		if err != nil || os.WriteFile(torn.Path+suffix, raw, 0o600) != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var pages, sealed bytes.Buffer
	imported := File{live.Path + ".imported", key}
	if err := WritePlain(t.Context(), &pages, rotated, nil); err != nil {
		t.Fatal(err)
	}
	if err := WriteSealed(t.Context(), &sealed, bytes.NewReader(pages.Bytes()), int64(pages.Len()), key, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(imported.Path, sealed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]File{"imported": imported, "closed": live, "with its log": torn, "migrated": encrypted, "rotated": rotated} {
		got := tell(t, program, f.Path, "SELECT count(*) FROM notes; SELECT count(*) FROM fts_notes WHERE fts_notes MATCH 'number55 AND planted'; PRAGMA user_version; PRAGMA integrity_check; PRAGMA wal_checkpoint(TRUNCATE);")
		if !strings.HasPrefix(got, "89\n1\n7\nok\n") {
			t.Errorf("%s: the other program answers %q", name, got)
		}
		if got := tell(t, program, f.Path, "PRAGMA cipher_integrity_check;"); got != "" && got != "ok" {
			t.Errorf("%s: the other program finds %q", name, got)
		}
	}
}
