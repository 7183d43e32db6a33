package signature

import (
	"errors"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"osaurus/engine/address"
	"osaurus/engine/secret"
)

// ScalarSize is the length of a private key in bytes.
const ScalarSize = 32

// ErrScalar says that 32 bytes are no private key: zero or not below the
// group order.
var ErrScalar = errors.New("signature: not a valid secp256k1 private key")

// Key is a private key. It prints as [redacted] and its zero value panics
// when used to sign.
type Key struct {
	scalar secret.Bytes
	addr   address.Address
}

// NewKey takes a copy of a 32-byte big-endian scalar. Errors: ErrScalar.
func NewKey(scalar secret.Bytes) (Key, error) {
	if scalar.Len() != ScalarSize {
		return Key{}, ErrScalar
	}
	var s secp256k1.ModNScalar
	defer s.Zero()
	if s.SetByteSlice(scalar.Expose()) || s.IsZero() {
		return Key{}, ErrScalar
	}
	priv := secp256k1.NewPrivateKey(&s)
	defer priv.Zero()
	return Key{scalar: scalar.Clone(), addr: addressOf(priv.PubKey())}, nil
}

// Address returns the address of the public half.
func (k Key) Address() address.Address { return k.addr }

// IsZero reports whether the key was never set or was destroyed.
func (k Key) IsZero() bool { return k.scalar.IsZero() }

// Destroy overwrites the private half.
func (k Key) Destroy() { k.scalar.Destroy() }

// Sign signs a domain-separated digest, without letting its time depend on the
// nonce: see signBlinded. It panics on a zero key or digest.
func (k Key) Sign(d Digest) Signature {
	if k.IsZero() || d.domain == invalidDomain {
		panic("signature: signing with a zero key or digest")
	}
	var scalar secp256k1.ModNScalar
	defer scalar.Zero()
	scalar.SetByteSlice(k.scalar.Expose())
	return signBlinded(&scalar, &d.sum)
}
