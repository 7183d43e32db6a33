package pairing

import (
	"bytes"
	"crypto/ecdh"
	"errors"
	"io"

	"github.com/cloudflare/circl/hpke"

	"osaurus/engine/address"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/secret"
)

// suite is DHKEM(X25519, HKDF-SHA256) / HKDF-SHA256 / ChaCha20-Poly1305 in
// base mode (RFC 9180).
var suite = hpke.NewSuite(hpke.KEM_X25519_HKDF_SHA256, hpke.KDF_HKDF_SHA256, hpke.AEAD_ChaCha20Poly1305)

// Sealed is one HPKE message, as it stands in the reply.
type Sealed struct {
	Enc string `json:"enc"`
	CT  string `json:"ct"`
}

var (
	errEncPub = errors.New("pairing: not an X25519 public key, or of low order")
	errSealed = errors.New("pairing: the sealed key does not open")
)

// encPub is a checked X25519 public key.
type encPub struct{ raw [encPubSize]byte }

// probe is any scalar: a public key of low order gives zero with all of them.
var probe = func() *ecdh.PrivateKey {
	k, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{0x42}, encPubSize))
	if err != nil {
		panic("pairing: internal error: " + err.Error())
	}
	return k
}()

// parseEncPub refuses keys of another length and of low order (RFC 7748
// section 6.1: the result of the exchange is all zero).
func parseEncPub(s string) (encPub, error) {
	raw, err := base64url.DecodeExact(s, encPubSize)
	if err != nil {
		return encPub{}, errEncPub
	}
	pub, err := ecdh.X25519().NewPublicKey(raw)
	if err != nil {
		return encPub{}, errEncPub
	}
	if _, err := probe.ECDH(pub); err != nil {
		return encPub{}, errEncPub
	}
	return encPub{[encPubSize]byte(raw)}, nil
}

func sealInfo(agent address.Address, nonce string) []byte {
	return []byte(infoPrefix + agent.Lower() + ":" + nonce)
}

// seal encrypts an access key to pub.
func seal(rand io.Reader, pub encPub, info []byte, key secret.Bytes) (Sealed, error) {
	public, err := hpke.KEM_X25519_HKDF_SHA256.Scheme().UnmarshalBinaryPublicKey(pub.raw[:])
	if err != nil {
		return Sealed{}, err
	}
	sender, err := suite.NewSender(public, info)
	if err != nil {
		return Sealed{}, err
	}
	enc, sealer, err := sender.Setup(rand)
	if err != nil {
		return Sealed{}, err
	}
	ct, err := sealer.Seal(key.Expose(), nil)
	if err != nil {
		return Sealed{}, err
	}
	return Sealed{Enc: base64url.Encode(enc), CT: base64url.Encode(ct)}, nil
}

// recipient is the connector's one-time key pair for one delivery.
type recipient struct{ private secret.Bytes }

func newRecipient(rand io.Reader) (recipient, encPub, error) {
	private, err := secret.Random(rand, encPubSize)
	if err != nil {
		return recipient{}, encPub{}, err
	}
	key, err := ecdh.X25519().NewPrivateKey(private.Expose())
	if err != nil {
		return recipient{}, encPub{}, err
	}
	return recipient{private}, encPub{[encPubSize]byte(key.PublicKey().Bytes())}, nil
}

// open decrypts what seal made. Every failure looks the same.
func (r recipient) open(s Sealed, info []byte) (secret.Bytes, error) {
	enc, err1 := base64url.DecodeExact(s.Enc, encPubSize)
	ct, err2 := base64url.Decode(s.CT)
	private, err3 := hpke.KEM_X25519_HKDF_SHA256.Scheme().UnmarshalBinaryPrivateKey(r.private.Expose())
	if errors.Join(err1, err2, err3) != nil {
		return secret.Bytes{}, errSealed
	}
	receiver, err := suite.NewReceiver(private, info)
	if err != nil {
		return secret.Bytes{}, errSealed
	}
	opener, err := receiver.Setup(enc)
	if err != nil {
		return secret.Bytes{}, errSealed
	}
	plain, err := opener.Open(ct, nil)
	if err != nil {
		return secret.Bytes{}, errSealed
	}
	return secret.Take(plain), nil
}

func base64urlOf(p encPub) string { return base64url.Encode(p.raw[:]) }
