package server

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/unicode"
)

// mark is the byte order mark in UTF-8.
var mark = []byte("\ufeff")

// decode reads a body as UTF-8 text: a mark at its start is dropped, what is
// not valid becomes U+FFFD (relay.md section 5).
func decode(body []byte) string { return lossy(bytes.TrimPrefix(body, mark)) }

// lossy replaces as the encoding standard does, once for each maximal part of
// a character, where Go would for each byte.
func lossy(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	text, err := unicode.UTF8.NewDecoder().Bytes(b)
	if err != nil {
		return strings.ToValidUTF8(string(b), "\ufffd") // it returns none
	}
	return string(text)
}

// fromLatin1 reads a header's bytes as the platform API that hosts were
// written against does, each as one character.
func fromLatin1(s string) string {
	if ascii(s) {
		return s
	}
	out := make([]rune, len(s))
	for i := range len(s) {
		out[i] = rune(s[i])
	}
	return string(out)
}

// toLatin1 is the reverse; ok is false where a character is no byte.
func toLatin1(s string) (out string, ok bool) {
	if ascii(s) {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			return "", false
		}
		b = append(b, byte(r))
	}
	return string(b), true
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
