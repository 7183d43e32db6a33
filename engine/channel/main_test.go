package channel

import (
	"context"
	"math/rand/v2"
	"net/http"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

func TestMain(m *testing.M) {
	if os.Getenv(readerEnv) != "" {
		readAnswers()
		return
	}
	// Idle connections of the shared transports end with the process.
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		for _, base := range []http.RoundTripper{http.DefaultTransport, defaultBase()} {
			base.(*http.Transport).CloseIdleConnections()
		}
		os.Exit(code)
	}))
}

// alice and bob are agents of known-answers.md.
const (
	alice = "c2ddba76f071d8115d12d4a8e4d9df7c460aa6ae4f4a59b6c9d1f740a88146f9"
	bob   = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
)

type keySigner struct{ key signature.Key }

func (s keySigner) Address() address.Address { return s.key.Address() }

func (s keySigner) Sign(_ context.Context, d signature.Digest) (signature.Signature, error) {
	return s.key.Sign(d), nil
}

func testSigner(t testing.TB, scalar string) keySigner {
	t.Helper()
	k, err := signature.NewKey(secret.New(unhex(t, scalar)))
	if err != nil {
		t.Fatal(err)
	}
	return keySigner{k}
}

// knownAgents has alice and bob sign, and refuses others.
func knownAgents(t testing.TB) func(context.Context, address.Address) (identity.Signer, error) {
	t.Helper()
	known := map[address.Address]keySigner{}
	for _, s := range []keySigner{testSigner(t, alice), testSigner(t, bob)} {
		known[s.Address()] = s
	}
	return func(_ context.Context, a address.Address) (identity.Signer, error) {
		if s, ok := known[a]; ok {
			return s, nil
		}
		return nil, fault.UnknownAgentAddress
	}
}

func newTestServer(t testing.TB) *Server {
	t.Helper()
	return NewServer(Config{Signer: knownAgents(t), Now: func() time.Time { return time.Unix(1_800_000_000, 0) }})
}

// admit puts a session with known keys on s.
func admit(t testing.TB, s *Server, k *keys) *session {
	t.Helper()
	raw, err := base64url.DecodeExact(k.sid, sidSize)
	if err != nil {
		t.Fatal(err)
	}
	now := s.config.Now()
	x := &session{id: sessionID(raw), agent: testSigner(t, alice).Address(), source: "test", expires: now.Add(sessionLifetime).Unix(), keys: k}
	s.sessions.add(x, now)
	return x
}

// seeded is randomness that repeats.
func seeded(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }
