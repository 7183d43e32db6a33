// Package identity holds the person's master key and everything derived from
// it: agent keys, the pairing key, the recovery phrase, request tokens and the
// check for drift. PROTOCOL.md beside this file is its specification.
package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"osaurus/engine/address"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

// ErrSkipIndex says that a path derives no valid key (PROTOCOL.md section 2);
// allocation takes the next index. The chance is about 2^-128.
var ErrSkipIndex = errors.New("identity: this index derives no valid key")

// Signer signs domain-separated digests for one address. Implementations may
// ask the owner; they never return the key.
type Signer interface {
	Address() address.Address
	Sign(ctx context.Context, d signature.Digest) (signature.Signature, error)
}

// Path names an agent key: the index, and the 8-hex id of the device that
// minted it. An empty scope means the first derivation (v1).
type Path struct {
	Index uint32 `json:"index"`
	Scope string `json:"scope,omitempty"`
}

// String returns a form for logs and messages.
func (p Path) String() string {
	if p.Scope == "" {
		return fmt.Sprintf("v1/%d", p.Index)
	}
	return fmt.Sprintf("v2/%s/%d", p.Scope, p.Index)
}

// role is what every key type here is made of. Each role is a type of its
// own, so one cannot be passed for another.
type role struct{ key signature.Key }

// Address returns the address of the key.
func (r role) Address() address.Address { return r.key.Address() }

// IsZero reports whether the key was never set or was destroyed.
func (r role) IsZero() bool { return r.key.IsZero() }

// Destroy overwrites the key.
func (r role) Destroy() { r.key.Destroy() }

// Sign implements Signer. It fails on a destroyed key; Destroy must not run
// beside it.
func (r role) Sign(ctx context.Context, d signature.Digest) (signature.Signature, error) {
	if err := ctx.Err(); err != nil {
		return signature.Signature{}, err
	}
	if r.IsZero() {
		return signature.Signature{}, errNoKey
	}
	return r.key.Sign(d), nil
}

// Format prints [redacted] under every verb and flag.
func (r role) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, secret.Redacted) }

// LogValue makes slog record [redacted].
func (r role) LogValue() slog.Value { return slog.StringValue(secret.Redacted) }

// MarshalJSON always fails with secret.ErrSerialise.
func (r role) MarshalJSON() ([]byte, error) { return nil, secret.ErrSerialise }

// MasterKey is the person's root key. The zero value is no key.
type MasterKey struct {
	role
	seed secret.Bytes
}

// AgentKey is the key of one agent.
type AgentKey struct{ role }

// PairingKey is the key a connector signs pairing requests with.
type PairingKey struct{ role }

var (
	_ Signer = MasterKey{}
	_ Signer = AgentKey{}
	_ Signer = PairingKey{}
)

// NewMasterKey copies a 32-byte scalar. Errors: signature.ErrScalar.
func NewMasterKey(seed secret.Bytes) (MasterKey, error) {
	key, err := signature.NewKey(seed)
	if err != nil {
		return MasterKey{}, err
	}
	return MasterKey{role{key}, seed.Clone()}, nil
}

// Destroy overwrites the key.
func (m MasterKey) Destroy() {
	m.role.Destroy()
	m.seed.Destroy()
}

// Agent derives the key at a path: the first 32 bytes of
// HMAC-SHA512(master, label ‖ scope ‖ 0x00 ‖ BE32(index)), v1 without scope
// and separator. Errors: ErrSkipIndex.
func (m MasterKey) Agent(p Path) (AgentKey, error) {
	var message []byte
	if p.Scope == "" {
		message = append(message, labelAgentV1...)
	} else {
		message = append(append(append(message, labelAgentV2...), p.Scope...), 0)
	}
	key, err := m.derive(binary.BigEndian.AppendUint32(message, p.Index))
	return AgentKey{role{key}}, err
}

// StorageMaterial returns the input that the storage key may be derived from
// (storage.md section 4). The caller destroys it.
func (m MasterKey) StorageMaterial() secret.Bytes { return m.seed.Clone() }

// Pairing derives the connector's pairing key. Errors: ErrSkipIndex.
func (m MasterKey) Pairing() (PairingKey, error) {
	key, err := m.derive([]byte(labelPairing))
	return PairingKey{role{key}}, err
}

func (m MasterKey) derive(message []byte) (signature.Key, error) {
	if m.seed.IsZero() {
		return signature.Key{}, errNoKey
	}
	mac := hmac.New(sha512.New, m.seed.Expose())
	mac.Write(message)
	sum := mac.Sum(nil)
	defer clear(sum)
	return keyFrom(sum[:signature.ScalarSize])
}

// keyFrom makes a key of derived bytes. Errors: ErrSkipIndex.
func keyFrom(derived []byte) (signature.Key, error) {
	scalar := secret.New(derived)
	defer scalar.Destroy()
	key, err := signature.NewKey(scalar)
	if err != nil {
		return signature.Key{}, ErrSkipIndex
	}
	return key, nil
}
