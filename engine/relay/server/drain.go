package server

import (
	"context"
	"sync"
	"time"

	"osaurus/engine/relay/wire"
)

// busy counts requests that are being served.
type busy struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n is zero, once somebody waits
}

func (b *busy) enter() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
}

func (b *busy) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n--; b.n == 0 && b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
}

// wait returns a channel that is closed when nothing is served.
func (b *busy) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.idle == nil {
		b.idle = make(chan struct{})
	}
	idle := b.idle
	if b.n == 0 {
		close(idle)
		b.idle = nil
	}
	return idle
}

// partingTime is what hosts have to take leave after the drain.
const partingTime = 8 * time.Second

// Drain stops the relay gently (section 8): no new tunnel is taken, requests
// under way have 20 seconds, then hosts are told and their sockets closed. It
// returns when all of that is done; ctx cuts it short.
func (s *Server) Drain(ctx context.Context) {
	s.draining.Store(true)
	s.c.Log.Info("draining")
	patience, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	select {
	case <-s.busy.wait():
	case <-patience.Done():
	}
	s.mu.Lock()
	s.closed = true
	all := make([]*tunnel, 0, len(s.tunnels))
	for t := range s.tunnels {
		all = append(all, t)
	}
	s.mu.Unlock()
	for _, t := range all {
		t.shut(closeRestart, "relay restarting", &wire.Frame{Type: wire.Error, Error: wire.Restarting})
	}
	gone := make(chan struct{})
	go func() { s.work.Wait(); close(gone) }()
	parting := time.NewTimer(partingTime)
	defer parting.Stop()
	select {
	case <-gone:
	case <-parting.C:
	case <-ctx.Done():
	}
	for _, t := range all {
		t.out.abort()
	}
	<-gone
	s.cluster.close()
	s.c.Log.Info("drained")
}
