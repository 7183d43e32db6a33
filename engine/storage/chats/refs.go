package chats

import (
	"context"
	"database/sql"
	"time"

	"osaurus/engine/storage/blob"
	"osaurus/engine/storage/sqlcipher"
)

// reconcile makes osr_blob_refs agree with the turns: another host that
// shares the file changes turns and knows nothing of our table. Only turns
// with a spilled attachment are read, through their index.
func reconcile(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, "DELETE FROM osr_blob_refs WHERE NOT EXISTS (SELECT 1 FROM turns WHERE turns.id = turn_id AND instr(turns.attachments, hash) > 0)"); err != nil {
		return err
	}
	type spilled struct{ id, session, attachments string }
	var all []spilled
	rows, err := tx.QueryContext(ctx, `SELECT id, session_id, attachments FROM turns WHERE instr(attachments, '_ref"') > 0`)
	if err != nil {
		return err
	}
	err = each(rows, func() error {
		var t spilled
		err := rows.Scan(&t.id, &t.session, &t.attachments)
		all = append(all, t)
		return err
	})
	for _, t := range all {
		if err == nil {
			err = putRefs(ctx, tx, t.session, t.id, t.attachments)
		}
	}
	return err
}

// putRefs records what the attachments of a turn mention.
func putRefs(ctx context.Context, tx *sql.Tx, session, turn, attachments string) error {
	for _, h := range blob.Mentioned(attachments) {
		if _, err := tx.ExecContext(ctx, "INSERT INTO osr_blob_refs(hash, session_id, turn_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", h, session, turn); err != nil {
			return err
		}
	}
	return nil
}

// takeRefs forgets the references of a turn, or of a whole session, and
// returns them.
func takeRefs(ctx context.Context, tx *sql.Tx, of refColumn, id string) ([]blob.Hash, error) {
	rows, err := tx.QueryContext(ctx, of.look, id)
	if err != nil {
		return nil, err
	}
	var all []blob.Hash
	if err := each(rows, func() error {
		var h blob.Hash
		err := rows.Scan(&h)
		all = append(all, h)
		return err
	}); err != nil || len(all) == 0 {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, of.forget, id)
	return all, err
}

// refColumn is by what references are found.
type refColumn struct{ look, forget string }

var (
	ofTurn    = refColumn{"SELECT hash FROM osr_blob_refs WHERE turn_id = ?", "DELETE FROM osr_blob_refs WHERE turn_id = ?"}
	ofSession = refColumn{"SELECT hash FROM osr_blob_refs WHERE session_id = ?", "DELETE FROM osr_blob_refs WHERE session_id = ?"}
)

// each runs do for every row and closes rows.
func each(rows *sql.Rows, do func() error) error {
	defer func() { _ = rows.Close() }() // Err tells what went wrong
	for rows.Next() {
		if err := do(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// collect deletes those blobs that nobody mentions any more. Nothing is being
// spilled meanwhile, so a blob without a reference stays without one.
func (c *Chats) collect(ctx context.Context, db *sqlcipher.DB, hashes []blob.Hash) error {
	if len(hashes) == 0 {
		return nil
	}
	c.spilling.Lock()
	defer c.spilling.Unlock()
	var free []blob.Hash
	for _, h := range hashes {
		used, err := referenced(ctx, db, h)
		if err != nil {
			return err
		}
		if !used {
			free = append(free, h)
		}
	}
	return c.blobs.Remove(free...)
}

func referenced(ctx context.Context, db *sqlcipher.DB, h blob.Hash) (used bool, err error) {
	err = db.Read.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM osr_blob_refs WHERE hash = ?)", h).Scan(&used)
	return used, err
}

// Sweep deletes the blobs older than grace that no turn mentions, which a
// process left that ended between keeping an attachment and keeping its turn.
// It returns how many files it deleted.
func (c *Chats) Sweep(ctx context.Context, grace time.Duration) (swept int, err error) {
	err = c.use(ctx, func(db *sqlcipher.DB) error {
		c.spilling.Lock()
		defer c.spilling.Unlock()
		if err := db.Tx(ctx, func(tx *sql.Tx) error { return reconcile(ctx, tx) }); err != nil {
			return err
		}
		swept, err = c.blobs.Sweep(func(h blob.Hash) (bool, error) { return referenced(ctx, db, h) }, c.now().Add(-grace))
		return err
	})
	return swept, err
}
