package runner

import (
	"context"
	"sync"

	"osaurus/engine/accesskey"
)

// Scope is whose conversation it is: the access key that spoke, or the owner
// (decisions C5). Agent and session complete it.
type Scope struct {
	Audience string // "" is the owner: master keys and trusted loopback
	Nonce    string
	AgentID  string
	Session  string
}

// ScopeOf returns the scope of a caller; nil is the owner.
func ScopeOf(a *accesskey.Access, agentID, session string) Scope {
	if a == nil || a.MasterScoped {
		return Scope{AgentID: agentID, Session: session}
	}
	return Scope{a.Audience.Lower(), a.Nonce, agentID, session}
}

// Chats keeps the turns of conversations.
type Chats interface {
	Turns(ctx context.Context, s Scope) ([]Message, error)
	Append(ctx context.Context, s Scope, turns ...Message) error
}

// Limits of MemoryChats.
const (
	MaxConversations = 1000
	MaxTurns         = 200
)

// MemoryChats is a Chats that ends with the process and writes nothing
// anywhere. Hosts keep chats in engine/storage/chats.
type MemoryChats struct {
	mu    sync.Mutex
	turns map[Scope][]Message
	order []Scope // oldest first
}

// NewMemoryChats returns an empty store.
func NewMemoryChats() *MemoryChats { return &MemoryChats{turns: map[Scope][]Message{}} }

// Turns implements Chats.
func (m *MemoryChats) Turns(_ context.Context, s Scope) ([]Message, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Message(nil), m.turns[s]...), nil
}

// Append implements Chats. The oldest conversation gives way beyond
// MaxConversations, the oldest turns beyond MaxTurns.
func (m *MemoryChats) Append(_ context.Context, s Scope, turns ...Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.turns[s]; !ok {
		if len(m.order) >= MaxConversations {
			delete(m.turns, m.order[0])
			m.order = m.order[1:]
		}
		m.order = append(m.order, s)
	}
	all := append(m.turns[s], turns...)
	m.turns[s] = all[max(0, len(all)-MaxTurns):]
	return nil
}
