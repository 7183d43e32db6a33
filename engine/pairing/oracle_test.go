package pairing

import (
	"crypto/ecdh"
	"crypto/rand"
)

func ecdhX25519() ecdh.Curve { return ecdh.X25519() }

type randReader struct{}

func (randReader) Read(p []byte) (int, error) { return rand.Read(p) }
