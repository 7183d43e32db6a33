package ratelimit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newTest(limit, keys int) (*Limiter, *clock) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	return New(Options{Limit: limit, Window: time.Minute, MaxKeys: keys, Now: c.Now}), c
}

func TestSlidingWindow(t *testing.T) {
	t.Parallel()
	l, c := newTest(5, 10)
	for i := range 5 {
		if _, ok := l.Allow("a"); !ok {
			t.Fatalf("attempt %d of 5 was refused", i+1)
		}
		c.now = c.now.Add(time.Second)
	}
	wait, ok := l.Allow("a")
	if ok || wait != 55*time.Second {
		t.Fatalf("sixth attempt: ok %v, wait %v, want refused for 55s", ok, wait)
	}
	c.now = c.now.Add(55*time.Second - 1)
	if _, ok := l.Allow("a"); ok {
		t.Fatal("let through one nanosecond early")
	}
	c.now = c.now.Add(1)
	if _, ok := l.Allow("a"); !ok {
		t.Fatal("still refused when the first attempt left the window: refused attempts must not count")
	}
	if _, ok := l.Allow("b"); !ok {
		t.Fatal("another source was affected")
	}
}

func TestPenalty(t *testing.T) {
	t.Parallel()
	l, c := newTest(5, 10)
	l.Penalize("a", 30*time.Second)
	l.Penalize("a", 10*time.Second)
	if wait, blocked := l.Blocked("a"); !blocked || wait != 30*time.Second {
		t.Fatalf("blocked %v for %v, want 30s: a shorter penalty must not shorten it", blocked, wait)
	}
	c.now = c.now.Add(30 * time.Second)
	if _, blocked := l.Blocked("a"); blocked {
		t.Fatal("blocked after the penalty")
	}
}

func TestFullTableSharesOneBucket(t *testing.T) {
	t.Parallel()
	l, c := newTest(2, 3)
	for i := range 3 {
		l.Allow(fmt.Sprint("old", i))
	}
	l.Allow("new1")
	l.Allow("new2")
	if _, ok := l.Allow("new3"); ok {
		t.Fatal("a third new key was let through: new keys must share the overflow bucket")
	}
	if _, ok := l.Allow("old0"); !ok {
		t.Fatal("a known key was pushed into the overflow bucket")
	}
	if n := len(l.buckets); n > 4 {
		t.Fatalf("table holds %d keys", n)
	}
	c.now = c.now.Add(2 * time.Minute)
	if _, ok := l.Allow("new4"); !ok {
		t.Fatal("expired keys were not swept")
	}
}

// TestModel compares with a list of accepted times per key.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(t, "limit")
		l, c := newTest(limit, 100)
		accepted := map[string][]time.Time{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			c.now = c.now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			key := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
			inWindow := 0
			for _, at := range accepted[key] {
				if c.now.Sub(at) < time.Minute {
					inWindow++
				}
			}
			wait, ok := l.Allow(key)
			if ok != (inWindow < limit) {
				t.Fatalf("allowed %v with %d of %d in the window", ok, inWindow, limit)
			}
			if ok {
				accepted[key] = append(accepted[key], c.now)
			} else if wait <= 0 || wait > time.Minute {
				t.Fatalf("refused with wait %v", wait)
			}
		}
	})
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	l, _ := newTest(50, 10)
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if _, ok := l.Allow("a"); ok {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() != 50 {
		t.Fatalf("%d of 400 concurrent attempts passed, want exactly 50", passed.Load())
	}
}
