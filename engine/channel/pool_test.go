package channel

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// newTestPool counts handshakes; each takes a second and gives an hour.
func newTestPool(t testing.TB, shakes *atomic.Int32) *pool {
	return newPool(time.Now, func(ctx context.Context) (*line, error) {
		shakes.Add(1)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		k, _ := newSessionPair(t)
		return &line{keys: k, expires: time.Now().Add(time.Hour).Unix()}, nil
	})
}

// advance lets d pass on a synctest bubble's clock, which takes no time.
func advance(d time.Duration) { <-time.After(d) }

func mustAcquire(t testing.TB, p *pool) *line {
	t.Helper()
	l, err := p.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestSingleFlight: callers that come together share one handshake, up to the
// number of calls one session carries.
func TestSingleFlight(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		calls  int
		shakes int32
	}{{1, 1}, {maxOutstanding, 1}, {maxOutstanding + 1, 2}, {3*maxOutstanding + 1, 4}} {
		synctest.Test(t, func(t *testing.T) {
			var shakes atomic.Int32
			p := newTestPool(t, &shakes)
			var mu sync.Mutex
			load := map[*line]int{}
			for range x.calls {
				go func() {
					l := mustAcquire(t, p)
					mu.Lock()
					defer mu.Unlock()
					load[l]++
				}()
			}
			advance(time.Minute) // of the bubble's clock
			synctest.Wait()
			if shakes.Load() != x.shakes || len(load) != int(x.shakes) {
				t.Errorf("%d calls took %d handshakes and %d sessions, want %d", x.calls, shakes.Load(), len(load), x.shakes)
			}
			for _, n := range load {
				if n > maxOutstanding {
					t.Errorf("%d calls on one session", n)
				}
			}
		})
	}
}

func TestSessionsAreReused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var shakes atomic.Int32
		p := newTestPool(t, &shakes)
		for range 100 {
			p.done(mustAcquire(t, p))
		}
		if shakes.Load() != 1 {
			t.Errorf("%d handshakes", shakes.Load())
		}
	})
}

// TestRefresh: a session serves until 60 s before its expiry, and its keys are
// destroyed after its last call.
func TestRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var shakes atomic.Int32
		p := newTestPool(t, &shakes)
		old := mustAcquire(t, p)
		advance(time.Hour - refreshBefore - time.Second)
		if mustAcquire(t, p) != old {
			t.Error("refreshed too early")
		}
		advance(time.Second)
		if fresh := mustAcquire(t, p); fresh == old || shakes.Load() != 2 {
			t.Error("not refreshed")
		}
		p.done(old)
		if old.keys.cipher() == nil {
			t.Error("destroyed under a call")
		}
		p.done(old)
		if old.keys.cipher() != nil {
			t.Error("kept after its last call")
		}
	})
}

// TestShortSessions: one that lives less than a minute serves the call that
// made it, and nothing loops.
func TestShortSessions(t *testing.T) {
	t.Parallel()
	shakes := 0
	p := newPool(time.Now, func(context.Context) (*line, error) {
		shakes++
		k, _ := newSessionPair(t)
		return &line{keys: k, expires: time.Now().Unix()}, nil
	})
	for range 3 {
		p.done(mustAcquire(t, p))
	}
	if shakes != 3 {
		t.Errorf("%d handshakes for 3 calls", shakes)
	}
}

// TestFailureIsShared: who waited for a handshake that failed gets its error;
// the next caller tries again.
func TestFailureIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refused, shakes := errors.New("refused"), atomic.Int32{}
		p := newPool(time.Now, func(context.Context) (*line, error) {
			advance(time.Second)
			shakes.Add(1)
			return nil, refused
		})
		var failed atomic.Int32
		for range 10 {
			go func() {
				if _, err := p.acquire(t.Context()); errors.Is(err, refused) {
					failed.Add(1)
				}
			}()
		}
		advance(time.Minute)
		if failed.Load() != 10 || shakes.Load() != 1 {
			t.Errorf("%d failed by %d handshakes", failed.Load(), shakes.Load())
		}
		if _, err := p.acquire(t.Context()); !errors.Is(err, refused) || shakes.Load() != 2 {
			t.Errorf("the next caller: %v, %d handshakes", err, shakes.Load())
		}
	})
}

// TestGivingUpHandsOver: when the caller who does the handshake gives up,
// another takes it over; when a waiting one does, nothing else happens.
func TestGivingUpHandsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var shakes atomic.Int32
		p := newTestPool(t, &shakes)
		first, cancel := context.WithCancel(t.Context())
		results := make(chan error, 3)
		go func() { _, err := p.acquire(first); results <- err }()
		synctest.Wait()
		go func() { _, err := p.acquire(t.Context()); results <- err }()
		waiting, stop := context.WithCancel(t.Context())
		go func() { _, err := p.acquire(waiting); results <- err }()
		synctest.Wait()
		stop()
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("the one who stopped waiting: %v", err)
		}
		cancel()
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("the one who gave up: %v", err)
		}
		if err := <-results; err != nil || shakes.Load() != 2 {
			t.Errorf("the one who waited: %v, %d handshakes", err, shakes.Load())
		}
	})
}

// TestCallLimit: as many calls as there are places, the next waits.
func TestCallLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(time.Now, nil)
		for range maxPool * maxOutstanding {
			if err := p.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one call too many: %v", err)
		}
		go func() {
			advance(time.Second)
			p.leave()
		}()
		if err := p.enter(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestPoolClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var shakes atomic.Int32
		p := newTestPool(t, &shakes)
		busy, idle := mustAcquire(t, p), (*line)(nil)
		for range maxOutstanding {
			idle = mustAcquire(t, p)
		}
		p.done(idle)
		result := make(chan error)
		for range maxOutstanding { // fills the second session, so that one more shakes hands
			mustAcquire(t, p)
		}
		go func() { _, err := p.acquire(t.Context()); result <- err }()
		synctest.Wait()
		p.close()
		if err := <-result; !errors.Is(err, ErrClosed) {
			t.Errorf("a handshake under way: %v", err)
		}
		if _, err := p.acquire(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("a later call: %v", err)
		}
		if busy.keys.cipher() == nil {
			t.Error("destroyed under a call")
		}
		for range maxOutstanding {
			p.done(busy)
		}
		if busy.keys.cipher() != nil {
			t.Error("kept after its last call")
		}
	})
}
