package channel

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/cloudflare/circl/dh/x25519"
	"golang.org/x/crypto/chacha20poly1305"

	"osaurus/engine/secret"
)

// wycheproof runs one file of Project Wycheproof and returns how many tests
// ran.
func wycheproof[T, G any](t *testing.T, name string, run func(t *testing.T, group G, test T)) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "wycheproof", name))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		NumberOfTests int
		TestGroups    []json.RawMessage
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, raw := range file.TestGroups {
		var group G
		var tests struct{ Tests []T }
		if err := json.Unmarshal(raw, &group); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &tests); err != nil {
			t.Fatal(err)
		}
		for _, test := range tests.Tests {
			run(t, group, test)
			ran++
		}
	}
	if ran != file.NumberOfTests || ran == 0 {
		t.Errorf("%d tests ran of %d", ran, file.NumberOfTests)
	}
}

// TestWycheproofX25519 also holds agree to crypto/ecdh, zero results included.
func TestWycheproofX25519(t *testing.T) {
	t.Parallel()
	type test struct {
		TcID                    int
		Public, Private, Shared string
		Result                  string
	}
	wycheproof(t, "x25519_test.json", func(t *testing.T, _ struct{}, x test) {
		pub, shared := x25519.Key(unhex(t, x.Public)), unhex(t, x.Shared)
		zero := bytes.Equal(shared, make([]byte, keySize))
		got, err := ephemeral{scalar: secret.New(unhex(t, x.Private))}.agree(pub)
		if zero != (err != nil) || (!zero && !bytes.Equal(got.Expose(), shared)) {
			t.Errorf("%d (%s): %v", x.TcID, x.Result, err)
		}
		priv, err := ecdh.X25519().NewPrivateKey(unhex(t, x.Private))
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := ecdh.X25519().NewPublicKey(pub[:])
		if err != nil {
			t.Fatal(err)
		}
		if want, err := priv.ECDH(theirs); zero != (err != nil) || (!zero && !bytes.Equal(want, shared)) {
			t.Errorf("%d: crypto/ecdh differs: %v", x.TcID, err)
		}
	})
}

// TestX25519AgainstStandard compares the two implementations on random keys.
func TestX25519AgainstStandard(t *testing.T) {
	t.Parallel()
	for range 500 {
		var raw [2 * keySize]byte
		if _, err := rand.Read(raw[:]); err != nil {
			t.Fatal(err)
		}
		e, err := newEphemeral(bytes.NewReader(raw[:keySize]))
		if err != nil {
			t.Fatal(err)
		}
		priv, err := ecdh.X25519().NewPrivateKey(raw[:keySize])
		if err != nil {
			t.Fatal(err)
		}
		pub, err := parseKey(e.encPub)
		if err != nil || !bytes.Equal(pub[:], priv.PublicKey().Bytes()) {
			t.Fatal("public keys differ")
		}
		theirs, err := ecdh.X25519().NewPublicKey(raw[keySize:]) // any 32 bytes are a point
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.agree(x25519.Key(raw[keySize:]))
		if err != nil {
			t.Fatal(err)
		}
		if want, err := priv.ECDH(theirs); err != nil || !bytes.Equal(got.Expose(), want) {
			t.Fatal("secrets differ")
		}
	}
}

func TestWycheproofChaCha20Poly1305(t *testing.T) {
	t.Parallel()
	type test struct {
		TcID                               int
		Key, IV, AAD, Msg, CT, Tag, Result string
	}
	wycheproof(t, "chacha20_poly1305_test.json", func(t *testing.T, _ struct{}, x test) {
		iv := unhex(t, x.IV)
		if len(iv) != nonceSize {
			if x.Result != "invalid" {
				t.Errorf("%d: nonce of %d bytes", x.TcID, len(iv))
			}
			return // no such nonce can be formed here
		}
		aead, err := chacha20poly1305.New(unhex(t, x.Key))
		if err != nil {
			t.Fatal(err)
		}
		whole := append(unhex(t, x.CT), unhex(t, x.Tag)...)
		got, err := aead.Open(nil, iv, whole, unhex(t, x.AAD))
		if (err == nil) != (x.Result == "valid") || (err == nil && !bytes.Equal(got, unhex(t, x.Msg))) {
			t.Errorf("%d: open: %v", x.TcID, err)
		}
		if x.Result == "valid" && !bytes.Equal(aead.Seal(nil, iv, unhex(t, x.Msg), unhex(t, x.AAD)), whole) {
			t.Errorf("%d: seal differs", x.TcID)
		}
	})
}

func TestWycheproofHKDF(t *testing.T) {
	t.Parallel()
	type test struct {
		TcID                         int
		IKM, Salt, Info, OKM, Result string
		Size                         int
	}
	wycheproof(t, "hkdf_sha256_test.json", func(t *testing.T, _ struct{}, x test) {
		if x.Size == keySize && x.Result == "valid" {
			prk := extract(unhex(t, x.IKM), unhex(t, x.Salt))
			if got := expand(prk, string(unhex(t, x.Info))); !bytes.Equal(got, unhex(t, x.OKM)) {
				t.Errorf("%d: extract and expand differ", x.TcID)
			}
		}
		got, err := hkdf.Key(sha256.New, unhex(t, x.IKM), unhex(t, x.Salt), string(unhex(t, x.Info)), x.Size)
		if (err == nil) != (x.Result == "valid") || (err == nil && !bytes.Equal(got, unhex(t, x.OKM))) {
			t.Errorf("%d: %v", x.TcID, err)
		}
	})
}
