package channel

import (
	"bytes"
	"encoding/base64"
	"errors"
	"testing"
)

var codecs = map[string]codec{"wide": wideCodec, "portable": portableCodec}

// TestBase64EveryByteEverywhere puts each of the 256 bytes at each position
// of texts that cross the vector codec's block sizes: only the 64 letters of
// the alphabet may pass, and each to its one value.
func TestBase64EveryByteEverywhere(t *testing.T) {
	t.Parallel()
	strict := base64.RawURLEncoding.Strict()
	for _, n := range []int{1, 2, 3, 24, 48, 49, 50, 96} {
		good := []byte(base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0x5a}, n)))
		for at := range good {
			for c := range 256 {
				text := bytes.Clone(good)
				text[at] = byte(c)
				got, ok := appendDecoded(nil, text)
				want, err := strict.DecodeString(string(text))
				if c == '\r' || c == '\n' {
					err = errors.New("line break, which the standard codec skips")
				}
				if c == '=' && at == len(text)-1 && len(text)%4 == 0 {
					continue // padding, covered below
				}
				if ok != (err == nil) || (ok && !bytes.Equal(got, want)) {
					t.Fatalf("%d bytes, %#x at %d: got %x %v, want %x %v", n, c, at, got, ok, want, err)
				}
			}
		}
	}
}

func TestBase64Padding(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		text string
		ok   bool
	}{
		{"", true}, {"AA", true}, {"AA==", true}, {"AAA", true}, {"AAA=", true}, {"AAAA", true},
		{"A", false}, {"A===", false}, {"AA=", false}, {"AAA==", false}, {"AAAA=", false}, {"AAAA==", false}, {"AAAA====", false},
		{"=", false}, {"==", false}, {"====", false}, {"AA==AA==", false}, {"AB", false}, {"AAB", false}, {"A=AA", false},
		{"AA\n", false}, {"\nAA", false}, {"AAA\n", false}, {"AAAA\n", false}, {"AAAA\r\n\r\n", false}, {"AAAAA\n", false}, {"AAAA\nAAAA", false},
	} {
		if _, ok := appendDecoded(nil, []byte(x.text)); ok != x.ok {
			t.Errorf("%q: got %v", x.text, ok)
		}
	}
}

// TestBase64StaysInside checks, for every length, that neither codec writes
// outside the part of dst that is its to write.
func TestBase64StaysInside(t *testing.T) {
	t.Parallel()
	for name, c := range codecs {
		for n := range 300 {
			src := bytes.Repeat([]byte{0xa7}, n)
			size := base64.RawURLEncoding.EncodedLen(n)
			text := bytes.Repeat([]byte{0xee}, size+128)
			c.Encode(text[64:64+size:64+size], src)
			out := bytes.Repeat([]byte{0xee}, n+128)
			if got, err := c.Decode(out[64:64+n:64+n], text[64:64+size]); err != nil || got != n {
				t.Fatalf("%s: %d bytes decoded to %d, %v", name, n, got, err)
			}
			if !bytes.Equal(out[64:64+n], src) {
				t.Fatalf("%s: %d bytes do not round-trip", name, n)
			}
			edge := bytes.Repeat([]byte{0xee}, 64)
			for _, b := range [][]byte{text[:64], text[64+size:], out[:64], out[64+n:]} {
				if !bytes.Equal(b, edge) {
					t.Fatalf("%s: %d bytes: written outside", name, n)
				}
			}
		}
	}
}

// FuzzBase64 holds the gate to the standard strict codec plus its own rule on
// line breaks, and to one encoding for each value.
func FuzzBase64(f *testing.F) {
	f.Add([]byte("82OeZhyYKnyOKEtzUmsW4qhRgSIZ-q8eF376BfMbSjZ6ktVY_cmI5ExTG0ur2YYM9aLo7mMSBObRTnLx9u8RWRB94-ZIprVdYV07-Q"))
	f.Add([]byte("AA=="))
	f.Add(bytes.Repeat([]byte("A/"), 40))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, ok := appendDecoded([]byte("prefix"), text)
		trimmed := text
		if n := len(text); n%4 == 0 && n > 0 && text[n-1] == '=' {
			trimmed = bytes.TrimSuffix(text[:n-1], []byte("="))
		}
		want, err := base64.RawURLEncoding.Strict().DecodeString(string(trimmed))
		if bytes.ContainsAny(trimmed, "\r\n") {
			err = errors.New("line break")
		}
		if ok != (err == nil) {
			t.Fatalf("got %v, the standard codec %v", ok, err)
		}
		if !ok {
			return
		}
		if string(got) != "prefix"+string(want) {
			t.Fatal("decoded to another value")
		}
		if again := appendBase64(nil, want); !bytes.Equal(again, trimmed) {
			t.Fatalf("a second encoding of one value: %q and %q", trimmed, again)
		}
	})
}
