package pairing

import (
	"encoding/hex"
	"io"
	"sync"
	"time"
)

// challenges are the outstanding nonces: single use, bounded, each with its
// expiry. The zero value needs its clock and randomness set by NewHost.
type challenges struct {
	now  func() time.Time
	rand io.Reader

	mu      sync.Mutex
	expires map[string]time.Time
}

// issue returns a fresh nonce of 64 hex digits. When the table is full the
// nonce nearest to its expiry gives way.
func (c *challenges) issue() (string, error) {
	var raw [challengeBytes]byte
	if _, err := io.ReadFull(c.rand, raw[:]); err != nil {
		return "", err
	}
	nonce := hex.EncodeToString(raw[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if len(c.expires) >= MaxChallenges {
		c.evictLocked(now)
	}
	c.expires[nonce] = now.Add(ChallengeTTL)
	return nonce, nil
}

func (c *challenges) evictLocked(now time.Time) {
	var nearest string
	for nonce, at := range c.expires {
		if !at.After(now) {
			delete(c.expires, nonce)
			continue
		}
		if nearest == "" || at.Before(c.expires[nearest]) {
			nearest = nonce
		}
	}
	if len(c.expires) >= MaxChallenges {
		delete(c.expires, nearest)
	}
}

// consume spends a nonce and reports whether it was outstanding and unexpired.
func (c *challenges) consume(nonce string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.expires[nonce]
	delete(c.expires, nonce)
	return ok && at.After(c.now())
}
