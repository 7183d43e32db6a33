package migrate

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/fstest"

	"osaurus/engine/fault"
	"osaurus/engine/storage/sqlcipher"
)

func database(t *testing.T) *sqlcipher.DB {
	t.Helper()
	db, err := (sqlcipher.Driver{}).Open(t.Context(), sqlcipher.File{Path: filepath.Join(t.TempDir(), "x.sqlite")}, sqlcipher.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // the folder goes anyway
	return db
}

var steps = Steps{
	"CREATE TABLE a (x TEXT);\nCREATE INDEX i ON a(x);\n",
	"ALTER TABLE a ADD COLUMN y TEXT NOT NULL DEFAULT '';\nINSERT INTO a(x) VALUES ('one; two');\n",
}

func version(t *testing.T, db *sqlcipher.DB) int {
	t.Helper()
	v, err := Version(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestUp(t *testing.T) {
	t.Parallel()
	db := database(t)
	for range 2 { // the second time there is nothing to do
		if err := steps.Up(t.Context(), db); err != nil || version(t, db) != 2 {
			t.Fatalf("version %d, %v", version(t, db), err)
		}
	}
	var n int
	if err := db.Write.QueryRow("SELECT count(*) FROM a WHERE y = ''").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// TestFailedStep: a step that fails leaves its version and schema as they were.
func TestFailedStep(t *testing.T) {
	t.Parallel()
	db := database(t)
	bad := append(Steps{}, steps[0], "CREATE TABLE b (x TEXT);\nINSERT INTO nowhere VALUES (1);\n")
	if err := bad.Up(t.Context(), db); err == nil || version(t, db) != 1 {
		t.Fatalf("version %d, %v", version(t, db), err)
	}
	if _, err := db.Write.Exec("SELECT * FROM b"); err == nil {
		t.Error("half of a step stays")
	}
	if err := steps.Up(t.Context(), db); err != nil {
		t.Error(err)
	}
}

// TestUnstamped: columns that are there without their version are no error.
func TestUnstamped(t *testing.T) {
	t.Parallel()
	db := database(t)
	if err := steps.Up(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Write.Exec("PRAGMA user_version = 1"); err != nil {
		t.Fatal(err)
	}
	if err := steps.Up(t.Context(), db); err != nil || version(t, db) != 2 {
		t.Errorf("version %d, %v", version(t, db), err)
	}
}

func TestNewer(t *testing.T) {
	t.Parallel()
	db := database(t)
	if _, err := db.Write.Exec("CREATE TABLE a (x TEXT); PRAGMA user_version = 9"); err != nil {
		t.Fatal(err)
	}
	if err := steps.Up(t.Context(), db); !errors.Is(err, fault.StoreForwardVersion) {
		t.Errorf("%v", err)
	}
	more := Steps{"CREATE TABLE IF NOT EXISTS a (x TEXT);\n", "ALTER TABLE a ADD COLUMN y TEXT;\n"}
	if err := more.Complete(t.Context(), db); err != nil || version(t, db) != 9 {
		t.Errorf("version %d, %v", version(t, db), err)
	}
	if _, err := db.Write.Exec("SELECT y FROM a"); err != nil {
		t.Error(err)
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	db := database(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := steps.Up(ctx, db); err == nil || version(t, db) != 0 {
		t.Errorf("version %d, %v", version(t, db), err)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	got := Load(fstest.MapFS{"m/02.sql": {Data: []byte("two")}, "m/01.sql": {Data: []byte("one")}, "m/readme": {}}, "m")
	if len(got) != 2 || got[0] != "one" || got[1] != "two" {
		t.Errorf("%q", got)
	}
}
