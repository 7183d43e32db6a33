package storage

import (
	"context"
	"sync"

	"osaurus/engine/fault"
)

// gate lets many users in, or one operation over all stores (storage.md
// section 9). It is safe for concurrent use.
type gate struct {
	mu      sync.Mutex
	users   int
	closed  bool          // an operation is in, or waits for the users to leave
	changed chan struct{} // closed and replaced when users or closed changes
}

func newGate() *gate { return &gate{changed: make(chan struct{})} }

// signal wakes all who wait. The caller holds g.mu.
func (g *gate) signal() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// enter waits while an operation runs. A context that ends meanwhile is
// fault.StorageBusy.
func (g *gate) enter(ctx context.Context) error {
	for {
		g.mu.Lock()
		if !g.closed {
			g.users++
			g.mu.Unlock()
			return nil
		}
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fault.New(fault.StorageBusy, ctx.Err())
		}
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.users--
	g.signal()
}

// shut keeps new users out and waits for those inside. Only one operation
// runs: a second is refused at once with fault.StorageBusy.
func (g *gate) shut(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return fault.StorageBusy
	}
	g.closed = true
	for g.users > 0 {
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
			g.mu.Lock()
		case <-ctx.Done():
			g.mu.Lock()
			g.closed = false
			g.signal()
			return fault.New(fault.StorageBusy, ctx.Err())
		}
	}
	return nil
}

// shutOrShutting reports whether entering would wait.
func (g *gate) shutOrShutting() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
	g.signal()
}
