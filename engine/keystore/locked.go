package keystore

import (
	"context"
	"errors"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// ErrPassphrase is why a sealed file does not open: no passphrase was given,
// or not its own.
var ErrPassphrase = errors.New("a passphrase is needed")

// Locked stands for a store that does not open now, so that what needs no
// secret can still be looked at: every call fails with why.
type Locked struct{ why error }

var _ Store = Locked{}

// NewLocked returns the store for a fault.KeystoreLocked.
func NewLocked(why error) Locked {
	if !errors.Is(why, fault.KeystoreLocked) {
		why = fault.New(fault.KeystoreLocked, why)
	}
	return Locked{why}
}

// Why returns what keeps it closed.
func (l Locked) Why() error { return l.why }

// Get implements Store.
func (l Locked) Get(context.Context, string, string) (secret.Bytes, error) {
	return secret.Bytes{}, l.why
}

// Put implements Store.
func (l Locked) Put(context.Context, string, string, secret.Bytes) error { return l.why }

// Delete implements Store.
func (l Locked) Delete(context.Context, string, string) error { return l.why }

// List implements Store.
func (l Locked) List(context.Context, string) ([]string, error) { return nil, l.why }

// Strength is that of the store behind: a sealed file has a passphrase, and
// every other that can be locked belongs to the login session.
func (l Locked) Strength() Strength {
	if errors.Is(l.why, ErrPassphrase) {
		return Passphrase
	}
	return LoginSession
}

// Close implements Store.
func (l Locked) Close() error { return nil }
