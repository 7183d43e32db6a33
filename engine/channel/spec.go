package channel

import "time"

// What PROTOCOL.md fixes. Changing a value here breaks every existing peer.
const (
	version = "1" // "v" of every message but frames

	sessionPath = "/secure/session" // section 2
	callPath    = "/secure/call"    // section 4

	keySize   = 32 // X25519 keys and ChaCha20-Poly1305 keys
	helloSize = 16 // the client's nonce
	sidSize   = 16
	nonceSize = 12 // four zero bytes ‖ BE64(seq), section 4
	tagSize   = 16 // Poly1305

	sessionLifetime = time.Hour

	transcriptLabel = "osaurus-sc1|v=1"      // section 2
	requestsLabel   = "osaurus-sc1:c2s"      // section 3
	repliesLabel    = "osaurus-sc1:s2c"      // section 3
	replyKeyLabel   = "osaurus-sc1:respkey:" // section 5, then the request's seq
	requestAAD      = "osaurus-sc1:req:"     // section 4, then sid:seq
	replyAAD        = "osaurus-sc1:resp:"    // section 5, then sid:reqSeq:seq:fin

	markHeader  = "X-Osaurus-Secure-Channel" // "1" on encrypted answers, diagnostic
	relayHeader = "X-Osaurus-Relay-Origin"   // section 6

	idempotencyHeader = "Idempotency-Key" // section 8
	idempotencySize   = 16

	jsonContentType  = "application/json; charset=utf-8"
	eventContentType = "text/event-stream"

	codeSessionUnknown = "secure_session_unknown" // the codes a client acts on
	codeReplay         = "secure_replay"
)
