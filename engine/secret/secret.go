// Package secret holds sensitive bytes so that they cannot be printed,
// serialised or compared by accident, and can be destroyed after use.
//
// The bytes stand behind a func field: no fmt verb and no reflection walk
// reaches them, not even from the unexported field of another struct, and ==
// on a struct that contains one does not compile. Go may have copied memory
// before Destroy runs (stack growth, swapped pages), so zeroing shortens a
// secret's life and promises nothing more; SECURITY.md says what a memory
// dump shows.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what every printed form of a secret shows.
const Redacted = "[redacted]"

// ErrSerialise is returned by every marshaller of Bytes.
var ErrSerialise = errors.New("secret: refusing to serialise")

// Bytes is a secret byte string. The zero value is empty and usable. Copies
// share the same memory: destroying one destroys all. It is safe for
// concurrent reads; Destroy must not run beside them.
type Bytes struct {
	ref func() *[]byte
}

// New returns a secret holding a copy of b. The caller still owns b.
func New(b []byte) Bytes {
	return Take(append(make([]byte, 0, len(b)), b...))
}

// Take returns a secret that owns b itself. The caller must not use b again.
func Take(b []byte) Bytes {
	return Bytes{ref: func() *[]byte { return &b }}
}

// Random returns n bytes read from r, or from crypto/rand when r is nil.
func Random(r io.Reader, n int) (Bytes, error) {
	if r == nil {
		r = rand.Reader
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return Bytes{}, fmt.Errorf("secret: reading randomness: %w", err)
	}
	return Take(b), nil
}

// Expose returns the live bytes, nil after Destroy. They must not outlive the
// call that needs them, be converted to a string that is kept, or be appended
// to. The name is easy to search for in review.
func (s Bytes) Expose() []byte {
	if s.ref == nil {
		return nil
	}
	return *s.ref()
}

// Len returns the number of bytes.
func (s Bytes) Len() int { return len(s.Expose()) }

// IsZero reports whether there are no bytes: never set, or destroyed.
func (s Bytes) IsZero() bool { return s.Len() == 0 }

// Clone returns an independent copy.
func (s Bytes) Clone() Bytes { return New(s.Expose()) }

// Equal compares in time that depends on the lengths only. Two empty secrets
// are not equal: an absent key never matches an absent key.
func (s Bytes) Equal(t Bytes) bool {
	a, b := s.Expose(), t.Expose()
	return len(a) > 0 && subtle.ConstantTimeCompare(a, b) == 1
}

// Destroy overwrites the bytes with zeros and forgets them.
func (s Bytes) Destroy() {
	if s.ref == nil {
		return
	}
	p := s.ref()
	clear(*p)
	*p = nil
}

// Format prints [redacted] under every verb and flag.
func (s Bytes) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// String returns [redacted].
func (s Bytes) String() string { return Redacted }

// GoString returns [redacted].
func (s Bytes) GoString() string { return Redacted }

// LogValue makes slog record [redacted].
func (s Bytes) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText always fails with ErrSerialise.
func (s Bytes) MarshalText() ([]byte, error) { return nil, ErrSerialise }

// MarshalJSON always fails with ErrSerialise.
func (s Bytes) MarshalJSON() ([]byte, error) { return nil, ErrSerialise }

// MarshalBinary always fails with ErrSerialise.
func (s Bytes) MarshalBinary() ([]byte, error) { return nil, ErrSerialise }
