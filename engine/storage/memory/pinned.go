package memory

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"osaurus/engine/fault"
	"osaurus/engine/storage/sqlcipher"
)

// Pinned is a pinned fact with its weight.
type Pinned struct {
	Content  string
	Salience float64
	Created  time.Time
}

// Pin stores a fact with a salience between 0 and 1 and a tag.
func (m *Memory) Pin(ctx context.Context, agentID, content string, salience float64, tag string) error {
	if strings.TrimSpace(content) == "" || len(content) > MaxFact {
		return fault.WithText(fault.Usage, fmt.Sprintf("a fact has between 1 and %d bytes", MaxFact))
	}
	err := m.store.Use(ctx, func(db *sqlcipher.DB) error {
		_, err := db.Write.ExecContext(ctx, "INSERT INTO pinned_facts(id, agent_id, content, salience, tags_csv, created_at) VALUES (?,?,?,?,?,?)", strings.ToUpper(uuid.NewString()), agentID, content, salience, tag, stamp(m.now()))
		return err
	})
	return sqlcipher.Classify(err)
}

// FindPinned finds pinned facts of an agent that have every word of text,
// best first. A text without words finds the weightiest.
func (m *Memory) FindPinned(ctx context.Context, agentID, text string, limit int) (list []Pinned, err error) {
	words := match(text)
	err = m.store.Use(ctx, func(db *sqlcipher.DB) error {
		query, args := "SELECT content, salience, created_at FROM pinned_facts WHERE agent_id = ? AND status = 'active' ORDER BY salience DESC, created_at DESC LIMIT ?", []any{agentID, limit}
		if words != "" {
			query = "SELECT p.content, p.salience, p.created_at FROM fts_pinned f JOIN pinned_facts p ON p.rowid = f.rowid WHERE fts_pinned MATCH ? AND p.agent_id = ? AND p.status = 'active' ORDER BY bm25(fts_pinned) LIMIT ?"
			args = append([]any{words}, args...)
		}
		rows, err := db.Read.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		list, err = collectPinned(rows)
		return err
	})
	return list, sqlcipher.Classify(err)
}

func collectPinned(rows *sql.Rows) (list []Pinned, err error) {
	defer func() { _ = rows.Close() }() // Err is looked at
	for rows.Next() {
		var p Pinned
		var created string
		if err := rows.Scan(&p.Content, &p.Salience, &created); err != nil {
			return nil, err
		}
		p.Created = parseStamp(created)
		list = append(list, p)
	}
	return list, rows.Err()
}
