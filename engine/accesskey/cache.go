package accesskey

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// The cache of verified tokens: 1,024 sets of 4 slots. Only verified tokens
// enter, one slot for each (issuer, nonce), so nobody can make it grow or
// crowd others out with copies of one key.
const (
	cacheSets = 1024
	cacheWays = 4
)

type sum = [sha256.Size]byte

// verified is an immutable entry: the token's digest, its claims, and the
// snapshot under which the policy last passed.
type verified struct {
	sum    sum
	claims Claims
	access Access
	under  *snapshot
}

type cache struct {
	slots [cacheSets][cacheWays]atomic.Pointer[verified]

	mu    sync.Mutex // guards changes, never hits
	where map[keyID]place
	turn  [cacheSets]uint8
}

type place struct{ set, way int }

func setOf(s *sum) int { return int(binary.LittleEndian.Uint32(s[:]) % cacheSets) }

// find reads without a lock.
func (c *cache) find(s *sum) *verified {
	set := &c.slots[setOf(s)]
	for i := range set {
		if v := set[i].Load(); v != nil && v.sum == *s {
			return v
		}
	}
	return nil
}

// put enters or refreshes v. An older entry of the same key gives way; a full
// set loses its slots in turn.
func (c *cache) put(v *verified) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.where == nil {
		c.where = make(map[keyID]place)
	}
	id := keyID{v.claims.Issuer, v.claims.Nonce}
	set := setOf(&v.sum)
	if old, ok := c.where[id]; ok {
		if old.set == set {
			c.slots[set][old.way].Store(v)
			return
		}
		c.slots[old.set][old.way].Store(nil)
	}
	way := c.freeWay(set)
	if gone := c.slots[set][way].Load(); gone != nil {
		delete(c.where, keyID{gone.claims.Issuer, gone.claims.Nonce})
	}
	c.slots[set][way].Store(v)
	c.where[id] = place{set, way}
}

func (c *cache) freeWay(set int) int {
	for way := range cacheWays {
		if c.slots[set][way].Load() == nil {
			return way
		}
	}
	way := int(c.turn[set]) % cacheWays
	c.turn[set]++
	return way
}
