package channel

import (
	"crypto/rand"
	"crypto/subtle"
	"io"
	"strconv"
	"time"

	"github.com/cloudflare/circl/dh/x25519"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

// transcript is what the agent signs and the key schedule is salted with.
func transcript(h hello, a answer) []byte {
	t := make([]byte, 0, 256)
	t = append(append(t, transcriptLabel+"|aA="...), h.agent.Lower()...)
	t = append(append(t, "|eC="...), h.encPub...)
	t = append(append(t, "|nC="...), h.nonce...)
	t = append(append(t, "|sid="...), a.sid...)
	t = append(append(t, "|eS="...), a.encPub...)
	t = strconv.AppendInt(append(t, "|exp="...), a.expires, 10)
	if a.hybrid {
		t = append(append(t, "|pP="...), h.pqPub...)
		t = append(append(t, "|pC="...), a.pqCt...)
	}
	return t
}

// ephemeral is one side's key for one handshake. circl's X25519 is used
// because it costs half of crypto/ecdh's here and its scalar can be zeroed.
type ephemeral struct {
	scalar secret.Bytes
	encPub string
}

func newEphemeral(random io.Reader) (ephemeral, error) {
	scalar, err := secret.Random(random, keySize)
	if err != nil {
		return ephemeral{}, err
	}
	var pub x25519.Key
	x25519.KeyGen(&pub, (*x25519.Key)(scalar.Expose()))
	return ephemeral{scalar: scalar, encPub: base64url.Encode(pub[:])}, nil
}

// agree returns the shared secret and destroys the scalar: an ephemeral key
// agrees once. Errors: ErrMalformed for a point that yields zero (RFC 7748
// section 6.1).
func (e ephemeral) agree(peer x25519.Key) (secret.Bytes, error) {
	defer e.scalar.Destroy()
	var shared, zero x25519.Key
	defer clear(shared[:])
	ok := x25519.Shared(&shared, (*x25519.Key)(e.scalar.Expose()), &peer)
	if !ok || subtle.ConstantTimeCompare(shared[:], zero[:]) == 1 {
		return secret.Bytes{}, ErrMalformed
	}
	return secret.New(shared[:]), nil
}

func randomText(random io.Reader, n int) (string, error) {
	if random == nil {
		random = rand.Reader
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", err
	}
	return base64url.Encode(b), nil
}

// initiator is the client in one handshake: newInitiator, send hello, finish
// with the reply or drop it. Not safe for concurrent use.
type initiator struct {
	hello hello
	key   ephemeral
	offer *offer // nil when none is made
}

func newInitiator(pinned address.Address, random io.Reader) (*initiator, error) {
	key, err := newEphemeral(random)
	if err != nil {
		return nil, err
	}
	nonce, err := randomText(random, helloSize)
	if err != nil {
		key.scalar.Destroy()
		return nil, err
	}
	return &initiator{hello: hello{agent: pinned, encPub: key.encPub, nonce: nonce}, key: key}, nil
}

// propose adds the post-quantum exchange to the hello.
func (i *initiator) propose(random io.Reader) (err error) {
	if i.offer, err = newOffer(random); err == nil {
		i.hello.pqPub = i.offer.pqPub
	}
	return err
}

// drop destroys the ephemeral key of a handshake that will not finish.
func (i *initiator) drop() { i.key.scalar.Destroy() }

// finish proves that the pinned agent answered this hello, and returns the
// session's keys and expiry in Unix seconds. It works once. Errors:
// ErrMalformed, ErrVersion, ErrSignature, *IdentityMismatch.
func (i *initiator) finish(data []byte, now time.Time) (*keys, int64, error) {
	defer i.drop()
	a, err := parseAnswer(data)
	if err != nil {
		return nil, 0, err
	}
	if left := a.expires - now.Unix(); a.expires < 0 || left < 0 || left > maxLifetime {
		return nil, 0, ErrMalformed
	}
	a.hybrid = a.hybrid && i.offer != nil // else it is a member that nobody asked for
	var quantum secret.Bytes
	if a.hybrid {
		if quantum, err = i.offer.accept(a.pqCt); err != nil {
			return nil, 0, err
		}
		defer quantum.Destroy()
	}
	t := transcript(i.hello, a)
	signer, err := signature.Recover(signature.SecureChannel.Digest(t), a.sig)
	if err != nil {
		return nil, 0, ErrSignature
	}
	if signer != i.hello.agent {
		return nil, 0, &IdentityMismatch{Want: i.hello.agent, Got: signer}
	}
	shared, err := i.key.agree(a.pub)
	if err != nil {
		return nil, 0, err
	}
	if a.hybrid {
		shared = join(shared, quantum)
	}
	defer shared.Destroy()
	k := newKeys(shared, t, a.sid)
	k.hybrid = a.hybrid
	return k, a.expires, nil
}

// responder is the server in one handshake: newResponder, have digest signed,
// finish or drop it. Not safe for concurrent use.
type responder struct {
	answer     answer
	transcript []byte
	shared     secret.Bytes
}

// newResponder agrees on the secret with the client of h. Errors:
// fault.HandshakeMalformed, or what random returns.
func newResponder(h hello, now time.Time, random io.Reader) (*responder, error) {
	key, err := newEphemeral(random)
	if err != nil {
		return nil, err
	}
	shared, err := key.agree(h.pub)
	if err != nil {
		return nil, fault.HandshakeMalformed
	}
	sid, err := randomText(random, sidSize)
	if err != nil {
		shared.Destroy()
		return nil, err
	}
	a := answer{encPub: key.encPub, sid: sid, expires: now.Add(sessionLifetime).Unix()}
	if h.pqPub != "" {
		var quantum secret.Bytes
		if quantum, a.pqCt, err = encapsulate(h.pqPub); err != nil {
			shared.Destroy()
			return nil, err
		}
		a.hybrid, shared = true, join(shared, quantum)
	}
	return &responder{answer: a, transcript: transcript(h, a), shared: shared}, nil
}

// digest is what the agent's key has to sign.
func (r *responder) digest() signature.Digest { return signature.SecureChannel.Digest(r.transcript) }

// drop destroys the secret of a handshake that will not finish.
func (r *responder) drop() { r.shared.Destroy() }

// finish returns the reply and the session's keys. It works once.
func (r *responder) finish(sig signature.Signature) ([]byte, *keys) {
	defer r.drop()
	r.answer.sig = sig
	return r.answer.append(make([]byte, 0, 384)), newKeys(r.shared, r.transcript, r.answer.sid)
}
