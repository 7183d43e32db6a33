package server

import (
	"sync"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/fault"
)

// MaxIdempotencyKey bounds the header in bytes.
const MaxIdempotencyKey = 256

type requestKey struct {
	audience, nonce, key string
}

// idempotency remembers keys for idempotencyTTL, so that a request resent
// after a forged or lost answer runs once (decisions C6).
type idempotency struct {
	mu   sync.Mutex
	seen map[requestKey]time.Time
}

// claim errors: fault.DuplicateRequest. A request without a key always passes.
func (i *idempotency) claim(a *accesskey.Access, key string, now time.Time) error {
	if key == "" {
		return nil
	}
	if len(key) > MaxIdempotencyKey {
		return fault.InvalidFormat
	}
	k := requestKey{key: key}
	if a != nil {
		k.audience, k.nonce = a.Audience.Lower(), a.Nonce
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if at, ok := i.seen[k]; ok && now.Sub(at) < idempotencyTTL {
		return fault.DuplicateRequest
	}
	if len(i.seen) >= maxIdempotency {
		for k, at := range i.seen {
			if now.Sub(at) >= idempotencyTTL {
				delete(i.seen, k)
			}
		}
	}
	if len(i.seen) >= maxIdempotency {
		return &fault.Error{Code: fault.ServerOverloaded, RetryAfter: time.Minute}
	}
	i.seen[k] = now
	return nil
}
