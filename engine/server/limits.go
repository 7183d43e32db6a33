// Package server is the HTTP surface of a host: limits, the gate, CORS, the
// routes and their error bodies. PROTOCOL.md beside this file is its
// specification; the gate itself is the pure function decide.
package server

import "time"

// What the protocol fixes, PROTOCOL.md section 2.
const (
	MaxPairingBody  = 64 << 10 // /pair, /pair/challenge, /pair-invite, /secure/session
	MaxBody         = 32 << 20 // any other route
	MaxHeaderFields = 200
	MaxHeaderBytes  = 1 << 20

	pairingLimit    = 5 // per source and minute
	handshakeLimit  = 30
	relayLimit      = 60 // all relay traffic together
	failureLimit    = 20 // 401s of the gate
	limiterWindow   = 60 * time.Second
	pairingPenalty  = 30 * time.Second
	corsMaxAge      = "600"
	idempotencyTTL  = 10 * time.Minute
	maxRelaySource  = 64 // bytes of the caller the relay names
	shutdownTimeout = 10 * time.Second
)

// Our limits, decisions C11 and C17.
const (
	headerTimeout       = 10 * time.Second
	idleTimeout         = 120 * time.Second
	writeTimeout        = 60 * time.Second // for each write
	bodyTimeout         = 30 * time.Second // plus one second for each bodyRate
	bodyRate            = 64 << 10
	maxUnauthorised     = 256 << 20 // bytes of unauthorised bodies in memory
	maxSourceConns      = 64        // of one non-loopback source
	reservedForLoopback = 32
	maxIdempotency      = 10_000
	ringEntries         = 500
	ringBytes           = 16 << 20
	ringBody            = 256 << 10
)
