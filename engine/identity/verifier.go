package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"maps"
	"sync"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/signature"
)

// Step is the check of PROTOCOL.md section 7 that refused a request token.
type Step uint8

// The checks, in the order they run.
const (
	invalidStep Step = iota
	StepShape
	StepHeader
	StepPayload
	StepSignature
	StepIssuer
	StepTime
	StepAudience
	StepAction
	StepAssertion
	StepCounter
	StepStore // the counters cannot be kept
	stepCount
)

var stepNames = [stepCount]string{"invalid", "shape", "header", "payload", "signature", "issuer", "time", "audience",
	"action", "assertion", "counter", "store"}

// String returns the step in one lower-case word.
func (s Step) String() string {
	if s >= stepCount {
		s = invalidStep
	}
	return stepNames[s]
}

// TokenError says why a request token was refused. It is for the log: whoever
// sent the token sees fault.RequestToken and nothing else.
type TokenError struct {
	Step  Step
	Cause error // may be nil
}

// Error names the step.
func (e *TokenError) Error() string { return "request token: " + e.Step.String() }

// Unwrap returns the cause.
func (e *TokenError) Unwrap() error { return e.Cause }

// refuse wraps the step in the one outcome that peers see.
func refuse(s Step) error { return fault.New(fault.RequestToken, &TokenError{Step: s}) }

func refuseBecause(s Step, cause error) error {
	return fault.New(fault.RequestToken, &TokenError{Step: s, Cause: cause})
}

// AssertionVerifier checks App Attest assertions of the devices it attested.
type AssertionVerifier interface {
	Verify(ctx context.Context, device string, payloadHash [sha256.Size]byte, assertion []byte) error
}

// RequestVerifierConfig configures OpenRequestVerifier. Path, Host, Master and
// Agent are required.
type RequestVerifierConfig struct {
	Path       string                                             // identity/request-devices.json
	Host       string                                             // our host name: the only audience
	Master     func() address.Address                             // zero refuses every token
	Agent      func(address.Address) (index uint32, current bool) // an agent's present address and its index
	Assertions AssertionVerifier                                  // nil refuses tokens that carry an assertion
	Now        func() time.Time                                   // nil means time.Now
}

// RequestVerifier accepts each request token once. It is safe for concurrent
// use within one process; the file belongs to one verifier.
type RequestVerifier struct {
	c     RequestVerifierConfig
	files files

	mu   sync.Mutex
	seen seenDevices
}

// seenDevices is what must survive a restart.
type seenDevices struct {
	Version int                   `json:"version"`
	Devices map[string]seenDevice `json:"devices"`
}

type seenDevice struct {
	Counter  uint64 `json:"cnt"`
	Asserted bool   `json:"asserted"` // must carry an assertion from now on
}

// OpenRequestVerifier reads the counters. It fails with fault.StateCorrupt
// when they cannot be read: without them a replay would pass.
func OpenRequestVerifier(c RequestVerifierConfig) (*RequestVerifier, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	v := &RequestVerifier{c: c, files: disk{}}
	err := readJSON(c.Path, &v.seen)
	if errors.Is(err, fs.ErrNotExist) {
		v.seen = seenDevices{Version: fileVersion, Devices: map[string]seenDevice{}}
		return v, nil
	}
	if err == nil && (v.seen.Version != fileVersion || v.seen.Devices == nil) {
		err = errCorrupt(c.Path)
	}
	return v, err
}

// Verify accepts a token for action, once. Its counter is on disk before it
// returns. Every refusal is fault.RequestToken; the *TokenError within says
// which check it was.
func (v *RequestVerifier) Verify(ctx context.Context, token, action string) (RequestClaims, error) {
	t, err := ParseRequestToken(token)
	if err != nil {
		return RequestClaims{}, err
	}
	if err := signature.Verify(signature.SignedMessage.Digest(t.payload), t.signature, t.Claims.Issuer); err != nil {
		return RequestClaims{}, refuseBecause(StepSignature, err)
	}
	if err := v.judge(t.Claims, action); err != nil {
		return RequestClaims{}, err
	}
	if err := v.assertion(ctx, t); err != nil {
		return RequestClaims{}, err
	}
	if err := v.count(t); err != nil {
		return RequestClaims{}, err
	}
	return t.Claims, nil
}

// judge checks what needs no state: issuer, time, audience and action.
func (v *RequestVerifier) judge(c RequestClaims, action string) error {
	now := v.c.Now().Unix()
	switch {
	case !v.ours(c):
		return refuse(StepIssuer)
	case c.IssuedAt < now-requestWindow || c.IssuedAt > now+requestWindow || c.Expires != c.IssuedAt+requestLifetime:
		return refuse(StepTime)
	case c.Audience != v.c.Host:
		return refuse(StepAudience)
	case c.Action != action:
		return refuse(StepAction)
	}
	return nil
}

// ours reports whether the issuer is our master, or the present address of one
// of our agents that names our master and its own index.
func (v *RequestVerifier) ours(c RequestClaims) bool {
	master := v.c.Master()
	if master.IsZero() || c.Issuer.IsZero() {
		return false
	}
	if c.Agent == nil {
		return c.Issuer == master
	}
	index, current := v.c.Agent(c.Issuer)
	return current && c.Agent.Parent == master && c.Agent.Index == index
}

func (v *RequestVerifier) assertion(ctx context.Context, t RequestToken) error {
	if len(t.assertion) == 0 {
		return nil // count refuses it if the device once had one
	}
	if v.c.Assertions == nil {
		return refuse(StepAssertion)
	}
	if err := v.c.Assertions.Verify(ctx, t.Claims.Device, sha256.Sum256(t.payload), t.assertion); err != nil {
		return refuseBecause(StepAssertion, err)
	}
	return nil
}

// count spends the token's counter.
func (v *RequestVerifier) count(t RequestToken) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	asserted := len(t.assertion) > 0
	last, known := v.seen.Devices[t.Claims.Device]
	switch {
	case known && last.Asserted && !asserted:
		return refuse(StepAssertion)
	case known && t.Claims.Counter <= last.Counter:
		return refuse(StepCounter)
	case !known && len(v.seen.Devices) >= maxSeenDevices:
		return refuse(StepStore)
	}
	next := seenDevices{Version: fileVersion, Devices: maps.Clone(v.seen.Devices)}
	next.Devices[t.Claims.Device] = seenDevice{Counter: t.Claims.Counter, Asserted: asserted}
	if err := writeJSON(v.files, v.c.Path, next); err != nil {
		return refuseBecause(StepStore, err)
	}
	v.seen = next
	return nil
}
