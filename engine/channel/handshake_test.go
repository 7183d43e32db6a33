package channel

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"osaurus/engine/fault"
)

// newSessionPair runs the machine: hello, answer, keys on both sides.
func newSessionPair(t testing.TB) (client, server *keys) {
	t.Helper()
	signer := testSigner(t, alice)
	now := time.Unix(1_800_000_000, 0)
	i, err := newInitiator(signer.Address(), nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := parseHello(i.hello.append(nil))
	if err != nil {
		t.Fatal(err)
	}
	r, err := newResponder(h, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signer.Sign(t.Context(), r.digest())
	if err != nil {
		t.Fatal(err)
	}
	answer, server := r.finish(sig)
	client, expires, err := i.finish(answer, now)
	if err != nil {
		t.Fatal(err)
	}
	if expires != now.Unix()+3600 {
		t.Errorf("expires in %d s", expires-now.Unix())
	}
	return client, server
}

func TestHandshakeAgrees(t *testing.T) {
	t.Parallel()
	client, server := newSessionPair(t)
	ct, err := client.sealRequest(nil, []byte("request"), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := server.openRequest(ct, 1); err != nil || string(got) != "request" {
		t.Fatalf("got %q, %v", got, err)
	}
	a, err := server.record(1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := client.record(1)
	if err != nil {
		t.Fatal(err)
	}
	frame := (&sealer{record: a}).whole(nil, []byte("reply"))
	if got, err := (&opener{record: b}).whole(frame); err != nil || string(got) != "reply" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// TestHandshakesShareNothing: every field that must be fresh is.
func TestHandshakesShareNothing(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 50 {
		i, err := newInitiator(testSigner(t, alice).Address(), nil)
		if err != nil {
			t.Fatal(err)
		}
		h, err := parseHello(i.hello.append(nil))
		if err != nil {
			t.Fatal(err)
		}
		r, err := newResponder(h, time.Now(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{i.hello.encPub, i.hello.nonce, r.answer.encPub, r.answer.sid} {
			if seen[text] {
				t.Fatalf("%s came twice", text)
			}
			seen[text] = true
		}
		i.drop()
		r.drop()
	}
}

func TestHandshakeSecretsAreDestroyed(t *testing.T) {
	t.Parallel()
	i, err := newInitiator(testSigner(t, alice).Address(), nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := parseHello(i.hello.append(nil))
	if err != nil {
		t.Fatal(err)
	}
	r, err := newResponder(h, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.finish(testSigner(t, alice).key.Sign(r.digest()))
	if !r.shared.IsZero() {
		t.Error("the responder's secret survived finish")
	}
	i.drop()
	if !i.key.scalar.IsZero() {
		t.Error("the initiator's key survived drop")
	}
}

func TestHandshakeWithoutRandomness(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 31, 32, 47} {
		if _, err := newInitiator(testSigner(t, alice).Address(), io.LimitReader(seeded(1), int64(n))); err == nil {
			t.Errorf("initiator with %d random bytes", n)
		}
	}
	i, err := newInitiator(testSigner(t, alice).Address(), nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := parseHello(i.hello.append(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 31, 32, 47} {
		if _, err := newResponder(h, time.Now(), io.LimitReader(seeded(1), int64(n))); err == nil || errors.Is(err, fault.HandshakeMalformed) {
			t.Errorf("responder with %d random bytes: %v", n, err)
		}
	}
}

// TestHandshakeErrorsNameNothing: no refusal contains what it refused.
func TestHandshakeErrorsNameNothing(t *testing.T) {
	t.Parallel()
	const planted = "planted"
	for _, body := range []string{planted, `{"` + planted + `"`, `{"v":"` + planted + `"}`, `{"agentAddress":"` + planted + `","encPub":"` + planted + `","nonce":"` + planted + `","v":1}`} {
		if _, err := parseHello([]byte(body)); err == nil || strings.Contains(err.Error(), planted) {
			t.Errorf("%q: %v", body, err)
		}
		if _, err := parseAnswer([]byte(body)); err == nil || strings.Contains(err.Error(), planted) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestAgreeRefusesLowOrderAndDestroys(t *testing.T) {
	t.Parallel()
	e, err := newEphemeral(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.agree([keySize]byte{1}); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	if !e.scalar.IsZero() {
		t.Error("the scalar survived")
	}
	if bytes.Equal(e.scalar.Expose(), make([]byte, keySize)) {
		t.Error("the scalar is only zeroed, not forgotten")
	}
}
