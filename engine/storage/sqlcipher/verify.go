package sqlcipher

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
)

// Report is what a verified database holds: enough to say that a copy is
// equal to its source, and nothing of its content.
type Report struct {
	UserVersion   int64
	ApplicationID int64
	Schema        string           // hex SHA-256 over every object's SQL
	Rows          map[string]int64 // rows of each table
}

// Same reports whether two databases agree on all of it.
func (r Report) Same(other Report) bool {
	return r.UserVersion == other.UserVersion && r.ApplicationID == other.ApplicationID && r.Schema == other.Schema && maps.Equal(r.Rows, other.Rows)
}

// Verify implements Engine: the MACs of all pages, the structure of all
// trees, the full-text indexes and the foreign keys. A write-ahead log is
// moved into the file first, because the MAC check reads the file alone.
func (d Driver) Verify(ctx context.Context, f File) (r Report, err error) {
	db, err := bare(ctx, f)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var busy, logged, moved int
	if err := db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &logged, &moved); err != nil {
		return Report{}, Classify(err)
	}
	if busy != 0 {
		return Report{}, ErrBusy
	}
	checks := []string{"PRAGMA integrity_check(10)", "PRAGMA foreign_key_check"}
	if f.Encrypted() {
		checks = append([]string{"PRAGMA cipher_integrity_check"}, checks...)
	}
	for _, check := range checks {
		if err := sound(ctx, db, check); err != nil {
			return Report{}, err
		}
	}
	if err := checkIndexes(ctx, db); err != nil {
		return Report{}, err
	}
	return describe(ctx, db)
}

// Check verifies the pages of an open database, once its log has been moved
// into the file: their MACs if it is encrypted, its structure otherwise.
func (db *DB) Check(ctx context.Context, encrypted bool) error {
	if err := db.Checkpoint(ctx); err != nil {
		return err
	}
	check := "PRAGMA integrity_check(10)"
	if encrypted {
		check = "PRAGMA cipher_integrity_check"
	}
	return sound(ctx, db.Write, check)
}

// sound runs a check whose every row but "ok" is a problem.
func sound(ctx context.Context, db *sql.DB, check string) error {
	rows, err := db.QueryContext(ctx, check)
	if err != nil {
		return Classify(err)
	}
	defer func() { _ = rows.Close() }() // Err is looked at
	problems := 0
	for rows.Next() {
		columns, err := rows.Columns()
		if err != nil {
			return err
		}
		values, targets := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		if text, ok := values[0].(string); !ok || text != "ok" {
			problems++
		}
	}
	if err := Classify(rows.Err()); err != nil {
		return err
	}
	if problems > 0 {
		return fmt.Errorf("%w: %s found %d problems", ErrDamaged, check, problems)
	}
	return nil
}

func checkIndexes(ctx context.Context, db *sql.DB) error {
	tables, err := fullText(ctx, db)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if _, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO %s(%s) VALUES('integrity-check')", quote(t.name), quote(t.name))); err != nil {
			return fmt.Errorf("sqlcipher: checking a full-text index: %w", Classify(err))
		}
	}
	return nil
}

func describe(ctx context.Context, db *sql.DB) (Report, error) {
	r := Report{Rows: map[string]int64{}}
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&r.UserVersion); err != nil {
		return Report{}, Classify(err)
	}
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&r.ApplicationID); err != nil {
		return Report{}, Classify(err)
	}
	rows, err := db.QueryContext(ctx, "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name")
	if err != nil {
		return Report{}, Classify(err)
	}
	defer func() { _ = rows.Close() }() // Err is looked at
	sum := sha256.New()
	var tables []string
	for rows.Next() {
		var kind, name, table, text string
		if err := rows.Scan(&kind, &name, &table, &text); err != nil {
			return Report{}, err
		}
		_, _ = fmt.Fprintf(sum, "%q %q %q %q\n", kind, name, table, text) // a hash takes everything
		if kind == "table" {
			tables = append(tables, name)
		}
	}
	if err := Classify(rows.Err()); err != nil {
		return Report{}, err
	}
	r.Schema = hex.EncodeToString(sum.Sum(nil))
	indexes, err := fullText(ctx, db)
	if err != nil {
		return Report{}, err
	}
	for _, name := range tables {
		if shadow(name, indexes) {
			continue
		}
		var n int64
		if err := db.QueryRowContext(ctx, "SELECT count(*) FROM "+quote(name)).Scan(&n); err != nil {
			return Report{}, Classify(err)
		}
		r.Rows[name] = n
	}
	return r, nil
}

// Texts returns the first column of a query on a file that nobody has open.
func Texts(ctx context.Context, f File, query string) (all []string, err error) {
	db, err := bare(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, Classify(err)
	}
	defer func() { _ = rows.Close() }() // Err is looked at
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, Classify(rows.Err())
}

// shadow reports whether a table belongs to a full-text index: a rebuilt one
// has other segments and the same content.
func shadow(name string, indexes []fullTextTable) bool {
	for _, t := range indexes {
		for _, suffix := range []string{"_data", "_idx", "_content", "_docsize", "_config"} {
			if name == t.name+suffix {
				return true
			}
		}
	}
	return false
}
