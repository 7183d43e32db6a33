package pairing

import (
	"crypto/ecdh"
	"crypto/rand"
	"testing"

	"osaurus/engine/address"
	"osaurus/engine/internal/benchratio"
	"osaurus/engine/secret"
)

// BenchmarkSeal is row 2a: HPKE against the X25519 work it contains.
func BenchmarkSeal(b *testing.B) {
	r, pub, err := newRecipient(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	info, key := sealInfo(address.Address{1}, "nonce"), secret.New(make([]byte, 414))
	sealed, err := seal(rand.Reader, pub, info, key)
	if err != nil {
		b.Fatal(err)
	}
	curve := ecdh.X25519()
	private, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("2a seal vs X25519", func(b *testing.B) {
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(1/1.35), func() {
			if _, err := seal(rand.Reader, pub, info, key); err != nil {
				b.Fatal(err)
			}
		}, func() {
			k, err := curve.GenerateKey(rand.Reader)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := k.ECDH(private.PublicKey()); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("2a open vs X25519", func(b *testing.B) {
		benchratio.Compare(b, benchratio.Computing, benchratio.AtLeast(1/1.35), func() {
			if _, err := r.open(sealed, info); err != nil {
				b.Fatal(err)
			}
		}, func() {
			if _, err := private.ECDH(private.PublicKey()); err != nil {
				b.Fatal(err)
			}
		})
	})
}
