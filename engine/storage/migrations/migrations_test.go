package migrations_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/storage/migrate"
	"osaurus/engine/storage/migrations"
	"osaurus/engine/storage/sqlcipher"
)

func open(t *testing.T) *sqlcipher.DB {
	t.Helper()
	db, err := sqlcipher.Driver{}.Open(t.Context(), sqlcipher.File{Path: filepath.Join(t.TempDir(), "x.sqlite")}, sqlcipher.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // looked at by no test
	return db
}

// TestVersions: the numbers other hosts stamp, what each schema lets one do,
// and a newer one refused.
func TestVersions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steps   migrate.Steps
		version int
		use     string
	}{
		"methods":    {migrations.Methods, 1, "INSERT INTO methods(id, name, description, body, source, created_at, updated_at) VALUES ('m', 'n', 'd', 'b', 's', '', '')"},
		"tool index": {migrations.ToolIndex, 2, "INSERT INTO tool_index(id, name, description, runtime, created_at, updated_at) VALUES ('t', 'walrus tool', 'd', 'native', '', '')"},
		"scheduler":  {migrations.Scheduler, 1, "INSERT INTO agent_next_run(agent_id, scheduled_at, instructions) VALUES ('A', 1.5, 'go')"},
		"agent":      {migrations.Agent, 1, "INSERT INTO _changelog(ts, actor, op) VALUES (1, 'agent', 'insert')"},
		"chats":      {migrations.Chats, 7, "INSERT INTO sessions(id, title, created_at, updated_at) VALUES ('s', 't', 1, 1)"},
	} {
		db := open(t)
		for range 2 { // again is no change
			if err := c.steps.Up(t.Context(), db); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if v, err := migrate.Version(t.Context(), db); err != nil || v != c.version {
			t.Errorf("%s: version %d, %v", name, v, err)
		}
		if _, err := db.Write.Exec(c.use); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := db.Write.Exec("PRAGMA user_version = 99"); err != nil {
			t.Fatal(err)
		}
		if err := c.steps.Up(t.Context(), db); !errors.Is(err, fault.StoreForwardVersion) {
			t.Errorf("%s: a newer version: %v", name, err)
		}
	}
}

// TestSearchOfOlderTools: tools that were indexed before there was a search are
// found, and what is removed is not.
func TestSearchOfOlderTools(t *testing.T) {
	t.Parallel()
	db, ctx := open(t), context.Background()
	if err := migrations.ToolIndex[:1].Up(ctx, db); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Write.Exec("INSERT INTO tool_index(id, name, description, runtime, created_at, updated_at) VALUES ('t', 'a Walrus', 'd', 'native', '', '')"); err != nil {
		t.Fatal(err)
	}
	if err := migrations.ToolIndex.Up(ctx, db); err != nil {
		t.Fatal(err)
	}
	for want, change := range []string{"DELETE FROM tool_index", ""} {
		n := 0
		if err := db.Write.QueryRow("SELECT count(*) FROM tool_index_fts WHERE tool_index_fts MATCH 'walrus'").Scan(&n); err != nil || n != 1-want {
			t.Errorf("found %d: %v", n, err)
		}
		if _, err := db.Write.Exec(change); err != nil {
			t.Fatal(err)
		}
	}
}
