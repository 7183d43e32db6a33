package chats

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"

	"osaurus/engine/storage/blob"
)

// PluginHTTP is the PluginID of conversations that callers over HTTP name
// (storage.md section 2).
const PluginHTTP = "__http__"

// DefaultLimit is how many sessions List returns unless asked otherwise.
const DefaultLimit = 100

// Filter narrows List; empty fields match everything.
type Filter struct {
	AgentID  string
	Source   string
	Archived bool   // archived ones too
	Text     string // in the title or a turn; ASCII letters in any case
	Limit    int    // 0 is DefaultLimit
}

// List returns sessions without their turns, last changed first.
func (c *Chats) List(ctx context.Context, f Filter) (list []Session, err error) {
	query, args := "SELECT "+sessionColumns+" FROM sessions WHERE 1", []any{}
	where := func(clause string, values ...any) {
		query += " AND " + clause
		args = append(args, values...)
	}
	if f.AgentID != "" {
		where("agent_id = ?", f.AgentID)
	}
	if f.Source != "" {
		where("source = ?", f.Source)
	}
	if !f.Archived {
		where("COALESCE(archived, 0) = 0")
	}
	if f.Text != "" {
		pattern := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(f.Text) + "%"
		where(`(title LIKE ? ESCAPE '\' OR id IN (SELECT session_id FROM turns WHERE content LIKE ? ESCAPE '\'))`, pattern, pattern)
	}
	if f.Limit <= 0 {
		f.Limit = DefaultLimit
	}
	err = c.snapshot(ctx, func(conn *sql.Conn) error {
		rows, err := conn.QueryContext(ctx, query+" ORDER BY updated_at DESC, id LIMIT ?", append(args, f.Limit)...)
		if err != nil {
			return err
		}
		return each(rows, func() error {
			s, err := scanSession(rows)
			list = append(list, s)
			return err
		})
	})
	return list, err
}

const ofCaller = " FROM sessions WHERE source_plugin_id = ? AND external_session_key = ? AND agent_id = ? ORDER BY created_at, id LIMIT 1"

// Last returns the last n turns, oldest first, of the conversation that
// PluginID, ExternalKey and AgentID name; none when there is no such.
func (c *Chats) Last(ctx context.Context, of Session, n int) (turns []Turn, err error) {
	err = c.snapshot(ctx, func(conn *sql.Conn) error {
		var id string
		err := conn.QueryRowContext(ctx, "SELECT id"+ofCaller, of.PluginID, of.ExternalKey, of.AgentID).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		turns, err = queryTurns(ctx, conn, "SELECT "+turnColumns+" FROM turns WHERE session_id = ? ORDER BY seq DESC LIMIT ?", id, n)
		slices.Reverse(turns)
		return err
	})
	return turns, err
}

// Append adds turns to the conversation that PluginID, ExternalKey and AgentID
// name, creating it from of when there is none. Turns without an id get one.
// System turns are left out.
func (c *Chats) Append(ctx context.Context, of Session, turns ...Turn) error {
	turns = slices.Clone(turns)
	for i := range turns {
		if turns[i].ID == "" {
			turns[i].ID = newID()
		}
		if turns[i].CreatedAt.IsZero() {
			turns[i].CreatedAt = c.now()
		}
	}
	return c.change(ctx, turns, func(tx *sql.Tx, rows []row) ([]blob.Hash, error) {
		s, err := scanSession(tx.QueryRowContext(ctx, "SELECT "+sessionColumns+ofCaller, of.PluginID, of.ExternalKey, of.AgentID))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			s = of
			s.ID, s.TurnCount = newID(), 0
		case err != nil:
			return nil, err
		}
		var next int
		if err := tx.QueryRowContext(ctx, "SELECT COALESCE(MAX(seq) + 1, 0) FROM turns WHERE session_id = ?", s.ID).Scan(&next); err != nil {
			return nil, err
		}
		s.TurnCount += len(rows)
		if err := c.saveSession(ctx, tx, s, true); err != nil {
			return nil, err
		}
		for i, r := range rows {
			if err := putTurn(ctx, tx, s.ID, next+i, r); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
}

func newID() string { return strings.ToUpper(uuid.NewString()) }
