package signature

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// cases of key and digest that TestBlindedBytes compares.
const blindedCases = 10_000

func scalarOf(t testing.TB, raw *[32]byte) secp256k1.ModNScalar {
	t.Helper()
	var s secp256k1.ModNScalar
	if s.SetBytes(raw) != 0 || s.IsZero() {
		t.Fatal("the test drew no scalar")
	}
	return s
}

// TestBlindedBytes compares with the library's own signature, byte by byte.
func TestBlindedBytes(t *testing.T) {
	t.Parallel()
	source := rand.NewChaCha8([32]byte{1})
	cases := blindedCases
	if testing.Short() {
		cases /= 10
	}
	for i := range cases {
		var raw, digest [32]byte
		_, _ = source.Read(raw[:])
		_, _ = source.Read(digest[:])
		switch i {
		case 0:
			raw = [32]byte{31: 1} // the smallest key
		case 1:
			raw = groupOrderMinus(1) // the largest
		case 2:
			digest = [32]byte{}
		case 3:
			digest = groupOrderMinus(0) // reduces to zero
		case 4:
			for j := range digest {
				digest[j] = 0xff
			}
		}
		key := scalarOf(t, &raw)
		want := ecdsa.SignCompact(secp256k1.NewPrivateKey(&key), digest[:], false)
		got := signBlinded(&key, &digest)
		if [64]byte(got[:64]) != [64]byte(want[1:]) || got[64] != want[0] {
			t.Fatalf("case %d: the bytes differ from the library's", i)
		}
	}
}

func groupOrderMinus(n byte) [32]byte {
	order := [32]byte(secp256k1.Params().N.Bytes())
	order[31] -= n
	return order
}

// TestBlindingIsFresh: the shares of one nonce differ each time and still give
// one point and one inverse.
func TestBlindingIsFresh(t *testing.T) {
	t.Parallel()
	raw := [32]byte{0: 0x11, 31: 0x77}
	k := scalarOf(t, &raw)
	var want secp256k1.JacobianPoint
	secp256k1.ScalarBaseMultNonConst(&k, &want)
	want.ToAffine()
	seen := map[[32]byte]bool{}
	for range 64 {
		s := randomScalar()
		if b := s.Bytes(); seen[b] {
			t.Fatal("a blinding scalar came twice")
		} else {
			seen[b] = true
		}
		if got := blindedPoint(&k); !got.X.Equals(&want.X) || !got.Y.Equals(&want.Y) {
			t.Fatal("the shares give another point")
		}
		inverse := blindedInverse(&k)
		if one := inverse.Mul(&k).Bytes(); one != [32]byte{31: 1} {
			t.Fatal("k times its inverse is not 1")
		}
	}
}

// TestNoSignatureFromZero: a nonce whose point is at infinity is refused.
func TestNoSignatureFromZero(t *testing.T) {
	t.Parallel()
	raw := [32]byte{31: 9}
	key := scalarOf(t, &raw)
	var zero secp256k1.ModNScalar
	if _, ok := signWith(&key, &zero, &[32]byte{1}); ok {
		t.Error("a zero nonce made a signature")
	}
}

func BenchmarkSign(b *testing.B) {
	raw := [32]byte{0: 0x42, 31: 1}
	key := scalarOf(b, &raw)
	digest := [32]byte{1}
	b.Run("blinded", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			signBlinded(&key, &digest)
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		priv := secp256k1.NewPrivateKey(&key)
		for b.Loop() {
			ecdsa.SignCompact(priv, digest[:], false)
		}
	})
}

// leakBound is the |t| above which Welch's test calls two timings different
// (ISO/IEC 17825); leakSamples are taken of each kind.
const (
	leakBound   = 4.5
	leakSamples = 50_000
)

// BenchmarkNonceLeak times signatures with nonces of 64 bits among ordinary
// ones, in random order, and reports Welch's t: it stays below the bound for
// ours, and finds the difference in the same work done unblinded.
func BenchmarkNonceLeak(b *testing.B) {
	raw := [32]byte{0: 0x42, 31: 1}
	key := scalarOf(b, &raw)
	digest := [32]byte{1}
	for _, c := range []struct {
		name string
		do   func(nonce *secp256k1.ModNScalar)
	}{
		{"blinded", func(k *secp256k1.ModNScalar) { signWith(&key, k, &digest) }},
		{"unblinded", func(k *secp256k1.ModNScalar) {
			var p secp256k1.JacobianPoint
			secp256k1.ScalarBaseMultNonConst(k, &p)
			p.ToAffine()
			new(secp256k1.ModNScalar).InverseValNonConst(k)
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				score := welch(c.do)
				b.ReportMetric(score, "t")
				b.ReportMetric(leakBound, "bound")
			}
		})
	}
}

func welch(do func(nonce *secp256k1.ModNScalar)) float64 {
	source := rand.NewChaCha8([32]byte{2})
	var kinds [2]moments
	for kinds[0].n < leakSamples || kinds[1].n < leakSamples {
		var raw [32]byte
		_, _ = source.Read(raw[:])
		kind := raw[0] & 1
		if kind == 1 {
			clear(raw[:24])
		}
		binary.BigEndian.PutUint64(raw[24:], source.Uint64()|1)
		var k secp256k1.ModNScalar
		if k.SetBytes(&raw) != 0 {
			continue
		}
		start := time.Now()
		do(&k)
		kinds[kind].add(min(float64(time.Since(start)), 200e3)) // pauses of the machine are no signal
	}
	a, b := kinds[0], kinds[1]
	return (a.mean - b.mean) / math.Sqrt(a.variance()/a.n+b.variance()/b.n)
}

// moments is Welford's running mean and variance.
type moments struct{ n, mean, m2 float64 }

func (m *moments) add(x float64) {
	m.n++
	d := x - m.mean
	m.mean += d / m.n
	m.m2 += d * (x - m.mean)
}

func (m *moments) variance() float64 { return m.m2 / (m.n - 1) }
