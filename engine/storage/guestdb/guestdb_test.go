package guestdb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"osaurus/engine/keystore"
	"osaurus/engine/storage"
	"osaurus/engine/storage/sqlcipher"
)

const (
	plugin  = "com.acme.weather"
	agent   = "00000000-0000-4000-8000-00000000000A"
	planted = "the walrus keeps the ledger"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB) (s *storage.Storage, root string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "root")
	s, err := storage.Open(t.Context(), storage.Config{Root: root, Keystore: keystore.NewMemory()})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s, root
}

func both(t testing.TB) (p, a *DB, root string) {
	t.Helper()
	s, root := open(t)
	p, err := Plugin(s, plugin)
	must(t, err)
	a, err = Agent(s, agent, func() time.Time { return time.UnixMilli(1_800_000_000_500) })
	must(t, err)
	return p, a, root
}

func (d *DB) ask(t testing.TB, query, parameters string) string {
	t.Helper()
	rows, err := d.Query(t.Context(), query, json.RawMessage(parameters))
	if err != nil {
		return string(ErrorJSON(err))
	}
	text, err := json.Marshal(rows)
	must(t, err)
	return string(text)
}

func (d *DB) tell(t testing.TB, query, parameters string) string {
	t.Helper()
	done, err := d.Exec(t.Context(), By{"agent", "run-1"}, query, json.RawMessage(parameters))
	if err != nil {
		return string(ErrorJSON(err))
	}
	text, err := json.Marshal(done)
	must(t, err)
	return string(text)
}

// TestAnswers: the JSON of other hosts, byte by byte.
func TestAnswers(t *testing.T) {
	t.Parallel()
	p, _, _ := both(t)
	for _, c := range []struct{ call, query, parameters, want string }{
		{"exec", "CREATE TABLE t (a, b BOOLEAN, c DATE)", "", `{"changes":0,"last_insert_rowid":0}`},
		{"exec", "INSERT INTO t VALUES (?, ?, ?), (?, ?, ?)", `[9007199254740993, true, "2026-01-02", -9223372036854775808, 0.5, null]`, `{"changes":2,"last_insert_rowid":2}`},
		{"query", "SELECT * FROM t", "", `{"columns":["a","b","c"],"rows":[[9007199254740993,1,"2026-01-02"],[-9223372036854775808,0.5,null]]}`},
		{"query", "SELECT x'00ff', 9e999, -9e999, 1e300, '', 'é', 2.0", "[]", `{"columns":["x'00ff'","9e999","-9e999","1e300","''","'é'","2.0"],"rows":[["AP8=",9e999,-9e999,1e+300,"","é",2]]}`},
		{"query", "SELECT a FROM t WHERE 0", "", `{"columns":["a"],"rows":[]}`},
		{"query", "SELECT nope", "", `{"error":"no such column: nope"}`},
		{"exec", "ATTACH 'x' AS y", "", `{"error":"ATTACH x: not allowed here"}`},
		{"exec", "SELECT 1; SELECT 2", "", `{"error":"one statement at a time"}`},
		{"query", "SELECT ?", "[1,2]", `{"error":"another number of parameters than the statement has: 2 given, 1 expected"}`},
		{"query", "SELECT ?", `{"a":1}`, `{"error":"the parameters are no JSON array"}`},
		{"query", "SELECT ?", `[[1]]`, `{"error":"parameter 1 is no null, boolean, number or string"}`},
		{"query", "SELECT ?", `[1] [2]`, `{"error":"the parameters are no JSON array"}`},
		{"query", "SELECT ?", `[1e400]`, `{"error":"parameter 1 is too large"}`},
	} {
		got := ""
		if c.call == "exec" {
			got = p.tell(t, c.query, c.parameters)
		} else {
			got = p.ask(t, c.query, c.parameters)
		}
		if got != c.want {
			t.Errorf("%s %s: %s, want %s", c.call, c.query, got, c.want)
		}
	}
	if got := p.ask(t, "SELECT ?", `["`+strings.Repeat("a", MaxParameters)+`"]`); !strings.Contains(got, "bytes of parameters") {
		t.Errorf("too many parameters: %s", got)
	}
	if got := p.ask(t, "SELECT length(?)", `["`+strings.Repeat("a", MaxParameters-4)+`"]`); got != fmt.Sprintf(`{"columns":["length(?)"],"rows":[[%d]]}`, MaxParameters-4) {
		t.Errorf("parameters within their limit: %.100s", got)
	}
}

// TestPluginTransactions: from one call to the next, and undone when the
// database closes before they end.
func TestPluginTransactions(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	p, err := Plugin(s, plugin)
	must(t, err)
	for _, q := range []string{"CREATE TABLE t (a)", "BEGIN", "INSERT INTO t VALUES (1)", "COMMIT", "BEGIN", "INSERT INTO t VALUES (2)"} {
		if got := p.tell(t, q, ""); strings.Contains(got, "error") {
			t.Fatalf("%s: %s", q, got)
		}
	}
	_, err = s.Rotate(t.Context(), storage.RotateOptions{})
	must(t, err)
	if got := p.ask(t, "SELECT a FROM t", ""); got != `{"columns":["a"],"rows":[[1]]}` {
		t.Errorf("after an operation closed it: %s", got)
	}
}

// TestAgentLog: every change is in the log with who made it, a failed one is
// not, and the log cannot be changed.
func TestAgentLog(t *testing.T) {
	t.Parallel()
	_, a, _ := both(t)
	for _, q := range []string{"CREATE TABLE t (a)", " /* x */ -- y\n INSERT INTO t VALUES (1)", "update t SET a = 2"} {
		if got := a.tell(t, q, ""); strings.Contains(got, "error") {
			t.Fatalf("%s: %s", q, got)
		}
	}
	for _, q := range []string{"INSERT INTO nope VALUES (1)", "DELETE FROM _changelog", "UPDATE _changelog SET actor = 'user'", "BEGIN", "COMMIT", "INSERT INTO _views VALUES (1,2,3,4,5)"} {
		if got := a.tell(t, q, ""); !strings.Contains(got, "error") {
			t.Errorf("%s: %s", q, got)
		}
	}
	if got := a.ask(t, "INSERT INTO t VALUES (9)", ""); !strings.Contains(got, "error") {
		t.Errorf("a query that writes: %s", got)
	}
	const want = `{"columns":["ts","run_id","actor","op"],"rows":[[1800000000.5,"run-1","agent","create"],[1800000000.5,"run-1","agent","insert"],[1800000000.5,"run-1","agent","update"]]}`
	if got := a.ask(t, "SELECT ts, run_id, actor, op FROM _changelog ORDER BY id", ""); got != want {
		t.Errorf("%s", got)
	}
	if got := a.ask(t, "SELECT a FROM t", ""); got != `{"columns":["a"],"rows":[[2]]}` {
		t.Errorf("%s", got)
	}
}

// TestQuota: a warning once when it is nearly full, refusal when it is, and a
// way out by deleting.
func TestQuota(t *testing.T) {
	t.Parallel()
	_, a, _ := both(t)
	if got := a.tell(t, "CREATE TABLE t (b BLOB)", ""); strings.Contains(got, "error") {
		t.Fatal(got)
	}
	warnings, full, n := 0, false, 0
	for ; n < 20 && !full; n++ {
		got := a.tell(t, "INSERT INTO t VALUES (zeroblob(8000000))", "")
		warnings += strings.Count(got, `"warning":"the database uses `)
		full = strings.Contains(got, "database or disk is full")
	}
	if warnings != 1 || !full || n < 10 {
		t.Errorf("%d warnings, full %v after %d", warnings, full, n)
	}
	if got := a.tell(t, "DELETE FROM t", ""); strings.Contains(got, "error") {
		t.Errorf("emptying it: %s", got)
	}
	if got := a.tell(t, "INSERT INTO t VALUES (1)", ""); strings.Contains(got, "error") {
		t.Errorf("afterwards: %s", got)
	}
}

// TestApart: each has its own database, encrypted, under one name of its own.
func TestApart(t *testing.T) {
	t.Parallel()
	p, a, root := both(t)
	p.tell(t, "CREATE TABLE t (a)", "")
	p.tell(t, "INSERT INTO t VALUES (?)", `["`+planted+`"]`)
	a.tell(t, "CREATE TABLE t (a)", "")
	a.tell(t, "INSERT INTO t VALUES (?)", `["`+planted+`"]`)
	if got := a.ask(t, "SELECT count(*) FROM t", ""); got != `{"columns":["count(*)"],"rows":[[1]]}` {
		t.Errorf("%s", got)
	}
	n := 0
	must(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		n++
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte(planted)) || bytes.HasPrefix(raw, []byte("SQLite format 3")) {
			t.Errorf("%s is readable", path)
		}
		return err
	}))
	if n < 4 {
		t.Errorf("only %d files", n)
	}
	s, _ := open(t)
	for _, id := range []string{"", "../x", "a/b", ".hidden", strings.Repeat("a", 129)} {
		if _, err := Plugin(s, id); err == nil {
			t.Errorf("plugin %q", id)
		}
		if _, err := Agent(s, id, nil); err == nil {
			t.Errorf("agent %q", id)
		}
	}
}

// TestMany: many callers at once, none sees another's transaction half done.
func TestMany(t *testing.T) {
	t.Parallel()
	_, a, _ := both(t)
	a.tell(t, "CREATE TABLE t (a)", "")
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if i%5 == 0 {
				_ = a.tell(t, "INSERT INTO nope VALUES (1)", "")
				return
			}
			if got := a.tell(t, "INSERT INTO t VALUES (?)", fmt.Sprint("[", i, "]")); strings.Contains(got, "error") {
				t.Error(got)
			}
			_ = a.ask(t, "SELECT * FROM t", "")
		})
	}
	all.Wait()
	if got := a.ask(t, "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM _changelog WHERE op = 'insert')", ""); !strings.Contains(got, "[16,16]") {
		t.Error(got)
	}
	if sqlcipher.MaxRows != 1000 {
		t.Error("other hosts answer at most 1000 rows")
	}
}
