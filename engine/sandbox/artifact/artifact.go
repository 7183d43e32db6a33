// Package artifact keeps what the sandbox boots: it knows each artifact by a
// hash in pins.json, fetches it, and hashes it again from disk before every
// use. Whatever differs from its pin stops the caller: nothing is tried
// elsewhere, nothing is booted, and nothing that was good is deleted.
package artifact

import (
	"errors"
	"fmt"

	"osaurus/engine/fault"
)

// ErrIntegrity is in the chain of every error that says that something is not
// what was pinned. It is never retried, and shown as it is.
var ErrIntegrity = errors.New("integrity check failed")

// ErrAbsent says that an artifact has not been fetched or built yet.
var ErrAbsent = errors.New("not here yet")

// ErrPin says that a pin cannot be used as it is written.
var ErrPin = errors.New("unusable pin")

// refusal is an ErrIntegrity with what was wrong with which thing.
type refusal struct {
	what   string // artifact, file or blob
	reason string
	cause  error
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("%v: %s: %s", ErrIntegrity, r.what, r.reason)
	if r.cause != nil {
		text += ": " + r.cause.Error()
	}
	return text
}

func (r *refusal) Unwrap() []error {
	shown := fault.WithText(fault.ArtifactDamaged, r.Error())
	if r.cause == nil {
		return []error{ErrIntegrity, shown}
	}
	return []error{ErrIntegrity, shown, r.cause}
}

func refuse(what, format string, args ...any) error {
	return &refusal{what: what, reason: fmt.Sprintf(format, args...)}
}
