// Package sealed is the .osec file format of decisions D1: a file sealed in
// chunks of AES-256-GCM, bound to its purpose and its name. Format 2 is
// written; format 1 of older hosts is read.
//
// Format 2, all integers big-endian:
//
//	offset  length  content
//	0       4       "OSEC"
//	4       1       0x02
//	5       1       flags, 0x00
//	6       2       zero
//	8       8       key id
//	16      16      random salt
//	32      …       chunks of 65,536 plaintext bytes, each followed by its tag
//
// The file key is HKDF-SHA256(key, salt, "osaurus-osec-v2"). Chunk i has the
// nonce 7 zero bytes ‖ i (4) ‖ last (1) and the additional data header ‖
// purpose ‖ 0x00 ‖ name. Only the last chunk may be short, and it is empty
// only in an empty file. A nonce never repeats under one file key: the salt
// is random and the counter never wraps.
//
// Format 1: 0x01 ‖ nonce (12) ‖ AES-256-GCM under the key itself, with no
// additional data, so its name is not bound.
package sealed

import (
	"errors"

	"osaurus/engine/storage/dek"
)

// Sizes fixed by the format (decisions D1, storage.md section 5).
const (
	HeaderSize = 32
	ChunkSize  = 65536
	TagSize    = 16

	saltSize      = 16
	nonceSize     = 12
	minSize       = HeaderSize + TagSize
	minLegacySize = 1 + nonceSize + TagSize
	maxChunks     = 1 << 32
)

// MaxLegacySize bounds a file of format 1, which has to be opened in one
// piece. Older hosts sealed nothing near it.
const MaxLegacySize = 512 << 20

// Ext is the suffix of sealed files.
const Ext = ".osec"

const (
	magic         = "OSEC"
	version       = 0x02
	legacyVersion = 0x01
)

// Errors of reading. The reason an authentic file was not obtained is told,
// because the reader is the file's owner.
var (
	ErrNotSealed  = errors.New("sealed: not a sealed file")
	ErrTruncated  = errors.New("sealed: truncated")
	ErrHeader     = errors.New("sealed: unsupported version or flags")
	ErrUnknownKey = errors.New("sealed: sealed with a key that is not at hand")
	ErrDamaged    = errors.New("sealed: damaged, or of another name")
	ErrTooLarge   = errors.New("sealed: too large")
)

// Refused reports whether err is about what a file holds, and not about
// reading or writing it.
func Refused(err error) bool {
	for _, kind := range []error{ErrNotSealed, ErrTruncated, ErrHeader, ErrUnknownKey, ErrDamaged, ErrTooLarge} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// Format is what a file's first bytes claim.
type Format uint8

// The formats (decisions D1).
const (
	NotSealed Format = iota
	Legacy           // format 1
	Chunked          // format 2
)

// Detect tells the format from a file's first 5 bytes or more and its size.
func Detect(head []byte, size int64) Format {
	switch {
	case len(head) > len(magic) && string(head[:len(magic)]) == magic && head[len(magic)] == version && size >= minSize:
		return Chunked
	case len(head) > 0 && head[0] == legacyVersion && size >= minLegacySize:
		return Legacy
	}
	return NotSealed
}

// Purpose keeps a file of one use from being taken for another's.
type Purpose string

// The purposes.
const (
	Blob Purpose = "blob" // the name is the 64 hex digits of the content's SHA-256
	JSON Purpose = "json" // the name is the path relative to the root, with slashes
)

// Label is what a sealed file is bound to.
type Label struct {
	Purpose Purpose
	Name    string
}

// buffer has room for a header and what additional appends to it.
func (l Label) buffer() []byte {
	return make([]byte, 0, HeaderSize+len(l.Purpose)+1+len(l.Name))
}

func (l Label) additional(header []byte) []byte {
	return append(append(append(header, l.Purpose...), 0), l.Name...)
}

// Keys are the keys that may have sealed a file, the current one first.
type Keys []dek.Key

func (k Keys) find(id dek.ID) (dek.Key, error) {
	for _, key := range k {
		if !key.IsZero() && key.ID() == id {
			return key, nil
		}
	}
	return dek.Key{}, ErrUnknownKey
}
