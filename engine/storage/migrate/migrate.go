// Package migrate brings the schema of a database up to date, one step of one
// version at a time.
package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"osaurus/engine/fault"
	"osaurus/engine/storage/sqlcipher"
)

// Steps are the scripts of the versions, the first one that of version 1. A
// script is statements that end in ";\n"; a column that is there already is
// not added again, so that a version which was never stamped can be repaired.
type Steps []string

// Load reads *.sql of dir in the order of their names.
func Load(files fs.FS, dir string) Steps {
	names, err := fs.Glob(files, dir+"/*.sql")
	if err != nil || len(names) == 0 {
		panic("migrate: internal error: no scripts in " + dir) // they are embedded
	}
	slices.Sort(names)
	var steps Steps
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			panic("migrate: internal error: " + err.Error())
		}
		steps = append(steps, string(text))
	}
	return steps
}

// Up applies the steps that user_version does not have, each in a transaction
// with its stamp. A newer version is fault.StoreForwardVersion.
func (s Steps) Up(ctx context.Context, db *sqlcipher.DB) error {
	version, err := Version(ctx, db)
	if err != nil {
		return err
	}
	if version > len(s) {
		return fault.New(fault.StoreForwardVersion, fmt.Errorf("migrate: version %d, this build knows %d", version, len(s)))
	}
	for n := version; n < len(s); n++ {
		err := db.Tx(ctx, func(tx *sql.Tx) error {
			if err := run(ctx, tx, s[n]); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", n+1))
			return err
		})
		if err != nil {
			return fmt.Errorf("migrate: to version %d: %w", n+1, sqlcipher.Classify(err))
		}
	}
	return nil
}

// Complete adds what a database of a newer version lacks of ours, and leaves
// its stamp alone. Only for schemas that grow by adding.
func (s Steps) Complete(ctx context.Context, db *sqlcipher.DB) error {
	err := db.Tx(ctx, func(tx *sql.Tx) error { return s.Apply(ctx, tx) })
	if err != nil {
		return fmt.Errorf("migrate: completing a newer schema: %w", sqlcipher.Classify(err))
	}
	return nil
}

// Apply runs every step in the caller's transaction and stamps nothing.
func (s Steps) Apply(ctx context.Context, tx *sql.Tx) error {
	for _, step := range s {
		if err := run(ctx, tx, step); err != nil {
			return err
		}
	}
	return nil
}

// Version reads user_version.
func Version(ctx context.Context, db *sqlcipher.DB) (int, error) {
	var version int
	err := db.Write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
	return version, sqlcipher.Classify(err)
}

var addColumn = regexp.MustCompile(`(?is)^ALTER\s+TABLE\s+(\w+)\s+ADD\s+COLUMN\s+(\w+)\s`)

func run(ctx context.Context, tx *sql.Tx, script string) error {
	for statement := range strings.SplitSeq(script, ";\n") {
		statement = strings.TrimSpace(statement)
		if statement == "" {
			continue
		}
		if m := addColumn.FindStringSubmatch(statement); m != nil {
			there, err := hasColumn(ctx, tx, m[1], m[2])
			if err != nil {
				return err
			}
			if there {
				continue
			}
		}
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func hasColumn(ctx context.Context, tx *sql.Tx, table, column string) (bool, error) {
	var name string
	err := tx.QueryRowContext(ctx, "SELECT name FROM pragma_table_info(?) WHERE name = ? COLLATE NOCASE", table, column).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}
