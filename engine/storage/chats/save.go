package chats

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"osaurus/engine/fault"
	"osaurus/engine/storage/blob"
	"osaurus/engine/storage/sqlcipher"
)

// Save makes the stored session equal to s in one transaction, writing only
// what differs; nothing at all when nothing does. System turns are left out.
// Attachments become blobs first, and blobs that s no longer mentions are
// deleted after the commit: an error about those comes with the session saved,
// and Sweep deletes what is left.
func (c *Chats) Save(ctx context.Context, s Session) error {
	if s.ID == "" || slices.ContainsFunc(s.Capabilities, func(name string) bool { return strings.Contains(name, ",") }) {
		return fault.WithText(fault.Usage, "a session needs an id, and capabilities without commas")
	}
	return c.change(ctx, s.Turns, func(tx *sql.Tx, rows []row) ([]blob.Hash, error) {
		return c.save(ctx, tx, s, rows)
	})
}

// change keeps the attachments of turns, runs do in a transaction and then
// deletes those blobs of the ones do returns that nobody mentions any more.
func (c *Chats) change(ctx context.Context, turns []Turn, do func(*sql.Tx, []row) ([]blob.Hash, error)) error {
	return c.use(ctx, func(db *sqlcipher.DB) error {
		var dropped []blob.Hash
		err := func() error {
			c.spilling.RLock()
			defer c.spilling.RUnlock()
			rows, err := spillTurns(c.blobs, turns)
			if err != nil {
				return err
			}
			return db.Tx(ctx, func(tx *sql.Tx) (err error) {
				dropped, err = do(tx, rows)
				return err
			})
		}()
		if err != nil {
			return err
		}
		return c.collect(ctx, db, dropped)
	})
}

// stored is what the diff needs to know of a stored turn.
type stored struct {
	id, hash string
	seq      int
}

// diff is how stored turns become the wanted ones.
type diff struct {
	vanished []stored
	moved    []stored // stay, at another place
	written  []int    // places of new and changed turns
	changed  []string // ids of those that were there
}

func (d diff) empty() bool { return len(d.vanished)+len(d.moved)+len(d.written) == 0 }

func compare(old []stored, want []row) diff {
	var d diff
	place := make(map[string]int, len(want))
	for i, r := range want {
		place[r.turn.ID] = i
	}
	same := make(map[string]bool, len(old))
	for _, o := range old {
		i, stays := place[o.id]
		switch {
		case !stays:
			d.vanished = append(d.vanished, o)
			continue
		case want[i].hash == o.hash:
			same[o.id] = true
		default:
			d.changed = append(d.changed, o.id)
		}
		if o.seq != i {
			d.moved = append(d.moved, o)
		}
	}
	for i, r := range want {
		if !same[r.turn.ID] {
			d.written = append(d.written, i)
		}
	}
	return d
}

func (c *Chats) save(ctx context.Context, tx *sql.Tx, s Session, want []row) (dropped []blob.Hash, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT id, COALESCE(content_hash, ''), seq FROM turns WHERE session_id = ?", s.ID)
	if err != nil {
		return nil, err
	}
	var old []stored
	if err := each(rows, func() error {
		var o stored
		err := rows.Scan(&o.id, &o.hash, &o.seq)
		old = append(old, o)
		return err
	}); err != nil {
		return nil, err
	}
	d := compare(old, want)
	s.TurnCount = len(want)
	if err := c.saveSession(ctx, tx, s, !d.empty()); err != nil {
		return nil, err
	}
	for _, o := range d.vanished {
		hashes, err := takeRefs(ctx, tx, ofTurn, o.id)
		if err != nil {
			return nil, err
		}
		dropped = append(dropped, hashes...)
		if _, err := tx.ExecContext(ctx, "DELETE FROM turns WHERE id = ?", o.id); err != nil {
			return nil, err
		}
	}
	if err := place(ctx, tx, old, d, want); err != nil {
		return nil, err
	}
	for _, id := range d.changed {
		hashes, err := takeRefs(ctx, tx, ofTurn, id)
		if err != nil {
			return nil, err
		}
		dropped = append(dropped, hashes...)
	}
	for _, i := range d.written {
		if err := putTurn(ctx, tx, s.ID, i, want[i]); err != nil {
			return nil, err
		}
	}
	return dropped, nil
}

// place moves the turns that stay: first all out of the way below every
// place there is, since two turns never share one, then to where they belong.
func place(ctx context.Context, tx *sql.Tx, old []stored, d diff, want []row) error {
	if len(d.moved) == 0 {
		return nil
	}
	free := -1
	for _, o := range old {
		free = min(free, o.seq-1)
	}
	const move = "UPDATE turns SET seq = ? WHERE id = ?"
	for i, o := range d.moved {
		if _, err := tx.ExecContext(ctx, move, free-i, o.id); err != nil {
			return err
		}
	}
	for i, r := range want {
		if !slices.ContainsFunc(d.moved, func(o stored) bool { return o.id == r.turn.ID }) {
			continue
		}
		if _, err := tx.ExecContext(ctx, move, i, r.turn.ID); err != nil {
			return err
		}
	}
	return nil
}

// saveSession inserts the row of a session, or updates it if it differs or its
// turns do.
func (c *Chats) saveSession(ctx context.Context, tx *sql.Tx, s Session, touched bool) error {
	now := c.now()
	if s.Source == "" {
		s.Source = SourceChat
	}
	old, err := scanSession(tx.QueryRowContext(ctx, "SELECT "+sessionColumns+" FROM sessions WHERE id = ?", s.ID))
	if errors.Is(err, sql.ErrNoRows) {
		if s.CreatedAt.IsZero() {
			s.CreatedAt = now
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO sessions(title, created_at, updated_at, selected_model, agent_id, source, source_plugin_id, external_session_key,
 dispatch_task_id, archived, capabilities, turn_count, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, s.values(now)...)
		return err
	}
	if err != nil {
		return err
	}
	if s.CreatedAt.IsZero() {
		s.CreatedAt = old.CreatedAt
	}
	if !touched && slices.Equal(s.values(old.UpdatedAt), old.values(old.UpdatedAt)) {
		return nil
	}
	_, err = tx.ExecContext(ctx, `UPDATE sessions SET title = ?, created_at = ?, updated_at = ?, selected_model = ?, agent_id = ?, source = ?, source_plugin_id = ?,
 external_session_key = ?, dispatch_task_id = ?, archived = ?, capabilities = ?, turn_count = ? WHERE id = ?`, s.values(now)...)
	return err
}
