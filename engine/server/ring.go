package server

import (
	"slices"
	"sync"
	"time"

	"osaurus/engine/channel"
	"osaurus/engine/eventlog"
)

// Entry is one request in the in-memory log.
type Entry struct {
	Time      time.Time     `json:"time"`
	Method    string        `json:"method"`
	Path      string        `json:"path"`
	Status    int           `json:"status"`
	Duration  time.Duration `json:"duration_ns"`
	Transport string        `json:"transport"` // loopback, lan, relay; "+channel" inside it
	KeyNonce  string        `json:"key_nonce,omitempty"`
	Audience  string        `json:"audience,omitempty"`
	Body      string        `json:"body,omitempty"` // redacted and clipped
}

// ring holds the last requests: at most ringEntries and ringBytes of bodies.
type ring struct {
	mu      sync.Mutex
	entries []Entry // oldest first
	bytes   int
}

func (g *ring) begin(x *exchange, now time.Time) *Entry {
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
	return &Entry{Time: now, Method: x.r.Method, Path: eventlog.Redact(x.path[:min(len(x.path), 1024)]), Transport: transport}
}

// keep stores a redacted, clipped copy of a body in its entry.
func (e *Entry) keep(raw []byte) {
	e.Body = eventlog.Redact(string(raw[:min(len(raw), ringBody)]))
}

func (g *ring) end(e *Entry, now time.Time) {
	e.Duration = now.Sub(e.Time)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entries = append(g.entries, *e)
	g.bytes += len(e.Body)
	for len(g.entries) > ringEntries || g.bytes > ringBytes {
		g.bytes -= len(g.entries[0].Body)
		g.entries = slices.Delete(g.entries, 0, 1)
	}
}

// Requests returns the last requests, oldest first.
func (s *Server) Requests() []Entry {
	s.ring.mu.Lock()
	defer s.ring.mu.Unlock()
	return slices.Clone(s.ring.entries)
}
