package relay

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"osaurus/engine/relay/wire"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

// TestVectors reads the fixed cases of PROTOCOL.md section 2 and section 6.
func TestVectors(t *testing.T) {
	t.Parallel()
	var v struct {
		Proof struct {
			PrivateKey, Address, Nonce, Signature string
			Timestamp                             int64
			TextBytes                             int
		}
		Requests []struct{ Name, Path, Expect string }
	}
	raw, err := os.ReadFile(filepath.Join("testdata", "vectors", "tunnel.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	p := v.Proof
	if got := len(wire.Text(p.Address, p.Nonce, p.Timestamp)); got != p.TextBytes {
		t.Errorf("the text has %d bytes, want %d", got, p.TextBytes)
	}
	seed, err := hex.DecodeString(p.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := signature.NewKey(secret.New(seed))
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	if got := key.Sign(wire.TextDigest(p.Address, p.Nonce, p.Timestamp)).String(); got != p.Signature {
		t.Errorf("signature %s, want %s", got, p.Signature)
	}
	agent := newKeys(t, 1).list[0]
	for _, q := range v.Requests {
		_, err := buildRequest(t.Context(), wire.Frame{Method: "GET", Path: q.Path}, agent)
		if (err == nil) != (q.Expect == "success") {
			t.Errorf("%s: %v, want %s", q.Name, err, q.Expect)
		}
	}
}
