package channel

import "time"

// Limits of PROTOCOL.md section 9. Each has a test on both sides.
const (
	maxHello   = 65_536     // bytes: the body of /secure/session, and a reply to it
	maxCall    = 33_554_432 // bytes: the body of /secure/call
	maxBody    = 64 << 20   // bytes: the body of a buffered answer
	maxNesting = 256        // of any JSON read here

	maxSessions    = 4096 // on one server
	maxSourceShare = 64   // of them for one source

	maxOutstanding = 32               // calls of a client on one session
	refreshBefore  = 60 * time.Second // a client handshakes anew this long before expiry
	maxLifetime    = 3700             // seconds: what a client accepts as expiresAt − now
)
