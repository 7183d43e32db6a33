package channel

import (
	"bytes"
	"encoding/base64"
	"slices"

	asm "github.com/segmentio/asm/base64"
)

// codec is unpadded base64url. Decode may be more lenient than the wire
// format: decodeBase64 is the gate.
type codec interface {
	Encode(dst, src []byte)
	Decode(dst, src []byte) (int, error)
}

// Ciphertext is base64 on the wire, and there the standard codec costs as
// much as the cipher. wideCodec runs on vector instructions on amd64 and arm64
// and is the standard one elsewhere or with the build tag purego. Benchmarks
// swap frameCodec for portableCodec.
var (
	wideCodec     codec = asm.RawURLEncoding.Strict()
	portableCodec codec = base64.RawURLEncoding.Strict()
	frameCodec          = wideCodec
)

func appendBase64(dst, src []byte) []byte {
	n := base64.RawURLEncoding.EncodedLen(len(src))
	dst = slices.Grow(dst, n)
	frameCodec.Encode(dst[len(dst):len(dst)+n], src)
	return dst[:len(dst)+n]
}

// appendDecoded decodes src, with or without padding, after dst. It accepts
// exactly one encoding of each value. The codecs' Strict refuses trailing bits,
// but they skip line breaks, which shows in the length, and the vector ones
// take letters of the standard alphabet: '/' on amd64, '+' on arm64.
func appendDecoded(dst, src []byte) ([]byte, bool) {
	if n := len(src); n%4 == 0 && n > 0 && src[n-1] == '=' {
		src = bytes.TrimSuffix(src[:n-1], []byte("="))
	}
	n := base64.RawURLEncoding.DecodedLen(len(src))
	if len(src)%4 == 1 || bytes.IndexByte(src, '/') >= 0 || bytes.IndexByte(src, '+') >= 0 {
		return dst, false
	}
	dst = slices.Grow(dst, n)
	got, err := frameCodec.Decode(dst[len(dst):len(dst)+n], src)
	if err != nil || got != n {
		return dst, false
	}
	return dst[:len(dst)+n], true
}
