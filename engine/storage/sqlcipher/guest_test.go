package sqlcipher

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// guests opens a database for a guest that may not touch _ours.
func guests(t *testing.T, g *Guest) *DB {
	t.Helper()
	db := mustOpen(t, File{Path: filepath.Join(t.TempDir(), "data.db"), Key: newKey(t, 1)}, Options{Create: true, Confine: g.Confine})
	for _, s := range []string{"CREATE TABLE _ours (id INTEGER PRIMARY KEY, text TEXT)", "INSERT INTO _ours VALUES (1, 'ours')", "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT)", "INSERT INTO t(text) VALUES ('a'), ('b')"} {
		if _, err := db.Write.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

func ownTables(name string) bool { return strings.HasPrefix(name, "_") }

// TestGuestsMay: what ordinary programs do with a database.
func TestGuestsMay(t *testing.T) {
	t.Parallel()
	g := &Guest{Own: ownTables, Transactions: true}
	db := guests(t, g)
	for _, s := range []string{
		"CREATE TABLE items (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, price REAL, UNIQUE(name))",
		"CREATE TABLE child (item INTEGER REFERENCES items(id) ON DELETE CASCADE, note TEXT)",
		"CREATE INDEX child_item ON child(item)",
		"CREATE VIEW dear AS SELECT * FROM items WHERE price > 10",
		"CREATE TRIGGER noted AFTER INSERT ON items BEGIN INSERT INTO child VALUES (new.id, 'new'); END; -- with a comment",
		"INSERT INTO items(name, price) VALUES ('a', 1), ('b', 20)",
		"INSERT INTO items(name, price) VALUES ('a', 2) ON CONFLICT(name) DO UPDATE SET price = excluded.price",
		"UPDATE items SET price = price * 2 WHERE name LIKE '%a%'",
		"BEGIN IMMEDIATE", "SAVEPOINT s", "DELETE FROM items WHERE id = 1", "ROLLBACK TO s", "COMMIT",
		"ALTER TABLE items RENAME TO things", "ALTER TABLE things ADD COLUMN extra TEXT DEFAULT ''", "ALTER TABLE things RENAME COLUMN extra TO more",
		"REINDEX child_item", "DROP TRIGGER noted", "DROP VIEW dear", "DROP INDEX child_item",
	} {
		if _, _, err := g.Exec(t.Context(), db, s, nil); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{
		"SELECT count(*), max(price), group_concat(name) FROM things",
		"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 10) SELECT sum(x) FROM n",
		"SELECT name, rank() OVER (ORDER BY price) FROM things",
		"SELECT json_extract('{\"a\":[1]}', '$.a[0]'), date('2026-01-02', '+1 day'), printf('%05d', 7), hex(randomblob(4))",
		"SELECT value FROM json_each('[1,2]')",
		"PRAGMA table_info(things)", "PRAGMA index_list('things')", "PRAGMA foreign_key_list(child)", "PRAGMA user_version",
		"SELECT name FROM pragma_table_info('things')", "EXPLAIN QUERY PLAN SELECT * FROM things", "SELECT sql FROM sqlite_master", "SELECT text FROM _ours", "/* first */ SELECT 1 /* last */ ; ;-- end",
	} {
		if _, err := g.Query(t.Context(), db, s, nil); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	if err := db.Close(); err != nil { // our own statements are not confined
		t.Error(err)
	}
}

// TestGuestsMayNot: what leaves the database, changes how it is kept, touches
// what is ours, or ends the process. Each statement is tried plain, after a
// comment and explained.
func TestGuestsMayNot(t *testing.T) {
	t.Parallel()
	g := &Guest{Own: ownTables}
	db := guests(t, g)
	outside := filepath.Join(t.TempDir(), "out.db")
	for _, s := range []string{
		"ATTACH DATABASE '" + outside + "' AS x", "ATTACH '" + outside + "' AS x KEY ''", "DETACH main", "VACUUM", "VACUUM INTO '" + outside + "'",
		"SELECT sqlcipher_export(NULL)", "SELECT sqlcipher_export('main')", "SELECT load_extension('x')", "SELECT fts3_tokenizer('simple')", "SELECT fts5(NULL)", "SELECT auth_user_add('a', 'b', 1)", "SELECT sqlite_log(1, 'x')", "SELECT sqlite_rename_table('main','table','t','CREATE TABLE t(a)','t','x',0)", "SELECT rtreenode(2, x'00')", "SELECT nothing()",
		"PRAGMA key = 'x'", "PRAGMA rekey = 'x'", "PRAGMA main.rekey = 'x'", "PRAGMA cipher_profile = '" + outside + "'", "PRAGMA cipher_salt", "PRAGMA cipher_export", "PRAGMA cipher_memory_security = ON",
		"PRAGMA writable_schema = ON", "PRAGMA user_version = 99", "PRAGMA journal_mode = DELETE", "PRAGMA max_page_count = 1000000", "PRAGMA temp_store_directory = '/tmp'", "PRAGMA database_list",
		"PRAGMA trusted_schema = ON", "PRAGMA query_only", "PRAGMA wal_checkpoint", "PRAGMA optimize", "PRAGMA hard_heap_limit = 1", "SELECT * FROM pragma_database_list", "SELECT * FROM pragma_cipher_salt",
		"CREATE VIRTUAL TABLE v USING fts5(a)", "CREATE VIRTUAL TABLE v USING rtree(a, b, c)", "CREATE TEMP TABLE x (a)", "CREATE TEMP VIEW x AS SELECT 1", "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
		"INSERT INTO _ours VALUES (2, 'x')", "UPDATE _ours SET text = 'x'", "DELETE FROM _ours", "DROP TABLE _ours", "ALTER TABLE _ours RENAME TO x", "CREATE TABLE _mine (a)", "CREATE INDEX i ON _ours(text)",
		"CREATE VIEW _v AS SELECT 1", "CREATE TRIGGER x AFTER INSERT ON _ours BEGIN SELECT 1; END", "UPDATE sqlite_master SET sql = 'x'", "DELETE FROM sqlite_master", "INSERT INTO sqlite_master VALUES (1,2,3,4,5)",
		"BEGIN", "SAVEPOINT x", "ANALYZE",
	} {
		for _, form := range []string{"%s", "/* x */ -- y\n %s", "EXPLAIN %s", " ; %s"} {
			if strings.HasPrefix(form, "EXPLAIN") && (strings.HasPrefix(s, "VACUUM") || strings.Contains(s, "FROM pragma_")) {
				continue // what it would do is listed, and not done
			}
			query := fmt.Sprintf(form, s)
			if _, _, err := g.Exec(t.Context(), db, query, nil); err == nil {
				t.Errorf("executed: %s", query)
			}
			if _, err := g.Query(t.Context(), db, query, nil); err == nil {
				t.Errorf("answered: %s", query)
			}
		}
	}
	// A trigger is refused where it is made, or else where it would write.
	_, _, made := g.Exec(t.Context(), db, "CREATE TRIGGER forge AFTER INSERT ON t BEGIN INSERT INTO _ours VALUES (9, 'forged'); END", nil)
	_, _, fired := g.Exec(t.Context(), db, "INSERT INTO t(text) VALUES ('x')", nil)
	if made == nil && fired == nil {
		t.Error("a trigger wrote into our table")
	}
	if _, err := os.Lstat(outside); err == nil {
		t.Error("a file outside was made")
	}
	got, err := g.Query(t.Context(), db, "SELECT text FROM _ours", nil)
	if err != nil || !reflect.DeepEqual(got.Rows, [][]any{{"ours"}}) {
		t.Errorf("ours: %v %v", got.Rows, err)
	}
}

func TestOneStatement(t *testing.T) {
	t.Parallel()
	g := &Guest{}
	db := guests(t, g)
	for _, s := range []string{"SELECT 1; SELECT 2", "SELECT 1; DROP TABLE t", "SELECT 1;; /* x */ SELECT 2", "SELECT 1; -- x\nDROP TABLE t", "SELECT 1\x00; DROP TABLE t", "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END; DROP TABLE t"} {
		if _, err := g.Query(t.Context(), db, s, nil); !errors.Is(err, ErrStatements) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, n := range []int{0, 1, 3} {
		if _, err := g.Query(t.Context(), db, "SELECT ?, ?", make([]any, n)); !errors.Is(err, ErrParameters) {
			t.Errorf("%d parameters: %v", n, err)
		}
	}
	if _, _, err := g.Exec(t.Context(), db, "SELEC 1", nil); err == nil || !strings.Contains(err.Error(), "SELEC") {
		t.Errorf("a wrong statement: %v", err)
	}
}

// TestValuesAsStored: whatever a column is declared as.
func TestValuesAsStored(t *testing.T) {
	t.Parallel()
	g := &Guest{}
	db := guests(t, g)
	values := []any{int64(math.MaxInt64), int64(math.MinInt64), 0.1, "2026-01-02T03:04:05Z", []byte{0, 255}, nil, "", []byte{}, int64(1), "é\x00x"}
	if _, _, err := g.Exec(t.Context(), db, "CREATE TABLE v (a INTEGER, b BIGINT, c REAL, d TIMESTAMP, e BLOB, f DATE, g TEXT, h BLOB, i BOOLEAN, j DATETIME)", nil); err != nil {
		t.Fatal(err)
	}
	changes, last, err := g.Exec(t.Context(), db, "INSERT INTO v VALUES (?,?,?,?,?,?,?,?,?,?)", values)
	if err != nil || changes != 1 || last != 1 {
		t.Fatalf("%d %d %v", changes, last, err)
	}
	got, err := g.Query(t.Context(), db, "SELECT * FROM v", nil)
	if err != nil || len(got.Rows) != 1 || !reflect.DeepEqual(got.Rows[0], values) {
		t.Errorf("%#v %v", got.Rows, err)
	}
}

// TestGuestLimits: each on both sides.
func TestGuestLimits(t *testing.T) {
	t.Parallel()
	const rows = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < %d) SELECT x FROM n"
	g := &Guest{}
	db := guests(t, g)
	for n, truncated := range map[int]bool{MaxRows: false, MaxRows + 1: true} {
		got, err := g.Query(t.Context(), db, fmt.Sprintf(rows, n), nil)
		if err != nil || len(got.Rows) != MaxRows || got.Truncated != truncated {
			t.Errorf("%d rows: %d, truncated %v, %v", n, len(got.Rows), got.Truncated, err)
		}
	}
	small := &Guest{Limits: Limits{Pages: 64, Value: 10_000, Answer: 30_000, Time: 50 * time.Millisecond}}
	db = guests(t, small)
	if _, err := small.Query(t.Context(), db, "SELECT length(zeroblob(10000))", nil); err != nil {
		t.Errorf("a value within its limit: %v", err)
	}
	if _, err := small.Query(t.Context(), db, "SELECT length(zeroblob(10001))", nil); err == nil {
		t.Error("a value beyond its limit")
	}
	if _, err := small.Query(t.Context(), db, "SELECT '"+strings.Repeat("a", 10_000)+"'", nil); err == nil {
		t.Error("a statement beyond its limit")
	}
	if _, err := small.Query(t.Context(), db, "SELECT zeroblob(9000) UNION ALL SELECT zeroblob(9000) UNION ALL SELECT zeroblob(9000)", nil); err != nil {
		t.Errorf("an answer within its limit: %v", err)
	}
	if _, err := small.Query(t.Context(), db, "SELECT zeroblob(9990), zeroblob(9990), zeroblob(9990)", nil); !errors.Is(err, ErrAnswer) {
		t.Errorf("an answer beyond its limit: %v", err)
	}
	if _, err := small.Query(t.Context(), db, fmt.Sprintf(rows, 1<<62)+" ORDER BY x", nil); !errors.Is(err, ErrTime) && !errors.Is(err, ErrMemory) {
		t.Errorf("without end: %v", err)
	}
	if _, _, err := small.Exec(t.Context(), db, "DELETE FROM t WHERE ("+fmt.Sprintf(strings.Replace(rows, "SELECT x FROM n", "SELECT count(*) FROM n", 1), 1<<62)+") > 0", nil); !errors.Is(err, ErrTime) {
		t.Errorf("writing without end: %v", err)
	}
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		_, _, err = small.Exec(t.Context(), db, "INSERT INTO t(text) VALUES (zeroblob(9000))", nil)
	}
	if !errors.Is(Classify(err), ErrFull) || n < 10 {
		t.Errorf("after %d rows: %v", n, err)
	}
	if _, _, err := small.Exec(t.Context(), db, "DELETE FROM t", nil); err != nil {
		t.Errorf("a full database cannot be emptied: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Query(ctx, db, "SELECT 1", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestGuestMemory is not parallel: what others use counts.
func TestGuestMemory(t *testing.T) { //nolint:paralleltest // memory is the process's
	g := &Guest{Limits: Limits{Memory: 32 << 20, Time: time.Minute}}
	db := guests(t, g)
	_, err := g.Query(t.Context(), db, "WITH RECURSIVE n(x) AS (SELECT randomblob(100000) UNION ALL SELECT randomblob(100000) FROM n) SELECT length(x) FROM n ORDER BY x", nil)
	if !errors.Is(err, ErrMemory) {
		t.Errorf("sorting without end: %v", err)
	}
	if _, err := g.Query(t.Context(), db, "SELECT count(*) FROM t", nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
