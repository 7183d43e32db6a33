package cipher

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // SQLCipher files may ask for it; ours never do
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"hash"
	"unsafe"
)

// The algorithm numbers of SQLCipher 4.
const (
	algorithmSHA1   = 0
	algorithmSHA256 = 1
	algorithmSHA512 = 2
)

const (
	modeDecrypt = 0
	modeEncrypt = 1
)

var errArgument = errors.New("cipher: unsupported argument")

func hashOf(algorithm int) func() hash.Hash {
	switch algorithm {
	case algorithmSHA1:
		return sha1.New
	case algorithmSHA256:
		return sha256.New
	case algorithmSHA512:
		return sha512.New
	}
	return nil
}

// state is what one connection keeps between pages: key schedules and keyed
// MACs, so that a page costs one pass of each. The library calls it from one
// thread at a time.
type state struct {
	encrypt, decrypt pageCipher
	mac              pageMAC
}

// pageCipher is AES-256-CBC under the key it last saw.
type pageCipher struct {
	key  [KeySize]byte
	mode cbcMode
}

// cbcMode is what crypto/cipher's CBC modes are: the IV can be set again.
type cbcMode interface {
	cipher.BlockMode
	SetIV(iv []byte)
}

// crypt transforms in to out, which may be the same memory.
func (s *state) crypt(mode int, key, iv, in, out []byte) error {
	if len(key) != KeySize || len(iv) != aes.BlockSize || len(in)%aes.BlockSize != 0 || mode != modeEncrypt && mode != modeDecrypt {
		return errArgument
	}
	c, build := &s.decrypt, cipher.NewCBCDecrypter
	if mode == modeEncrypt {
		c, build = &s.encrypt, cipher.NewCBCEncrypter
	}
	if c.mode == nil || subtle.ConstantTimeCompare(c.key[:], key) != 1 {
		block, err := aes.NewCipher(key)
		if err != nil {
			return err
		}
		fresh, ok := build(block, iv).(cbcMode)
		if !ok {
			return errArgument
		}
		copy(c.key[:], key)
		c.mode = fresh
	}
	c.mode.SetIV(iv)
	c.mode.CryptBlocks(out, in)
	return nil
}

// pageMAC is HMAC under the key and algorithm it last saw.
type pageMAC struct {
	key       [KeySize]byte
	algorithm int
	keyed     hash.Hash
}

// sum writes the MAC of a and b to out and returns it.
func (s *state) sum(algorithm int, key, a, b, out []byte) ([]byte, error) {
	m := &s.mac
	if m.keyed == nil || m.algorithm != algorithm || subtle.ConstantTimeCompare(m.key[:], key) != 1 {
		h := hashOf(algorithm)
		if h == nil || len(key) != KeySize {
			return nil, errArgument
		}
		copy(m.key[:], key)
		m.algorithm, m.keyed = algorithm, hmac.New(h, key)
	}
	m.keyed.Reset()
	m.keyed.Write(a)
	m.keyed.Write(b)
	return m.keyed.Sum(out[:0]), nil
}

// wipe zeroes the copies of keys it holds. The key schedules inside the
// standard library are left to the collector.
func (s *state) wipe() { *s = state{} }

// derive writes PBKDF2 of password to key.
func derive(algorithm int, password, salt []byte, rounds int, key []byte) error {
	h := hashOf(algorithm)
	if h == nil || rounds < 1 || len(password) == 0 {
		return errArgument
	}
	// The library wants a string; it does not keep it, so the caller's memory
	// is lent rather than copied to where it could not be wiped.
	derived, err := pbkdf2.Key(h, unsafe.String(&password[0], len(password)), salt, rounds, len(key)) //nolint:gosec // as said
	if err != nil {
		return err
	}
	copy(key, derived)
	clear(derived)
	return nil
}
