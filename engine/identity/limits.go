package identity

import "time"

// PresenceReuse is how long one confirmation by the owner serves.
const PresenceReuse = 300 * time.Second

const (
	// maxPhraseBytes bounds what ParsePhrase reads: 24 words of 8 letters with
	// numbers and white space around them fit many times over.
	maxPhraseBytes = 4096
	// maxRequestToken bounds a request token in bytes; one with an App Attest
	// assertion has about 900.
	maxRequestToken = 8192
	// maxAudience is the longest host name (RFC 1035 section 2.3.4).
	maxAudience = 253
	// maxAction bounds "METHOD path" in a request token, in bytes.
	maxAction = 2048
	// maxSeenDevices bounds the devices whose counters a verifier keeps. Only
	// tokens signed by this identity add one.
	maxSeenDevices = 4096
)
