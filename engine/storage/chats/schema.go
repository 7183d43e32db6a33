package chats

import (
	"context"
	"database/sql"
	_ "embed" // refs.sql
	"errors"
	"strconv"
	"strings"

	"osaurus/engine/fault"
	"osaurus/engine/storage/migrations"
	"osaurus/engine/storage/sqlcipher"
)

// Versions this build writes (decisions D6).
const (
	SchemaVersion = 7 // PRAGMA user_version, shared with other hosts
	refsVersion   = 1 // of the osr_ tables, in osr_meta
)

//go:embed refs.sql
var refsSchema string

// refsKey is where osr_meta has the version of our own tables.
const refsKey = "refs_version"

// setup brings a database to SchemaVersion. A newer stamp is kept, since newer
// hosts only add. Columns of ours that a database lacks are added whatever its
// stamp says, and those it already has are passed over: both come of a host
// that was stopped between a change and its stamp.
func setup(ctx context.Context, db *sqlcipher.DB) error {
	if err := migrations.Chats.Up(ctx, db); err != nil && !errors.Is(err, fault.StoreForwardVersion) {
		return err
	}
	if err := migrations.Chats.Complete(ctx, db); err != nil {
		return err
	}
	return db.Tx(ctx, func(tx *sql.Tx) error {
		if err := setupRefs(ctx, tx); err != nil {
			return err
		}
		return reconcile(ctx, tx)
	})
}

// setupRefs makes our own tables. Those of a newer version are not touched:
// what they mean for the blobs is unknown here.
func setupRefs(ctx context.Context, tx *sql.Tx) error {
	for statement := range strings.SplitSeq(refsSchema, ";\n") {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	var value string
	err := tx.QueryRowContext(ctx, "SELECT value FROM osr_meta WHERE key = ?", refsKey).Scan(&value)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		_, err = tx.ExecContext(ctx, "INSERT INTO osr_meta(key, value) VALUES (?, ?)", refsKey, strconv.Itoa(refsVersion))
		return err
	case err != nil:
		return err
	}
	if version, err := strconv.Atoi(value); err != nil || version > refsVersion {
		return fault.New(fault.StoreForwardVersion, err)
	}
	return nil
}
