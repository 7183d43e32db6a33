package memory

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"osaurus/engine/storage/migrations"
)

// kept is where a table of an older host stands while ours is made.
const kept = "osr_older_"

// ours are the tables of the present version, each with the tables of older
// hosts that become it. Versions 1 to 4
// had conversations in chunks and their summaries; from 5 on the tables have
// their present names and differ by columns.
var ours = []struct {
	table string
	older []string
}{
	{"identity", []string{"identity", "user_profile"}},
	{"pinned_facts", []string{"pinned_facts"}},
	{"episodes", []string{"episodes", "conversation_summaries"}},
	{"transcript", []string{"transcript", "conversation_chunks"}},
	{"pending_signals", []string{"pending_signals"}},
	{"processing_log", []string{"processing_log"}},
}

// defaults are for columns that must have a value and that an older table
// lacks or leaves empty.
var defaults = map[string]string{
	"agent_id": "''", "conversation_id": "''", "content": "''", "summary": "''", "role": "'user'", "chunk_index": "0", "created_at": "''",
	"conversation_at": "coalesce(created_at, '')", "user_message": "''", "task_type": "''", "status": "'active'",
}

// upgrade makes the present tables in a transaction and carries the rows of
// older ones over, column by column. Tables of other purpose stay.
func upgrade(ctx context.Context, tx *sql.Tx) error {
	have, err := objects(ctx, tx, "table")
	if err != nil {
		return err
	}
	// Triggers and indexes over text are made anew: what they name may go.
	triggers, err := objects(ctx, tx, "trigger")
	if err != nil {
		return err
	}
	for _, name := range triggers {
		if err := exec(ctx, tx, "DROP TRIGGER "+quote(name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"fts_pinned", "fts_episodes", "fts_transcript"} {
		if err := exec(ctx, tx, "DROP TABLE IF EXISTS "+name); err != nil {
			return err
		}
	}
	var carried []string
	for _, o := range ours {
		for _, name := range o.older {
			if !slices.Contains(have, name) {
				continue
			}
			if err := exec(ctx, tx, fmt.Sprintf("CREATE TABLE %s AS SELECT * FROM %s", kept+name, name), "DROP TABLE "+name); err != nil {
				return err
			}
			carried = append(carried, name)
		}
	}
	if err := migrations.Memory.Apply(ctx, tx); err != nil {
		return err
	}
	for _, o := range ours {
		for _, name := range o.older {
			if !slices.Contains(carried, name) {
				continue
			}
			if err := carry(ctx, tx, kept+name, o.table); err != nil {
				return err
			}
		}
	}
	if err := carryEdits(ctx, tx); err != nil {
		return err
	}
	if err := nameAgents(ctx, tx); err != nil {
		return err
	}
	return exec(ctx, tx, fmt.Sprintf("PRAGMA user_version = %d", migrations.MemoryVersion))
}

// carryEdits puts what the owner wrote into an older profile, version 1 to 4,
// behind the overrides of the identity, oldest first. What the owner had
// deleted goes.
func carryEdits(ctx context.Context, tx *sql.Tx) error {
	const table = "user_edits"
	theirs, err := columns(ctx, tx, table)
	if err != nil || !slices.Contains(theirs, "content") {
		return err
	}
	where := "trim(coalesce(content, '')) <> ?"
	if slices.Contains(theirs, "deleted_at") {
		where += " AND coalesce(deleted_at, '') = ''"
	}
	edits, err := list(ctx, tx, "SELECT content FROM "+table+" WHERE "+where+" ORDER BY rowid", "")
	if err != nil {
		return err
	}
	if len(edits) == 0 {
		return exec(ctx, tx, "DROP TABLE "+table)
	}
	if err := exec(ctx, tx, "INSERT OR IGNORE INTO identity(id) VALUES (1)"); err != nil {
		return err
	}
	var text string
	if err := tx.QueryRowContext(ctx, "SELECT overrides FROM identity WHERE id = 1").Scan(&text); err != nil {
		return err
	}
	var overrides []any
	if json.Unmarshal([]byte(text), &overrides) != nil {
		return nil //nolint:nilerr // the table stays: neither may be lost
	}
	for _, e := range edits {
		overrides = append(overrides, e)
	}
	raw, err := json.Marshal(overrides)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "UPDATE identity SET overrides = ? WHERE id = 1", string(raw)); err != nil {
		return err
	}
	return exec(ctx, tx, "DROP TABLE "+table)
}

// nameAgents gives what was said, and what came of it, the agent that an older
// host named once for the whole conversation.
func nameAgents(ctx context.Context, tx *sql.Tx) error {
	theirs, err := columns(ctx, tx, "conversations")
	if err != nil || !slices.Contains(theirs, "id") || !slices.Contains(theirs, "agent_id") {
		return err
	}
	for _, table := range []string{"transcript", "episodes"} {
		agent := "(SELECT c.agent_id FROM conversations c WHERE c.id = " + table + ".conversation_id)"
		if err := exec(ctx, tx, "UPDATE "+table+" SET agent_id = "+agent+" WHERE agent_id = '' AND "+agent+" IS NOT NULL"); err != nil {
			return err
		}
	}
	return nil
}

// carry copies the columns two tables share and drops the older one, unless a
// row of it was left out because its id is taken.
func carry(ctx context.Context, tx *sql.Tx, from, to string) error {
	theirs, err := columns(ctx, tx, from)
	if err != nil {
		return err
	}
	columnsOfOurs, err := columns(ctx, tx, to)
	if err != nil {
		return err
	}
	var names, values []string
	for _, c := range columnsOfOurs {
		fallback, needed := defaults[c]
		if c == "conversation_at" && !slices.Contains(theirs, "created_at") {
			fallback = "''"
		}
		switch there := slices.Contains(theirs, c); {
		case there && needed:
			names, values = append(names, c), append(values, fmt.Sprintf("coalesce(%s, %s)", c, fallback))
		case there:
			names, values = append(names, c), append(values, c)
		case needed && c != "status":
			names, values = append(names, c), append(values, fallback)
		}
	}
	done, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT OR IGNORE INTO %s(%s) SELECT %s FROM %s", to, strings.Join(names, ", "), strings.Join(values, ", "), from))
	if err != nil {
		return err
	}
	copied, err := done.RowsAffected()
	if err != nil {
		return err
	}
	var rows int64
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM "+from).Scan(&rows); err != nil || copied != rows {
		return err
	}
	return exec(ctx, tx, "DROP TABLE "+from)
}

func exec(ctx context.Context, tx *sql.Tx, statements ...string) error {
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// objects lists what there is of a type, without SQLite's own.
func objects(ctx context.Context, tx *sql.Tx, kind string) ([]string, error) {
	return list(ctx, tx, "SELECT name FROM sqlite_master WHERE type = ? AND name NOT LIKE 'sqlite_%'", kind)
}

func columns(ctx context.Context, tx *sql.Tx, table string) ([]string, error) {
	return list(ctx, tx, "SELECT name FROM pragma_table_info(?)", table)
}

func list(ctx context.Context, tx *sql.Tx, query string, arg any) (all []string, err error) {
	rows, err := tx.QueryContext(ctx, query, arg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err is looked at
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
