package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

type derivationVector struct {
	Name, Master, Kind, Scope, Key, Address, Expect string
	Index                                           uint32
}

func TestDerivationVectors(t *testing.T) {
	t.Parallel()
	var vectors []derivationVector
	readVectors(t, "derivation.json", &vectors)
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			m, err := NewMasterKey(secret.New(unhex(t, v.Master)))
			if v.Expect == "invalid_scalar" {
				if !errors.Is(err, signature.ErrScalar) {
					t.Fatalf("got %v, want ErrScalar", err)
				}
				return
			}
			if err != nil || v.Expect != "success" {
				t.Fatalf("master: %v, expect %q", err, v.Expect)
			}
			checkDerived(t, m, v)
		})
	}
}

func checkDerived(t *testing.T, m MasterKey, v derivationVector) {
	t.Helper()
	var derived role
	switch v.Kind {
	case "master":
		derived = m.role
	case "pairing":
		k, err := m.Pairing()
		if err != nil {
			t.Fatal(err)
		}
		derived = k.role
	case "agent":
		k, err := m.Agent(Path{v.Index, v.Scope})
		if err != nil {
			t.Fatal(err)
		}
		derived = k.role
	default:
		t.Fatalf("unknown kind %q", v.Kind)
	}
	if got := derived.Address().String(); got != v.Address {
		t.Errorf("address %s, want %s", got, v.Address)
	}
	if v.Key == "" {
		return
	}
	want, err := signature.NewKey(secret.New(unhex(t, v.Key)))
	if err != nil {
		t.Fatal(err)
	}
	d := signature.SignedMessage.Digest([]byte("the same key signs the same"))
	if sig, err := derived.Sign(t.Context(), d); err != nil || sig != want.Sign(d) {
		t.Errorf("the derived key is not %s… (%v)", v.Key[:8], err)
	}
}

// known-answers: texts that these keys sign for pairing and owner redeem.
func TestKnownSignatures(t *testing.T) {
	t.Parallel()
	const nonce = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	m := master(t, aliceHex)
	agent, err := m.Agent(Path{})
	if err != nil {
		t.Fatal(err)
	}
	pairing, err := m.Pairing()
	if err != nil {
		t.Fatal(err)
	}
	lower := agent.Address().Lower()
	for _, c := range []struct {
		signer Signer
		domain signature.Domain
		text   string
		want   string
	}{
		{m, signature.SignedMessage, "test payload", "36c7cde34448ae9a1f1eb190dd75b61224ad0c97ba5c5cf3793cc04535e700ec0300d710a8c83aee5365ee09583cd8063def7e5cdb2f6af4f5c42be6402e858e1b"},
		{pairing, signature.SignedPairing, nonce + ":_y7kVgHsG2cxDHeQQEWFrmlzMe7hwfjPJBlzHB__Pms", "813282dbd5cc9e0457f1bb22c3f6007b878ae6aa876288699a67fb212f2dbc3c4ec4cee359f0415a4069870cb5ca5d8d626e1007542b73ea685031213aab291e1c"},
		{agent, signature.PairingServer, "osaurus-pairing-server-v1:" + lower + ":" + nonce, "568b25117dbb20c9e96f228d446bcdf09f6ce8d73f5cdc67bcccacdeb8f148bc1de4b28a32565b2fbbae25d9cbbf1b36773c78b52f885a8d3a6b15ec9107f0e51c"},
		{m, signature.EthereumMessage, "osaurus-owner:redeem:" + lower + ":" + nonce, "0883993e4334c6620bd487dc1700343a267f27b9e91c62f6bd81c401bfd2be164df91224c7e963dac4240342cc46426f731ba8891fe42330cb58716504277f001b"},
	} {
		sig, err := c.signer.Sign(t.Context(), c.domain.Digest([]byte(c.text)))
		if err != nil || sig.Hex() != c.want {
			t.Errorf("%s: got %s (%v), want %s", c.domain, sig.Hex(), err, c.want)
		}
	}
}

// A derived key of zero or not below the order skips the index; nothing else
// does. No real index leads there within reach, so the bytes are given.
func TestDerivedBytesThatAreNoKeySkipTheIndex(t *testing.T) {
	t.Parallel()
	const order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
	for _, bad := range []string{strings.Repeat("00", 32), order, strings.Repeat("ff", 32)} {
		if _, err := keyFrom(unhex(t, bad)); !errors.Is(err, ErrSkipIndex) {
			t.Errorf("%s: got %v, want ErrSkipIndex", bad, err)
		}
	}
	for _, good := range []string{strings.Repeat("00", 31) + "01", order[:63] + "0"} {
		if _, err := keyFrom(unhex(t, good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestPathsDeriveDifferentKeys(t *testing.T) {
	t.Parallel()
	m := master(t, aliceHex)
	seen := map[string]string{m.Address().String(): "master"}
	paths := []Path{{0, ""}, {1, ""}, {0, "a1b2c3d4"}, {1, "a1b2c3d4"}, {0, "a1b2c3d5"}, {0, "a"}, {0, "ab"}, {256, "a"}}
	for _, p := range paths {
		k, err := m.Agent(p)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[k.Address().String()]; ok {
			t.Errorf("%s and %s derive the same key", p, other)
		}
		seen[k.Address().String()] = p.String()
	}
}

func TestDestroyedKeysRefuse(t *testing.T) {
	t.Parallel()
	m, err := NewMasterKey(secret.New(unhex(t, aliceHex)))
	if err != nil {
		t.Fatal(err)
	}
	agent, err := m.Agent(Path{})
	if err != nil {
		t.Fatal(err)
	}
	m.Destroy()
	agent.Destroy()
	d := signature.SignedMessage.Digest(nil)
	for _, k := range []Signer{m, agent, MasterKey{}, AgentKey{}, PairingKey{}} {
		if _, err := k.Sign(t.Context(), d); err == nil {
			t.Errorf("%T signs without a key", k)
		}
	}
	if _, err := m.Agent(Path{}); err == nil || errors.Is(err, ErrSkipIndex) {
		t.Errorf("deriving from a destroyed master: %v", err)
	}
	if _, err := m.Pairing(); err == nil {
		t.Error("the pairing key came from a destroyed master")
	}
	if _, err := m.Phrase(); err == nil {
		t.Error("a destroyed master has a phrase")
	}
	if !m.IsZero() || !agent.IsZero() {
		t.Error("a destroyed key is not zero")
	}
}

func TestSignHonoursTheContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := master(t, aliceHex).Sign(ctx, signature.SignedMessage.Digest(nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestKeysNeverPrint(t *testing.T) {
	t.Parallel()
	m := master(t, aliceHex)
	agent, _ := m.Agent(Path{})
	pairing, _ := m.Pairing()
	created := Created{Phrase: text(alicePhrase), RecoveryCode: text("OSAURUS-0102-0304-0506-0708")}
	for _, v := range []any{m, agent, pairing, &m, &agent, []any{m}, map[string]any{"k": agent}, struct{ K MasterKey }{m}, created} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		if raw, err := json.Marshal(v); err == nil {
			out.Write(raw)
		}
		for _, hidden := range []string{aliceHex[:12], "ac 09 74", "172 9 116", "mango", "0102-0304", "c2ddba76"} {
			if strings.Contains(strings.ToLower(out.String()), hidden) {
				t.Errorf("%T shows %q", v, hidden)
			}
		}
	}
}
