package signature

import (
	"encoding/hex"
	"errors"
	"strings"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"osaurus/engine/address"
)

// Size is the length of a signature in bytes: r (32) ‖ s (32) ‖ v (1).
const Size = 65

// Errors a caller may have to tell apart.
var (
	ErrMalformed = errors.New("signature: want 65 bytes as 130 hex digits")
	ErrRecovery  = errors.New("signature: no public key recovers")
	ErrMismatch  = errors.New("signature: made by another key")
)

// Signature is r ‖ s ‖ v with v = 27 + recovery id when we made it.
type Signature [Size]byte

// Parse reads 130 hex digits with or without 0x. It checks the form only.
func Parse(s string) (Signature, error) {
	var sig Signature
	s = strings.TrimPrefix(s, "0x")
	if len(s) != 2*Size {
		return sig, ErrMalformed
	}
	if _, err := hex.Decode(sig[:], []byte(s)); err != nil {
		return Signature{}, ErrMalformed
	}
	return sig, nil
}

// String returns 0x and 130 lower-case hex digits.
func (s Signature) String() string { return "0x" + s.Hex() }

// Hex returns 130 lower-case hex digits without 0x.
func (s Signature) Hex() string { return hex.EncodeToString(s[:]) }

// MarshalText writes the 0x form.
func (s Signature) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what Parse accepts.
func (s *Signature) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// Recover returns the address whose key made sig over d. It accepts v in
// {0, 1, 27, 28} and refuses high-S. Errors: ErrRecovery.
func Recover(d Digest, sig Signature) (address.Address, error) {
	if d.domain == invalidDomain {
		return address.Address{}, ErrRecovery
	}
	v := sig[64]
	switch v {
	case 0, 1:
		v += 27
	case 27, 28:
	default:
		return address.Address{}, ErrRecovery
	}
	var s secp256k1.ModNScalar
	if s.SetByteSlice(sig[32:64]) || s.IsOverHalfOrder() {
		return address.Address{}, ErrRecovery
	}
	var compact [Size]byte
	compact[0] = v
	copy(compact[1:], sig[:64])
	pub, _, err := ecdsa.RecoverCompact(compact[:], d.sum[:])
	if err != nil {
		return address.Address{}, ErrRecovery
	}
	return addressOf(pub), nil
}

// Verify reports whether the key of want made sig over d: nil, ErrRecovery or
// ErrMismatch. The zero address never verifies.
func Verify(d Digest, sig Signature, want address.Address) error {
	got, err := Recover(d, sig)
	if err != nil {
		return err
	}
	if want.IsZero() || got != want {
		return ErrMismatch
	}
	return nil
}

func addressOf(pub *secp256k1.PublicKey) address.Address {
	raw := pub.SerializeUncompressed()
	return address.FromPublicKey([address.PublicKeySize]byte(raw[1:]))
}
