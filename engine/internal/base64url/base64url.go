// Package base64url is the strict RFC 4648 section 5 codec of every wire
// format here: no padding on output, padding tolerated on input, and exactly
// one encoding for each value otherwise.
package base64url

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
)

// ErrMalformed covers foreign characters, line breaks, wrong padding and
// non-zero trailing bits.
var ErrMalformed = errors.New("base64url: malformed")

var strict = base64.RawURLEncoding.Strict()

// Encode returns b without padding.
func Encode(b []byte) string { return strict.EncodeToString(b) }

// Decode reads s with or without padding. The standard decoder skips CR and
// LF even when strict, so they are refused first.
func Decode(s string) ([]byte, error) {
	if strings.IndexByte(s, '\r') >= 0 || strings.IndexByte(s, '\n') >= 0 {
		return nil, ErrMalformed
	}
	if n := len(s); n%4 == 0 && n > 0 && s[n-1] == '=' {
		s = strings.TrimSuffix(s[:n-1], "=")
	}
	b, err := strict.DecodeString(s)
	if err != nil {
		return nil, ErrMalformed
	}
	return b, nil
}

// DecodeExact is Decode that also wants exactly n bytes.
func DecodeExact(s string, n int) ([]byte, error) {
	b := make([]byte, n)
	if err := DecodeInto(b, []byte(s)); err != nil {
		return nil, err
	}
	return b, nil
}

// DecodeInto is DecodeExact for the bytes of dst, which hold anything after an
// error. It allocates nothing.
func DecodeInto(dst, s []byte) error {
	if n := len(s); n%4 == 0 && n > 0 && s[n-1] == '=' {
		s = bytes.TrimSuffix(s[:n-1], []byte("="))
	}
	if base64.RawURLEncoding.DecodedLen(len(s)) != len(dst) {
		return ErrMalformed
	}
	// A line break, which the decoder skips, makes the result too short.
	if n, err := strict.Decode(dst, s); err != nil || n != len(dst) {
		return ErrMalformed
	}
	return nil
}
