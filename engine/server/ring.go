package server

import (
	"sync"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/channel"
	"osaurus/engine/eventlog"
)

// Entry is one request in the in-memory log.
type Entry struct {
	Time      time.Time       `json:"time"`
	Method    string          `json:"method"`
	Path      string          `json:"path"`
	Status    int             `json:"status"`
	Duration  time.Duration   `json:"duration_ns"`
	Transport string          `json:"transport"` // loopback, lan, relay; "+channel" inside it
	KeyNonce  string          `json:"key_nonce,omitempty"`
	Audience  address.Address `json:"audience,omitzero"`
	Body      string          `json:"body,omitempty"` // redacted and clipped
}

// ring holds the last requests: at most ringEntries, and ringBytes of bodies.
type ring struct {
	mu       sync.Mutex
	entries  [ringEntries]Entry
	first, n int
	bytes    int
}

func begin(x *exchange) Entry {
	transport := "lan"
	switch {
	case originOf(x.r) == Relay:
		transport = "relay"
	case physicalLoopback(x.r):
		transport = "loopback"
	}
	if channel.Inside(x.r.Context()) {
		transport += "+channel"
	}
	return Entry{Time: x.start, Method: x.r.Method, Path: eventlog.Redact(x.path[:min(len(x.path), 1024)]), Transport: transport}
}

// keep stores a redacted, clipped copy of a body in its entry.
func (e *Entry) keep(raw []byte) {
	e.Body = eventlog.Redact(string(raw[:min(len(raw), ringBody)]))
}

func (g *ring) end(e *Entry, now time.Time) {
	e.Duration = now.Sub(e.Time)
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.n > 0 && (g.n == ringEntries || g.bytes+len(e.Body) > ringBytes) {
		g.bytes -= len(g.entries[g.first].Body)
		g.entries[g.first] = Entry{}
		g.first, g.n = (g.first+1)%ringEntries, g.n-1
	}
	g.entries[(g.first+g.n)%ringEntries] = *e
	g.n++
	g.bytes += len(e.Body)
}

// Requests returns the last requests, oldest first.
func (s *Server) Requests() []Entry {
	s.ring.mu.Lock()
	defer s.ring.mu.Unlock()
	all := make([]Entry, s.ring.n)
	for i := range all {
		all[i] = s.ring.entries[(s.ring.first+i)%ringEntries]
	}
	return all
}
