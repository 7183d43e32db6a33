package channel

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"

	"osaurus/engine/secret"
)

// sealed hides a cipher, and the key inside it, from fmt and reflection. A
// nil sealed has been destroyed.
type sealed func() cipher.AEAD

func newSealed(key []byte) sealed {
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		panic("channel: internal error: " + err.Error()) // the key has another length
	}
	return func() cipher.AEAD { return aead }
}

// keys is one session's traffic secrets, the same on both sides. Safe for
// concurrent use.
type keys struct {
	sid    string // as the server wrote it
	hybrid bool   // the post-quantum exchange took part

	mu       sync.Mutex
	requests sealed       // client to server
	replies  secret.Bytes // HKDF's extracted key: each reply key is one expansion of it
}

// newKeys is the key schedule, section 3. ikm, which the caller destroys, is
// the X25519 secret, and in a hybrid handshake ML-KEM's after it (section 10).
func newKeys(ikm secret.Bytes, transcript []byte, sid string) *keys {
	salt := sha256.Sum256(transcript)
	prk := extract(ikm.Expose(), salt[:])
	defer clear(prk)
	c2s, s2c := expand(prk, requestsLabel), expand(prk, repliesLabel)
	defer clear(c2s)
	defer clear(s2c)
	return &keys{sid: sid, requests: newSealed(c2s), replies: secret.Take(extract(s2c, nil))}
}

// extract and expand are the two halves of HKDF-SHA256 (RFC 5869). The caller
// clears the result.
func extract(ikm, salt []byte) []byte {
	prk, err := hkdf.Extract(sha256.New, ikm, salt)
	if err != nil {
		panic("channel: internal error: " + err.Error()) // lengths are constants
	}
	return prk
}

func expand(prk []byte, info string) []byte {
	key, err := hkdf.Expand(sha256.New, prk, info, keySize)
	if err != nil {
		panic("channel: internal error: " + err.Error()) // lengths are constants
	}
	return key
}

// destroy makes every later use of the session fail. Answers that began go on.
func (k *keys) destroy() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.requests = nil
	k.replies.Destroy()
}

// cipher returns the request cipher, nil once destroyed.
func (k *keys) cipher() sealed {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.requests
}

// replyKey derives the cipher of the answer to request seq, nil once
// destroyed.
func (k *keys) replyKey(seq uint64) sealed {
	var prk [keySize]byte
	defer clear(prk[:])
	k.mu.Lock()
	n := copy(prk[:], k.replies.Expose())
	k.mu.Unlock()
	if n == 0 {
		return nil
	}
	key := expand(prk[:], replyKeyLabel+strconv.FormatUint(seq, 10))
	defer clear(key)
	return newSealed(key)
}

// setNonce writes four zero bytes ‖ BE64(seq).
func setNonce(n *[nonceSize]byte, seq uint64) {
	clear(n[:4])
	binary.BigEndian.PutUint64(n[4:], seq)
}

// appendRequestAAD writes osaurus-sc1:req:<sid>:<seq>.
func appendRequestAAD(dst []byte, sid string, seq uint64) []byte {
	dst = append(append(append(dst, requestAAD...), sid...), ':')
	return strconv.AppendUint(dst, seq, 10)
}
