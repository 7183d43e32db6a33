package ratelimit

import (
	"sync"
	"time"
)

// Bucket is one token bucket: a burst of limit, refilled evenly within window.
// The zero value is full. It is not safe for concurrent use.
type Bucket struct {
	used float64 // tokens taken and not refilled, at the time at
	at   time.Time
}

// Take takes a token, if there is a whole one.
func (b *Bucket) Take(limit int, window time.Duration, now time.Time) bool {
	b.settle(limit, window, now)
	if b.used+1 > float64(limit) {
		return false
	}
	b.used++
	return true
}

func (b *Bucket) settle(limit int, window time.Duration, now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.used = max(0, b.used-float64(limit)*float64(passed)/float64(window))
		b.at = now
	}
}

// Buckets keeps a token bucket for each key, in a table that cannot grow past
// its cap: while it is full, new keys share one bucket. It is safe for
// concurrent use.
type Buckets struct {
	o Options

	mu    sync.Mutex
	keys  map[string]*Bucket
	swept time.Time
}

// sweepEvery is how often a full table looks for full buckets.
const sweepEvery = time.Second

// NewBuckets returns buckets that are full: Limit tokens, refilled within
// Window.
func NewBuckets(o Options) *Buckets {
	l := New(o) // the same defaults
	return &Buckets{o: l.o, keys: map[string]*Bucket{}}
}

// Allow takes a token of key, if there is one.
func (b *Buckets) Allow(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.o.Now()
	bucket := b.keys[key]
	if bucket == nil {
		if len(b.keys) >= b.o.MaxKeys && now.Sub(b.swept) >= sweepEvery {
			b.sweepLocked(now)
		}
		if len(b.keys) >= b.o.MaxKeys {
			key = overflow
		}
		if bucket = b.keys[key]; bucket == nil {
			bucket = &Bucket{}
			b.keys[key] = bucket
		}
	}
	return bucket.Take(b.o.Limit, b.o.Window, now)
}

// Len is how many keys are kept.
func (b *Buckets) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.keys)
}

func (b *Buckets) sweepLocked(now time.Time) {
	b.swept = now
	for key, bucket := range b.keys {
		if bucket.settle(b.o.Limit, b.o.Window, now); bucket.used == 0 {
			delete(b.keys, key)
		}
	}
}
