// Package address is the 20-byte identity of a key: the last 20 bytes of the
// Keccak-256 of a secp256k1 public key, written with the EIP-55 checksum.
package address

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/sha3"
)

// Size is the length of an address in bytes.
const Size = 20

// PublicKeySize is the length of an uncompressed secp256k1 public key without
// its 0x04 byte.
const PublicKeySize = 64

// Errors of Parse and ParseChecksummed.
var (
	ErrMalformed = errors.New("address: want 0x and 40 hex digits")
	ErrChecksum  = errors.New("address: EIP-55 checksum does not match, so a character is wrong")
)

// Address is comparable. The zero value is "no address" and authorises
// nothing.
type Address [Size]byte

// Keccak256 is the original Keccak with padding 0x01, not SHA3-256, over the
// concatenation of parts.
func Keccak256(parts ...[]byte) [32]byte {
	h := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		h.Write(p)
	}
	var sum [32]byte
	h.Sum(sum[:0])
	return sum
}

// FromPublicKey returns the address of an uncompressed public key (x ‖ y,
// big-endian, 64 bytes).
func FromPublicKey(xy [PublicKeySize]byte) Address {
	sum := Keccak256(xy[:])
	return Address(sum[12:])
}

// Parse reads 40 hex digits in any case, with or without 0x. It is for
// addresses from the wire; use ParseChecksummed for what a person typed.
func Parse(s string) (Address, error) {
	var a Address
	digits := s
	if len(s) == 2+2*Size && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		digits = s[2:]
	}
	if len(digits) != 2*Size {
		return Address{}, ErrMalformed
	}
	if _, err := hex.Decode(a[:], []byte(digits)); err != nil {
		return Address{}, ErrMalformed
	}
	return a, nil
}

// ParseChecksummed is Parse for typed input: an address in mixed case must
// carry the right EIP-55 checksum; all-lower and all-upper pass without one.
func ParseChecksummed(s string) (Address, error) {
	a, err := Parse(s)
	if err != nil {
		return Address{}, err
	}
	digits := []byte(s[len(s)-2*Size:])
	mixed := !bytes.Equal(digits, bytes.ToLower(digits)) && !bytes.Equal(digits, bytes.ToUpper(digits))
	if mixed && string(digits) != a.String()[2:] {
		return Address{}, ErrChecksum
	}
	return a, nil
}

// String returns 0x and 40 hex digits with the EIP-55 checksum.
func (a Address) String() string {
	var buf [2 + 2*Size]byte
	buf[0], buf[1] = '0', 'x'
	hex.Encode(buf[2:], a[:])
	sum := Keccak256(buf[2:])
	for i := range 2 * Size {
		nibble := sum[i/2] >> 4
		if i%2 == 1 {
			nibble = sum[i/2] & 0x0f
		}
		if c := buf[2+i]; c >= 'a' && nibble >= 8 {
			buf[2+i] = c - 'a' + 'A'
		}
	}
	return string(buf[:])
}

// Lower returns 0x and 40 lower-case hex digits, the form that protocol texts
// sign.
func (a Address) Lower() string {
	var buf [2 + 2*Size]byte
	buf[0], buf[1] = '0', 'x'
	hex.Encode(buf[2:], a[:])
	return string(buf[:])
}

// Short returns a form for logs and labels, such as 0xf39F…2266. It does not
// identify: compare the full address.
func (a Address) Short() string {
	s := a.String()
	return s[:6] + "…" + s[len(s)-4:]
}

// IsZero reports whether a is no address.
func (a Address) IsZero() bool { return a == Address{} }

// MarshalText writes the checksummed form, and nothing for the zero address.
func (a Address) MarshalText() ([]byte, error) {
	if a.IsZero() {
		return []byte{}, nil
	}
	return []byte(a.String()), nil
}

// UnmarshalText reads what Parse accepts, or nothing for the zero address.
func (a *Address) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*a = Address{}
		return nil
	}
	parsed, err := Parse(string(text))
	if err != nil {
		return fmt.Errorf("reading an address: %w", err)
	}
	*a = parsed
	return nil
}
