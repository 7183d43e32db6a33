package engine

import (
	"context"
	"log/slog"
	"time"

	"osaurus/engine/server"
	"osaurus/engine/storage/memory"
)

// memories is the memory store as the HTTP surface uses it.
type memories struct{ e *Engine }

var _ server.Memory = memories{}

// Ingest implements server.Memory.
func (m memories) Ingest(ctx context.Context, agentID, conversation string, turns []server.Turn) (int, error) {
	kept := make([]memory.Turn, len(turns))
	for i, t := range turns {
		kept[i] = memory.Turn{User: t.User, Assistant: t.Assistant, At: date(t.Date)}
	}
	return m.e.Memory.Ingest(ctx, agentID, conversation, kept)
}

// date reads what callers send for a moment or a day; zero for anything else.
func date(s string) time.Time {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}

// Count implements server.Memory. A store that does not open counts as empty:
// doctor tells why.
func (m memories) Count(ctx context.Context, agentID string) int {
	n, err := m.e.Memory.Count(ctx, agentID)
	if err != nil {
		m.e.ports.Logger.Warn("memory is not available", slog.String("error", err.Error()))
	}
	return n
}
