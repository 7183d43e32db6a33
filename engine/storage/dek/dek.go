// Package dek holds the data-encryption key of the stores: its type, its id,
// the keys derived from it, and its life in the keystore under the names that
// existing hosts use (storage.md sections 4 and 9, decisions D1 to D3).
package dek

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"osaurus/engine/secret"
)

// Sizes fixed by the formats on disk.
const (
	Size     = 32 // a key
	IDSize   = 8  // a key id
	SaltSize = 32 // the salt of a key derived from the master
)

// HKDF labels, one for each use (decisions D1, D2, D5; storage.md section 4).
const (
	labelID       = "osaurus-key-id"
	labelJournal  = "osaurus-journal-v1"
	labelManifest = "osaurus-manifest-v1"
	labelFile     = "osaurus-osec-v2"
	labelMaster   = "osaurus-storage-v1"
)

// Errors of New, ParseID and Derive.
var (
	ErrKeySize  = errors.New("dek: want 32 bytes")
	ErrIDFormat = errors.New("dek: want 16 lower-case hex digits")
	ErrSalt     = errors.New("dek: want a salt of 32 bytes")
)

// ID names a key without telling anything about it: the first 8 bytes of
// HKDF-SHA256(key, no salt, "osaurus-key-id").
type ID [IDSize]byte

// String returns 16 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether no key is named.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText writes the form of String, and nothing for the zero id.
func (id ID) MarshalText() ([]byte, error) {
	if id.IsZero() {
		return nil, nil
	}
	return []byte(id.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*id = ID{}
		return nil
	}
	parsed, err := ParseID(string(text))
	if err == nil {
		*id = parsed
	}
	return err
}

// ParseID reads exactly what String writes. The error never contains s.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*IDSize {
		return ID{}, ErrIDFormat
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, ErrIDFormat
	}
	return id, nil
}

// Key is a data-encryption key. Copies share their memory. The zero key is no
// key: every derivation from it panics.
type Key struct {
	bytes secret.Bytes
	id    ID
}

// New takes ownership of b.
func New(b secret.Bytes) (Key, error) {
	if b.Len() != Size {
		b.Destroy()
		return Key{}, ErrKeySize
	}
	k := Key{bytes: b}
	copy(k.id[:], k.derive(nil, labelID, IDSize))
	return k, nil
}

// Generate returns a fresh key read from rand, crypto/rand when nil.
func Generate(rand io.Reader) (Key, error) {
	b, err := secret.Random(rand, Size)
	if err != nil {
		return Key{}, err
	}
	return New(b)
}

// Derive returns the key that belongs to a master key and a salt (storage.md
// section 4). It keeps neither.
func Derive(master secret.Bytes, salt []byte) (Key, error) {
	if len(salt) != SaltSize {
		return Key{}, ErrSalt
	}
	if master.Len() != Size {
		return Key{}, ErrKeySize
	}
	b, err := hkdf.Key(sha256.New, master.Expose(), salt, labelMaster, Size)
	if err != nil {
		return Key{}, err
	}
	return New(secret.Take(b))
}

// ID returns the key's name.
func (k Key) ID() ID { return k.id }

// IsZero reports whether there is no key: never set, or destroyed.
func (k Key) IsZero() bool { return k.bytes.IsZero() }

// Equal compares in constant time.
func (k Key) Equal(other Key) bool { return k.bytes.Equal(other.bytes) }

// Bytes returns the key itself: what SQLCipher is given, what the keystore
// keeps. It shares the key's memory.
func (k Key) Bytes() secret.Bytes { return k.bytes }

// Clone returns an independent copy.
func (k Key) Clone() Key { return Key{bytes: k.bytes.Clone(), id: k.id} }

// Destroy zeroes the key and all its copies that are not clones.
func (k Key) Destroy() { k.bytes.Destroy() }

// File returns the AES-256-GCM of one sealed file of format 2 (decisions D1).
func (k Key) File(salt []byte) (cipher.AEAD, error) {
	b := k.derive(salt, labelFile, Size)
	defer clear(b)
	return gcm(b)
}

// LegacyFile returns the AES-256-GCM of sealed files of format 1, whose key is
// the key itself (storage.md section 5).
func (k Key) LegacyFile() (cipher.AEAD, error) { return gcm(k.bytes.Expose()) }

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Journal derives the key of the operation journal's MAC (decisions D2).
func (k Key) Journal() secret.Bytes { return secret.Take(k.derive(nil, labelJournal, Size)) }

// Manifest derives the key of the manifest's MAC (decisions D5).
func (k Key) Manifest() secret.Bytes { return secret.Take(k.derive(nil, labelManifest, Size)) }

func (k Key) derive(salt []byte, label string, n int) []byte {
	if k.bytes.IsZero() {
		panic("dek: internal error: deriving from no key")
	}
	b, err := hkdf.Key(sha256.New, k.bytes.Expose(), salt, label, n)
	if err != nil {
		panic("dek: internal error: " + err.Error()) // only for lengths beyond 255 hashes
	}
	return b
}
