package signature

import (
	"crypto/rand"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// signBlinded makes the deterministic, low-S signature of RFC 6979 and BIP 62
// over a digest: r, s and 27 + the recovery bit. The library's point
// multiplication and inversion take longer for longer scalars, so neither ever
// sees the nonce: the point is the sum of two that belong to random shares of
// it, and what is inverted is its product with a random factor. The bytes are
// those of the library's SignCompact.
func signBlinded(key *secp256k1.ModNScalar, digest *[32]byte) Signature {
	var raw [ScalarSize]byte
	key.PutBytes(&raw)
	defer clear(raw[:])
	for iteration := uint32(0); ; iteration++ {
		nonce := secp256k1.NonceRFC6979(raw[:], digest[:], nil, nil, iteration)
		sig, ok := signWith(key, nonce, digest)
		nonce.Zero()
		if ok {
			return sig
		}
	}
}

// signWith is one round of signBlinded; ok is false for the nonces, never met
// in practice, that make no signature.
func signWith(key, nonce *secp256k1.ModNScalar, digest *[32]byte) (sig Signature, ok bool) {
	point := blindedPoint(nonce)
	var r, e, s secp256k1.ModNScalar
	defer s.Zero()
	var x [32]byte
	point.X.PutBytes(&x)
	overflow := r.SetBytes(&x)
	if r.IsZero() {
		return Signature{}, false
	}
	odd := byte(0)
	if point.Y.IsOdd() {
		odd = 1
	}
	e.SetBytes(digest)
	inverse := blindedInverse(nonce)
	defer inverse.Zero()
	s.Mul2(key, &r).Add(&e).Mul(&inverse)
	if s.IsZero() {
		return Signature{}, false
	}
	if s.IsOverHalfOrder() {
		s.Negate()
		odd ^= 1
	}
	r.PutBytesUnchecked(sig[:32])
	s.PutBytesUnchecked(sig[32:64])
	sig[64] = 27 + byte(overflow<<1) + odd
	return sig, true
}

// blindedPoint returns k·G in affine coordinates.
func blindedPoint(k *secp256k1.ModNScalar) secp256k1.JacobianPoint {
	var one, other secp256k1.JacobianPoint
	share := randomScalar()
	defer share.Zero()
	var rest secp256k1.ModNScalar
	defer rest.Zero()
	rest.NegateVal(&share).Add(k)
	secp256k1.ScalarBaseMultNonConst(&share, &one)
	secp256k1.ScalarBaseMultNonConst(&rest, &other)
	var sum secp256k1.JacobianPoint
	secp256k1.AddNonConst(&one, &other, &sum)
	sum.ToAffine()
	return sum
}

// blindedInverse returns k⁻¹ = b·(k·b)⁻¹ for a random b.
func blindedInverse(k *secp256k1.ModNScalar) secp256k1.ModNScalar {
	factor := randomScalar()
	defer factor.Zero()
	var inverse secp256k1.ModNScalar
	inverse.Mul2(k, &factor).InverseNonConst()
	inverse.Mul(&factor)
	return inverse
}

// randomScalar is uniform over the non-zero scalars. Reading random bytes
// cannot fail: crypto/rand ends the process instead.
func randomScalar() secp256k1.ModNScalar {
	var raw [ScalarSize]byte
	defer clear(raw[:])
	for {
		_, _ = rand.Read(raw[:]) // documented never to fail
		var s secp256k1.ModNScalar
		if s.SetBytes(&raw) == 0 && !s.IsZero() {
			return s
		}
	}
}
