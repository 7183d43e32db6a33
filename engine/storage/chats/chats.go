// Package chats keeps conversations: sessions and their turns in the chat
// history store, large attachments as blobs beside it. The tables are those
// of other hosts, so that a history moves between them (storage.md section 2);
// columns of theirs that this package does not know are left as they are.
package chats

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/storage"
	"osaurus/engine/storage/blob"
	"osaurus/engine/storage/sqlcipher"
)

// readers is how many may look something up while a turn is written.
const readers = 2

// Session is one conversation. Times have microseconds.
type Session struct {
	ID             string
	Title          string
	CreatedAt      time.Time // the time of the first save when zero
	UpdatedAt      time.Time // set by the store when something changed
	Model          string
	AgentID        string
	Source         string // SourceChat when empty
	PluginID       string
	ExternalKey    string
	DispatchTaskID string
	Archived       bool
	Capabilities   []string // without commas
	TurnCount      int      // set by the store
	Turns          []Turn   // in order
}

// Sources of sessions.
const (
	SourceChat = "chat"
	SourceHTTP = "http"
)

// Turn is one message of a session. JSON fields keep their meaning, not their
// spelling. A zero number, duration or time is one that is not known.
type Turn struct {
	ID               string
	Role             string
	Content          string
	Thinking         string
	Attachments      []blob.Attachment // loaded without the content that lies in a blob
	ToolCalls        json.RawMessage
	ToolCallID       string
	ToolResults      json.RawMessage
	CallDurations    json.RawMessage
	CreatedAt        time.Time
	CompletedAt      time.Time
	GeneratedTokens  int
	TimeToFirstToken time.Duration
	ThinkingDuration time.Duration

	// foreign is attachments JSON of another host that does not parse here.
	// It is saved again as it was, unless Attachments are set.
	foreign string
}

// RoleSystem is the role of turns that are never stored.
const RoleSystem = "system"

// Chats is the chat history. It is safe for concurrent use.
type Chats struct {
	store *storage.Store
	blobs *blob.Store
	now   func() time.Time

	// spilling is held for reading from before an attachment becomes a blob
	// until its turn is committed, and for writing while blobs nobody mentions
	// are deleted: one that is about to be mentioned must stay.
	spilling sync.RWMutex
}

// New returns the chat history of s, which opens at its first use. A nil now
// is time.Now.
func New(s *storage.Storage, now func() time.Time) (*Chats, error) {
	store, err := s.Store(storage.ChatHistory, storage.Options{Readers: readers, Setup: setup})
	if err != nil {
		return nil, err
	}
	if now == nil {
		now = time.Now
	}
	return &Chats{store: store, blobs: s.Blobs(), now: now}, nil
}

// use runs do with the database; no operation over all stores runs meanwhile,
// so do may use the blobs too.
func (c *Chats) use(ctx context.Context, do func(*sqlcipher.DB) error) error {
	return sqlcipher.Classify(c.store.Use(ctx, do))
}

// Content returns an attachment with its content, from its blob if it lies in
// one.
func (c *Chats) Content(ctx context.Context, a blob.Attachment) (whole blob.Attachment, err error) {
	err = c.use(ctx, func(*sqlcipher.DB) error {
		whole, err = c.blobs.Load(a)
		return err
	})
	return whole, err
}

// Delete removes a session, its turns and the blobs that only they mention. A
// missing session is no error. After an error about the blobs the session is
// gone, and Sweep deletes what is left.
func (c *Chats) Delete(ctx context.Context, id string) error {
	return c.use(ctx, func(db *sqlcipher.DB) error {
		var hashes []blob.Hash
		if err := db.Tx(ctx, func(tx *sql.Tx) (err error) {
			if hashes, err = takeRefs(ctx, tx, ofSession, id); err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, "DELETE FROM sessions WHERE id = ?", id)
			return err
		}); err != nil {
			return err
		}
		return c.collect(ctx, db, hashes)
	})
}

// Load returns a session with its turns, fault.NotFound for one that does not
// exist.
func (c *Chats) Load(ctx context.Context, id string) (s Session, err error) {
	err = c.snapshot(ctx, func(conn *sql.Conn) error {
		s, err = scanSession(conn.QueryRowContext(ctx, "SELECT "+sessionColumns+" FROM sessions WHERE id = ?", id))
		if errors.Is(err, sql.ErrNoRows) {
			return fault.NotFound
		}
		if err != nil {
			return err
		}
		s.Turns, err = queryTurns(ctx, conn, "SELECT "+turnColumns+" FROM turns WHERE session_id = ? ORDER BY seq", id)
		return err
	})
	if err != nil {
		return Session{}, err
	}
	return s, nil
}

// snapshot runs do with a connection that sees one state of the database
// however many queries it makes.
func (c *Chats) snapshot(ctx context.Context, do func(*sql.Conn) error) error {
	return c.use(ctx, func(db *sqlcipher.DB) (err error) {
		conn, err := db.Read.Conn(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		// Not BeginTx: that would take the lock of the writer.
		if _, err := conn.ExecContext(ctx, "BEGIN DEFERRED"); err != nil {
			return err
		}
		err = do(conn)
		_, endErr := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return errors.Join(err, endErr)
	})
}
