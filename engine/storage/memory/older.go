package memory

import (
	"context"
	"database/sql"
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
	return exec(ctx, tx, fmt.Sprintf("PRAGMA user_version = %d", migrations.MemoryVersion))
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
