// Package memory is what agents remember: facts their owner pinned, episodes,
// and what was said, in one encrypted database with full-text search. The
// tables are those of other hosts (storage.md section 2).
package memory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"osaurus/engine/fault"
	"osaurus/engine/storage"
	"osaurus/engine/storage/migrate"
	"osaurus/engine/storage/migrations"
	"osaurus/engine/storage/sqlcipher"
)

// Limits of one ingested conversation and of one fact, in turns and bytes.
const (
	MaxTurns = 10_000
	MaxFact  = 16 << 10
)

// Turn is one exchange of a conversation.
type Turn struct {
	User, Assistant string
	At              time.Time // zero is when it is stored
}

// Fact is something an agent was told to remember.
type Fact struct {
	ID      string    `json:"id"`
	AgentID string    `json:"agent_id"`
	Content string    `json:"content"`
	Created time.Time `json:"created"`
}

// Found is what a query found: a pinned fact, an episode or something said.
type Found struct {
	Kind    string    `json:"kind"` // fact, episode, user or assistant
	ID      string    `json:"id"`
	Content string    `json:"content"`
	Created time.Time `json:"created"`
}

// Memory is safe for concurrent use.
type Memory struct {
	store *storage.Store
	now   func() time.Time
}

// New uses the memory of s; nothing is opened before it is needed.
func New(s *storage.Storage, now func() time.Time) (*Memory, error) {
	store, err := s.Store(storage.Memory, storage.Options{Readers: 2, Setup: setup})
	if now == nil {
		now = time.Now
	}
	return &Memory{store, now}, err
}

// setup makes the tables of an empty database and brings those of older hosts
// up to date.
func setup(ctx context.Context, db *sqlcipher.DB) error {
	version, err := migrate.Version(ctx, db)
	switch {
	case err != nil:
		return err
	case version == migrations.MemoryVersion:
		return migrations.Memory.Complete(ctx, db)
	case version > migrations.MemoryVersion:
		return fault.New(fault.StoreForwardVersion, fmt.Errorf("memory: version %d", version))
	}
	err = db.Tx(ctx, func(tx *sql.Tx) error { return upgrade(ctx, tx) })
	if err != nil {
		return fmt.Errorf("memory: from version %d: %w", version, sqlcipher.Classify(err))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func parseStamp(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{} // another host's; nothing depends on it
	}
	return t
}

// Ingest makes turns all that is remembered of a conversation, and returns how
// many there are.
func (m *Memory) Ingest(ctx context.Context, agentID, conversation string, turns []Turn) (int, error) {
	if len(turns) > MaxTurns {
		return 0, fault.WithText(fault.InvalidRequest, fmt.Sprintf("A conversation has at most %d turns.", MaxTurns))
	}
	err := m.store.Use(ctx, func(db *sqlcipher.DB) error {
		return db.Tx(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "DELETE FROM transcript WHERE agent_id = ? AND conversation_id = ?", agentID, conversation); err != nil {
				return err
			}
			n := 0
			for _, t := range turns {
				at := t.At
				if at.IsZero() {
					at = m.now()
				}
				for _, said := range []struct{ role, text string }{{"user", t.User}, {"assistant", t.Assistant}} {
					if said.text == "" {
						continue
					}
					if _, err := tx.ExecContext(ctx, "INSERT INTO transcript(agent_id, conversation_id, chunk_index, role, content, created_at) VALUES (?,?,?,?,?,?)", agentID, conversation, n, said.role, said.text, stamp(at)); err != nil {
						return err
					}
					n++
				}
			}
			return nil
		})
	})
	return len(turns), sqlcipher.Classify(err)
}

// Count returns how many entries an agent has.
func (m *Memory) Count(ctx context.Context, agentID string) (n int, err error) {
	err = m.store.Use(ctx, func(db *sqlcipher.DB) error {
		return db.Read.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM pinned_facts WHERE agent_id = ?1 AND status = 'active') + (SELECT count(*) FROM episodes WHERE agent_id = ?1 AND status = 'active')
 + (SELECT count(*) FROM transcript WHERE agent_id = ?1 AND role = 'user')`, agentID).Scan(&n)
	})
	return n, sqlcipher.Classify(err)
}

// Add pins a fact for an agent.
func (m *Memory) Add(ctx context.Context, agentID, content string) (Fact, error) {
	if strings.TrimSpace(content) == "" || len(content) > MaxFact {
		return Fact{}, fault.WithText(fault.Usage, fmt.Sprintf("a fact has between 1 and %d bytes", MaxFact))
	}
	f := Fact{ID: strings.ToUpper(uuid.NewString()), AgentID: agentID, Content: content, Created: m.now().UTC()}
	err := m.store.Use(ctx, func(db *sqlcipher.DB) error {
		_, err := db.Write.ExecContext(ctx, "INSERT INTO pinned_facts(id, agent_id, content, created_at) VALUES (?,?,?,?)", f.ID, agentID, content, stamp(f.Created))
		return err
	})
	return f, sqlcipher.Classify(err)
}

// Facts lists the pinned facts of an agent, "" of all, newest first.
func (m *Memory) Facts(ctx context.Context, agentID string) (list []Fact, err error) {
	err = m.store.Use(ctx, func(db *sqlcipher.DB) error {
		rows, err := db.Read.QueryContext(ctx, "SELECT id, agent_id, content, created_at FROM pinned_facts WHERE status = 'active' AND (?1 = '' OR agent_id = ?1) ORDER BY created_at DESC, id", agentID)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err is looked at
		for rows.Next() {
			var f Fact
			var created string
			if err := rows.Scan(&f.ID, &f.AgentID, &f.Content, &created); err != nil {
				return err
			}
			f.Created = parseStamp(created)
			list = append(list, f)
		}
		return rows.Err()
	})
	return list, sqlcipher.Classify(err)
}

// Forget deletes a pinned fact.
func (m *Memory) Forget(ctx context.Context, id string) error {
	err := m.store.Use(ctx, func(db *sqlcipher.DB) error {
		done, err := db.Write.ExecContext(ctx, "DELETE FROM pinned_facts WHERE id = ?", id)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fault.WithText(fault.Usage, "no fact has this id"))
		}
		return nil
	})
	return sqlcipher.Classify(err)
}

// DefaultLimit is how much Query returns unless asked otherwise.
const DefaultLimit = 20

// Query finds what an agent remembers that has every word of text, best first:
// facts, then episodes, then what was said.
func (m *Memory) Query(ctx context.Context, agentID, text string, limit int) (list []Found, err error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	words := match(text)
	if words == "" {
		return m.contains(ctx, agentID, strings.TrimSpace(text), limit)
	}
	err = m.store.Use(ctx, func(db *sqlcipher.DB) error {
		for _, query := range []string{
			"SELECT 'fact', p.id, p.content, p.created_at FROM fts_pinned f JOIN pinned_facts p ON p.rowid = f.rowid WHERE fts_pinned MATCH ? AND p.agent_id = ? AND p.status = 'active' ORDER BY bm25(fts_pinned) LIMIT ?",
			"SELECT 'episode', e.id, e.summary, e.created_at FROM fts_episodes f JOIN episodes e ON e.id = f.rowid WHERE fts_episodes MATCH ? AND e.agent_id = ? AND e.status = 'active' ORDER BY bm25(fts_episodes) LIMIT ?",
			"SELECT t.role, t.id, t.content, t.created_at FROM fts_transcript f JOIN transcript t ON t.id = f.rowid WHERE fts_transcript MATCH ? AND t.agent_id = ? ORDER BY bm25(fts_transcript) LIMIT ?",
		} {
			if limit == len(list) {
				return nil
			}
			rows, err := db.Read.QueryContext(ctx, query, words, agentID, limit-len(list))
			if err != nil {
				return err
			}
			if list, err = collect(rows, list); err != nil {
				return err
			}
		}
		return nil
	})
	return list, sqlcipher.Classify(err)
}

// contains finds what holds a text that has no word to look for.
func (m *Memory) contains(ctx context.Context, agentID, text string, limit int) (list []Found, err error) {
	if text == "" {
		return nil, nil
	}
	like := "%" + strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(text) + "%"
	err = m.store.Use(ctx, func(db *sqlcipher.DB) error {
		rows, err := db.Read.QueryContext(ctx, `SELECT 'fact', id, content, created_at FROM pinned_facts WHERE agent_id = ?1 AND status = 'active' AND content LIKE ?2 ESCAPE '\'
 UNION ALL SELECT role, id, content, created_at FROM transcript WHERE agent_id = ?1 AND content LIKE ?2 ESCAPE '\' LIMIT ?3`, agentID, like, limit)
		if err != nil {
			return err
		}
		list, err = collect(rows, nil)
		return err
	})
	return list, sqlcipher.Classify(err)
}

func collect(rows *sql.Rows, list []Found) ([]Found, error) {
	defer func() { _ = rows.Close() }() // Err is looked at
	for rows.Next() {
		var f Found
		var created string
		if err := rows.Scan(&f.Kind, &f.ID, &f.Content, &created); err != nil {
			return nil, err
		}
		f.Created = parseStamp(created)
		list = append(list, f)
	}
	return list, rows.Err()
}

// match turns what a person typed into words to look for. Everything but
// letters, digits, '-' and '_' parts words, so no operator of the query
// language is left.
func match(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '_'
	})
	for i, w := range words {
		words[i] = `"` + w + `"`
	}
	return strings.Join(words, " ")
}
