package server

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"osaurus/engine/ratelimit"
)

// Limits of the protocol (relay.md sections 2 to 8).
const (
	authTimeout   = 10 * time.Second
	clockSkew     = 30 // seconds that a timestamp may be off
	nonceLifetime = 30 * time.Second
	pingEvery     = 30 * time.Second
	maxMissed     = 3 // pings without a pong
	firstByte     = 30 * time.Second
	streamIdle    = 30 * time.Second
	drainTime     = 20 * time.Second
	maxSlow       = 4 << 20 // bytes queued for a slow caller

	connectsPerIP   = 20 // each of these in a minute, per relay
	requestsByAgent = 100
	requestsByIP    = 300
	controlFrames   = 10
	statsPerIP      = 10
	presencePerIP   = 120
	socketsPerIP    = 50

	minPresenceToken = 32    // characters, or there is no /presence
	maxPresenceQuery = 4_300 // characters
	maxPresence      = 100   // addresses
)

// Our own bounds, for what the protocol leaves open.
const (
	maxTunnels    = 16_384
	maxCalls      = 1_024            // requests in flight on one tunnel
	maxOutgoing   = 64 << 20         // bytes queued for one host
	maxAuthFrame  = 256 << 10        // bytes of a message before auth_ok
	maxHeld       = 512 << 20        // bytes of bodies and large frames held for all
	maxKeys       = 65_536           // sources and agents told apart by one limit
	maxHeaderSize = 64 << 10         // bytes of a request's head
	writeTime     = 30 * time.Second // for one message to a host
	callerTime    = 2 * time.Minute  // for one piece to a caller
	headerTime    = 10 * time.Second
	bodyTime      = 30 * time.Second // and
	bodyPace      = 64 << 10         // bytes for each further second
)

// limits are the token buckets, all for one minute.
type limits struct {
	connects, agents, callers, stats, presence *ratelimit.Buckets

	mu      sync.Mutex
	sockets map[string]int // by source, from the upgrade on
	open    int
}

func newLimits(now func() time.Time) *limits {
	table := func(n int) *ratelimit.Buckets {
		return ratelimit.NewBuckets(ratelimit.Options{Limit: n, Window: time.Minute, MaxKeys: maxKeys, Now: now})
	}
	return &limits{connects: table(connectsPerIP), agents: table(requestsByAgent), callers: table(requestsByIP), stats: table(statsPerIP), presence: table(presencePerIP), sockets: map[string]int{}}
}

// enter takes a socket's slot.
func (l *limits) enter(source string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sockets[source] >= socketsPerIP || l.open >= maxTunnels {
		return false
	}
	l.sockets[source]++
	l.open++
	return true
}

func (l *limits) leave(source string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.sockets[source]--; l.sockets[source] == 0 {
		delete(l.sockets, source)
	}
}

// sourceOf is the key of a client's address in the tables: IPv6 by /64, which
// one client has whole.
func sourceOf(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return ip
	}
	if a = a.Unmap().WithZone(""); a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().String()
	}
	return a.String()
}

// held counts bytes that are kept for somebody, of all tunnels and callers.
type held struct {
	most int64
	n    atomic.Int64
}

func (h *held) take(n int) bool {
	if h.n.Add(int64(n)) <= h.most {
		return true
	}
	h.n.Add(-int64(n))
	return false
}

func (h *held) release(n int) { h.n.Add(-int64(n)) }
