package channel

import (
	"crypto/mlkem"
	"io"

	"osaurus/engine/fault"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/secret"
)

// Hybrid is what a client makes of the post-quantum exchange, section 10.
type Hybrid uint8

const (
	// HybridOffered uses it where the peer has it, and insists on it from the
	// first time on.
	HybridOffered Hybrid = iota
	// HybridRequired refuses a handshake without it.
	HybridRequired
	// HybridOff does not offer it.
	HybridOff
)

// offer is the client's ML-KEM-768 key (FIPS 203) for one handshake. Go's type
// keeps the key, so it cannot be overwritten; it is dropped after one use.
type offer struct {
	key   *mlkem.DecapsulationKey768
	pqPub string // b64url, 1184 bytes
}

func newOffer(random io.Reader) (*offer, error) {
	seed, err := secret.Random(random, mlkem.SeedSize)
	if err != nil {
		return nil, err
	}
	defer seed.Destroy()
	key, err := mlkem.NewDecapsulationKey768(seed.Expose())
	if err != nil {
		return nil, err
	}
	return &offer{key, base64url.Encode(key.EncapsulationKey().Bytes())}, nil
}

// accept returns the secret that pqCt carries. A changed one yields another
// secret and no error (FIPS 203 section 6.3). Errors: ErrMalformed for another
// length.
func (o *offer) accept(pqCt string) (secret.Bytes, error) {
	ct, err := base64url.DecodeExact(pqCt, mlkem.CiphertextSize768)
	if err != nil {
		return secret.Bytes{}, ErrMalformed
	}
	shared, err := o.key.Decapsulate(ct)
	if err != nil {
		return secret.Bytes{}, ErrMalformed
	}
	return secret.Take(shared), nil
}

// encapsulate is the server's answer to an offer. Errors:
// fault.HandshakeMalformed for a key that FIPS 203 section 7.2 refuses.
func encapsulate(pqPub string) (shared secret.Bytes, pqCt string, err error) {
	raw, err := base64url.DecodeExact(pqPub, mlkem.EncapsulationKeySize768)
	if err != nil {
		return secret.Bytes{}, "", fault.HandshakeMalformed
	}
	key, err := mlkem.NewEncapsulationKey768(raw)
	if err != nil {
		return secret.Bytes{}, "", fault.HandshakeMalformed
	}
	own, ct := key.Encapsulate()
	return secret.Take(own), base64url.Encode(ct), nil
}

// join is the key schedule's input of a hybrid handshake: X25519 ‖ ML-KEM. It
// destroys both.
func join(classic, quantum secret.Bytes) secret.Bytes {
	defer classic.Destroy()
	defer quantum.Destroy()
	both := append(append(make([]byte, 0, 2*keySize), classic.Expose()...), quantum.Expose()...)
	return secret.Take(both)
}
