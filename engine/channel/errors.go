package channel

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"time"

	"osaurus/engine/address"
)

// Errors a caller of Transport may have to tell apart. Everything else is
// wrapped in one of them.
var (
	ErrPeerMustUpgrade = errors.New("channel: the peer has no secure channel and must upgrade Osaurus")
	ErrUnknownAgent    = errors.New("channel: the peer does not know the agent's address")
	ErrSessionLost     = errors.New("channel: the peer lost the session and the request may have run; not sent again")
	ErrReplay          = errors.New("channel: sequence number refused as already used")
	ErrTruncated       = fmt.Errorf("channel: the answer was cut off before its end: %w", io.ErrUnexpectedEOF)
	ErrReordered       = errors.New("channel: frame out of order")
	ErrAfterFin        = errors.New("channel: frame after the end of the answer")
	ErrDecrypt         = errors.New("channel: authentication failed")
	ErrMalformed       = errors.New("channel: malformed")
	ErrNotHybrid       = errors.New("channel: the peer answered without the post-quantum exchange that it is known to have")
	ErrVersion         = errors.New("channel: unsupported version")
	ErrSignature       = errors.New("channel: the handshake's signature is malformed or recovers no key")
	ErrTooLarge        = errors.New("channel: too large")
	ErrForeignURL      = errors.New("channel: the URL is not on the pinned peer")
	ErrClosed          = errors.New("channel: transport is closed")
)

// IdentityMismatch says that the handshake was signed by another key than the
// pinned one: another host answers, or someone stands in between.
type IdentityMismatch struct{ Want, Got address.Address }

// Error shows both addresses in full.
func (e *IdentityMismatch) Error() string {
	return "channel: the peer proved to be " + e.Got.String() + ", not the paired " + e.Want.String()
}

// StatusError is an answer from outside the encryption. Anyone on the path
// can forge it, so it is an error and never a response.
type StatusError struct {
	Status     int
	Code       string        // of the secure_channel_error body, "" without one
	RetryAfter time.Duration // of the header, 0 without one

	text string // of an {"error":"<text>"} body
}

// Word is the code of an {"error":"<code>"} body, which relays write; "" without
// a plain one.
func (e *StatusError) Word() string {
	if !plainCode(e.text) {
		return ""
	}
	return e.text
}

// Error names the status.
func (e *StatusError) Error() string {
	if code := cmp.Or(e.Code, e.Word()); code != "" {
		return fmt.Sprintf("channel: the peer answered %d %s outside the encryption", e.Status, code)
	}
	return fmt.Sprintf("channel: the peer answered %d outside the encryption", e.Status)
}
