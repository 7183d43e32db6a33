package process

import (
	"context"
	"fmt"
	"sync/atomic"
)

// Life is how a sandbox ends: stopped, or by itself. It is safe for
// concurrent use.
type Life struct {
	name     string
	gone     error
	done     chan struct{}
	stopping atomic.Bool
}

// NewLife begins one. gone is what Err says of a sandbox that ended by itself.
func NewLife(name string, gone error) *Life {
	return &Life{name: name, gone: gone, done: make(chan struct{})}
}

// Over says that it has ended. It is called once.
func (l *Life) Over() { close(l.done) }

// Done closes when it has ended.
func (l *Life) Done() <-chan struct{} { return l.done }

// Err is nil while it lives, and when it was stopped.
func (l *Life) Err() error {
	select {
	case <-l.done:
	default:
		return nil
	}
	if l.stopping.Load() {
		return nil
	}
	return l.gone
}

// End kills what is alive and waits until it is over. What ended by itself is
// left alone: Err goes on saying so.
func (l *Life) End(ctx context.Context, kill func()) error {
	select {
	case <-l.done:
		return nil
	default:
	}
	l.stopping.Store(true)
	kill()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not end: %w", l.name, ctx.Err())
	}
}
