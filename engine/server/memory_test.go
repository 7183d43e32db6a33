package server

import (
	"context"
	"fmt"
	"sync"

	"osaurus/engine/fault"
)

// Limits of MemoryIngest.
const (
	MaxIngestTurns         = 10_000
	MaxIngestConversations = 1000
)

// MemoryIngest is a Memory that ends with the process.
type MemoryIngest struct {
	mu     sync.Mutex
	agents map[string]map[string][]Turn
}

// NewMemoryIngest returns an empty store.
func NewMemoryIngest() *MemoryIngest {
	return &MemoryIngest{agents: map[string]map[string][]Turn{}}
}

// Ingest implements Memory.
func (m *MemoryIngest) Ingest(_ context.Context, agentID, conversation string, turns []Turn) (int, error) {
	if len(turns) > MaxIngestTurns {
		return 0, fault.WithText(fault.InvalidRequest, fmt.Sprintf("A conversation has at most %d turns.", MaxIngestTurns))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.agents[agentID]
	if all == nil {
		all = map[string][]Turn{}
		m.agents[agentID] = all
	}
	if _, ok := all[conversation]; !ok && len(all) >= MaxIngestConversations {
		return 0, &fault.Error{Code: fault.ServerOverloaded}
	}
	all[conversation] = turns
	return len(turns), nil
}

// Count implements Memory.
func (m *MemoryIngest) Count(_ context.Context, agentID string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, turns := range m.agents[agentID] {
		n += len(turns)
	}
	return n
}
