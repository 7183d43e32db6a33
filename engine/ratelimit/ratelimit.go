// Package ratelimit bounds how often a source may do something: a sliding
// window for each key, with penalties, in a table that cannot grow past its
// cap. It starts no goroutine and takes its clock from the caller.
package ratelimit

import (
	"sync"
	"time"
)

// DefaultMaxKeys is how many sources one table tells apart (decisions C4).
const DefaultMaxKeys = 4096

// overflow is the bucket that new keys share while the table is full.
const overflow = "\x00overflow"

// Options configures New. Limit and Window must be positive.
type Options struct {
	Limit   int
	Window  time.Duration
	MaxKeys int              // 0 means DefaultMaxKeys
	Now     func() time.Time // nil means time.Now
}

// Limiter is safe for concurrent use.
type Limiter struct {
	o Options

	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	hits    []time.Time // oldest first, at most Limit
	blocked time.Time   // penalty end
}

// New returns an empty limiter.
func New(o Options) *Limiter {
	if o.Limit <= 0 || o.Window <= 0 {
		panic("ratelimit: limit and window must be positive")
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = DefaultMaxKeys
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Limiter{o: o, buckets: make(map[string]*bucket)}
}

// Allow counts an attempt of key when there is room for it. A refused attempt
// does not count; retryAfter says when the next one will be let through.
func (l *Limiter) Allow(key string) (retryAfter time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now()
	b := l.bucketLocked(key, now)
	if wait := l.wait(b, now); wait > 0 {
		return wait, false
	}
	b.hits = append(b.hits, now)
	return 0, true
}

// Blocked reports whether an attempt of key would be refused now, without
// counting one.
func (l *Limiter) Blocked(key string) (retryAfter time.Duration, blocked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now()
	b := l.buckets[key]
	if b == nil && len(l.buckets) >= l.o.MaxKeys {
		b = l.buckets[overflow]
	}
	if b == nil {
		return 0, false
	}
	wait := l.wait(b, now)
	return wait, wait > 0
}

// Penalize refuses key for d from now, or longer when it already is.
func (l *Limiter) Penalize(key string, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.Now()
	b := l.bucketLocked(key, now)
	if until := now.Add(d); until.After(b.blocked) {
		b.blocked = until
	}
}

// wait drops what left the window and returns how long b must wait.
func (l *Limiter) wait(b *bucket, now time.Time) time.Duration {
	gone := 0
	for gone < len(b.hits) && !b.hits[gone].Add(l.o.Window).After(now) {
		gone++
	}
	b.hits = append(b.hits[:0], b.hits[gone:]...)
	wait := b.blocked.Sub(now)
	if len(b.hits) >= l.o.Limit {
		wait = max(wait, b.hits[0].Add(l.o.Window).Sub(now))
	}
	return max(wait, 0)
}

func (l *Limiter) bucketLocked(key string, now time.Time) *bucket {
	if b := l.buckets[key]; b != nil {
		return b
	}
	if len(l.buckets) >= l.o.MaxKeys {
		l.sweepLocked(now)
	}
	if len(l.buckets) >= l.o.MaxKeys {
		key = overflow
		if b := l.buckets[key]; b != nil {
			return b
		}
	}
	b := &bucket{}
	l.buckets[key] = b
	return b
}

// sweepLocked forgets keys that neither count nor are penalised any more.
func (l *Limiter) sweepLocked(now time.Time) {
	for key, b := range l.buckets {
		if l.wait(b, now) == 0 && len(b.hits) == 0 {
			delete(l.buckets, key)
		}
	}
}
