package keystore

import (
	"crypto/cipher"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// The file is one header and one body.
//
//	offset  length  content
//	0       4       "OSKS"
//	4       1       format version, 1
//	5       1       mode: 0 unwrapped, 1 passphrase
//	6       4       argon2id memory in KiB, big-endian (0 when unwrapped)
//	10      4       argon2id passes
//	14      1       argon2id lanes
//	15      1       reserved, 0
//	16      16      salt (zeros when unwrapped)
//	32      24      nonce (zeros when unwrapped)
//	56      n       body: XChaCha20-Poly1305 with the header as AAD, or plain
//
// The plain body is JSON {service: {account: base64 value}}.
const (
	magic         = "OSKS"
	formatVersion = 1
	headerSize    = 56
	saltSize      = 16

	modeUnwrapped  = 0
	modePassphrase = 1
)

// Limits on what a file may ask for, so that a hostile one cannot exhaust the
// machine: 1 GiB and 16 passes are far above what we write.
const (
	MaxFileSize   = 16 << 20
	maxMemoryKiB  = 1 << 20
	maxPasses     = 16
	maxLanes      = 16
	minMemoryKiB  = 8
	defaultMemory = 64 << 10 // KiB; RFC 9106 section 4, second recommendation
	defaultPasses = 3
	defaultLanes  = 4
)

var errFormat = errors.New("keystore file does not have the expected form")

type header struct {
	mode   byte
	memory uint32
	passes uint32
	lanes  uint8
	salt   [saltSize]byte
	nonce  [chacha20poly1305.NonceSizeX]byte
}

func (h header) append(b []byte) []byte {
	b = append(b, magic...)
	b = append(b, formatVersion, h.mode)
	b = binary.BigEndian.AppendUint32(b, h.memory)
	b = binary.BigEndian.AppendUint32(b, h.passes)
	b = append(b, h.lanes, 0)
	b = append(b, h.salt[:]...)
	return append(b, h.nonce[:]...)
}

// parseHeader refuses unknown versions, modes and parameters out of bounds.
func parseHeader(file []byte) (header, []byte, error) {
	var h header
	if len(file) < headerSize || string(file[:4]) != magic || file[4] != formatVersion || file[15] != 0 {
		return h, nil, errFormat
	}
	h.mode = file[5]
	h.memory = binary.BigEndian.Uint32(file[6:])
	h.passes = binary.BigEndian.Uint32(file[10:])
	h.lanes = file[14]
	copy(h.salt[:], file[16:])
	copy(h.nonce[:], file[32:])
	switch h.mode {
	case modeUnwrapped:
		if h != (header{}) {
			return h, nil, errFormat
		}
	case modePassphrase:
		if h.memory < minMemoryKiB || h.memory > maxMemoryKiB || h.passes < 1 || h.passes > maxPasses || h.lanes < 1 || h.lanes > maxLanes {
			return h, nil, errFormat
		}
	default:
		return h, nil, errFormat
	}
	return h, file[headerSize:], nil
}

// deriveKey runs argon2id (RFC 9106) with the header's parameters.
func (h header) deriveKey(passphrase secret.Bytes) secret.Bytes {
	return secret.Take(argon2.IDKey(passphrase.Expose(), h.salt[:], h.passes, h.memory, h.lanes, chacha20poly1305.KeySize))
}

func aead(key secret.Bytes) cipher.AEAD {
	a, err := chacha20poly1305.NewX(key.Expose())
	if err != nil {
		panic("keystore: internal error: " + err.Error())
	}
	return a
}

// sealItems returns the whole file with a fresh nonce.
func sealItems(h header, key secret.Bytes, rand io.Reader, m items) ([]byte, error) {
	plain, err := encodeItems(m)
	if err != nil {
		return nil, err
	}
	if h.mode == modeUnwrapped {
		return append(h.append(nil), plain...), nil
	}
	defer clear(plain)
	if _, err := io.ReadFull(rand, h.nonce[:]); err != nil {
		return nil, err
	}
	head := h.append(nil)
	return aead(key).Seal(head, h.nonce[:], plain, head[:headerSize:headerSize]), nil
}

// openItems reads a whole file. key must be the derived key in passphrase
// mode. Errors: fault.KeystoreLocked when the seal does not open (a wrong
// passphrase and a changed file look the same), fault.KeystoreCorrupt.
func openItems(h header, key secret.Bytes, body []byte) (items, error) {
	if h.mode == modeUnwrapped {
		return decodeItems(body)
	}
	plain, err := aead(key).Open(nil, h.nonce[:], body, h.append(nil))
	if err != nil {
		return nil, fault.New(fault.KeystoreLocked, fmt.Errorf("%w: the one given is wrong, or the file was changed", ErrPassphrase))
	}
	defer clear(plain)
	return decodeItems(plain)
}

func encodeItems(m items) ([]byte, error) {
	out := make(map[string]map[string][]byte, len(m))
	for service, accounts := range m {
		out[service] = make(map[string][]byte, len(accounts))
		for account, v := range accounts {
			out[service][account] = v.Expose()
		}
	}
	return json.Marshal(out)
}

func decodeItems(plain []byte) (items, error) {
	var in map[string]map[string][]byte
	if err := json.Unmarshal(plain, &in); err != nil {
		return nil, fault.New(fault.KeystoreCorrupt, errFormat)
	}
	m := items{}
	for service, accounts := range in {
		for account, v := range accounts {
			m.put(service, account, secret.Take(v))
		}
	}
	return m, nil
}
