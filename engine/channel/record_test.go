package channel

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"osaurus/engine/secret"
)

const (
	knownSID = "8OHSw7Sllod4aVpLPC0eDw"
	knownC2S = "8ae18d9e0eac6298177ce01ee029f931d854db0e500af8a669b11fe05e76e76d"
	knownS2C = "6bb39415b0b87f4f57f1128d4b84554ef432802cf13cef63d90dd93bc719b325"
)

func newReplyPair(t testing.TB) (*sealer, *opener) {
	t.Helper()
	k := knownKeys(t, knownSID, knownC2S, knownS2C)
	a, err := k.record(7)
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.record(7)
	if err != nil {
		t.Fatal(err)
	}
	return &sealer{record: a}, &opener{record: b}
}

// TestEveryBitCounts flips each bit of a frame: no change may open.
func TestEveryBitCounts(t *testing.T) {
	t.Parallel()
	s, _ := newReplyPair(t)
	good := s.whole(nil, []byte(`{"status":200}`))
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		_, o := newReplyPair(t)
		if plaintext, err := o.whole(bad); err == nil {
			t.Fatalf("bit %d changed and %q opened: %q", i, bad, plaintext)
		}
	}
	for n := range good {
		_, o := newReplyPair(t)
		if _, err := o.whole(good[:n]); err == nil {
			t.Fatalf("the first %d bytes opened", n)
		}
	}
}

func TestEveryBitOfARequestCounts(t *testing.T) {
	t.Parallel()
	k := knownKeys(t, knownSID, knownC2S, knownS2C)
	ct, err := k.sealRequest(nil, []byte(`{"method":"GET","path":"/"}`), 3)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(ct) * 8 {
		bad := bytes.Clone(ct)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := k.openRequest(bad, 3); !errors.Is(err, ErrDecrypt) {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
	for _, seq := range []uint64{0, 2, 4, 1 << 63} {
		if _, err := k.openRequest(bytes.Clone(ct), seq); !errors.Is(err, ErrDecrypt) {
			t.Errorf("opened as number %d: %v", seq, err)
		}
	}
	other := knownKeys(t, "AAAAAAAAAAAAAAAAAAAAAA", knownC2S, knownS2C)
	if _, err := other.openRequest(bytes.Clone(ct), 3); !errors.Is(err, ErrDecrypt) {
		t.Errorf("opened in another session: %v", err)
	}
	if got, err := k.openRequest(ct, 3); err != nil || string(got) != `{"method":"GET","path":"/"}` {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestSealerIsSingleUse: sealing again at a used number would reuse a nonce,
// so it panics.
func TestSealerIsSingleUse(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(*sealer){
		"whole after whole": func(s *sealer) { s.whole(nil, nil); s.whole(nil, nil) },
		"whole after chunk": func(s *sealer) { s.chunk(nil, nil); s.whole(nil, nil) },
		"chunk after whole": func(s *sealer) { s.whole(nil, nil); s.chunk(nil, nil) },
		"chunk after end":   func(s *sealer) { s.end(nil); s.chunk(nil, nil) },
		"end after end":     func(s *sealer) { s.end(nil); s.end(nil) },
	} {
		s, _ := newReplyPair(t)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s did not panic", name)
				}
			}()
			use(s)
		}()
	}
}

// TestNothingRepeats seals the same plaintext many times: no two ciphertexts
// may be alike, within an answer, between answers, between sessions.
func TestNothingRepeats(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	note := func(where string, ct []byte) {
		t.Helper()
		if first, ok := seen[string(ct)]; ok {
			t.Fatalf("%s repeats %s", where, first)
		}
		seen[string(ct)] = where
	}
	plaintext := []byte("the same plaintext")
	for session := range 3 {
		k, _ := newSessionPair(t)
		for request := uint64(1); request <= 20; request++ {
			ct, err := k.sealRequest(nil, plaintext, request)
			if err != nil {
				t.Fatal(err)
			}
			note(fmt.Sprintf("session %d request %d", session, request), ct)
			rec, err := k.record(request)
			if err != nil {
				t.Fatal(err)
			}
			s := &sealer{record: rec}
			for n := range 20 {
				s.chunk(nil, plaintext)
				note(fmt.Sprintf("session %d answer %d frame %d", session, request, n), s.buf)
			}
		}
	}
}

func TestDestroyedSessionDoesNothing(t *testing.T) {
	t.Parallel()
	k := knownKeys(t, knownSID, knownC2S, knownS2C)
	rec, err := k.record(1)
	if err != nil {
		t.Fatal(err)
	}
	k.destroy()
	k.destroy()
	if _, err := k.sealRequest(nil, nil, 1); !errors.Is(err, errDestroyed) {
		t.Error(err)
	}
	if _, err := k.openRequest(nil, 1); !errors.Is(err, errDestroyed) {
		t.Error(err)
	}
	if _, err := k.record(1); !errors.Is(err, errDestroyed) {
		t.Error(err)
	}
	s := &sealer{record: rec}
	if got := s.whole(nil, nil); len(got) == 0 {
		t.Error("an answer that began must go on")
	}
}

// TestKeysDoNotPrint prints everything that holds a key, in every way that
// follows pointers or not.
func TestKeysDoNotPrint(t *testing.T) {
	t.Parallel()
	c2s := bytes.Repeat([]byte{0xa7}, keySize)
	k := &keys{sid: knownSID, requests: newSealed(c2s), replies: secret.New(c2s)}
	rec, err := k.record(1)
	if err != nil {
		t.Fatal(err)
	}
	i, err := newInitiator(testSigner(t, alice).Address(), bytes.NewReader(bytes.Repeat([]byte{0xa7}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{k, *i, &sealer{record: rec}, &opener{record: rec}, session{keys: k}, line{keys: k}, struct{ k *keys }{k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%d", "%q"} {
			for _, form := range []string{"a7a7a7", "167 167 167", "0xa7, 0xa7", "A7A7A7", "§§§"} {
				if text := fmt.Sprintf(verb, v); strings.Contains(text, form) {
					t.Errorf("%T under %s shows a key: %s", v, verb, text)
				}
			}
		}
	}
	if reflect.TypeFor[keys]().Comparable() {
		t.Error("sessions compare with ==")
	}
}

// TestFramesDoNotAllocate: rows 4a to 4d of the performance goals. It also shows
// that frames and envelopes take the fast path, since the tolerant reader
// allocates. Not parallel: AllocsPerRun counts the whole process.
func TestFramesDoNotAllocate(t *testing.T) {
	text := appendEnvelope(nil, envelope{ct: make([]byte, 40), seq: 12, sid: []byte(knownSID)})
	buf := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() { _, _ = parseEnvelope(text, buf) }); n != 0 {
		t.Errorf("parsing our envelope takes %v allocations", n)
	}
	for _, size := range []int{0, 50, 4096, 65536} {
		s, o := newReplyPair(t)
		plaintext := make([]byte, size)
		wire := make([]byte, 0, 2*size+256)
		o.buf = make([]byte, 0, size+64)
		s.buf = make([]byte, 0, size+64)
		if n := testing.AllocsPerRun(100, func() {
			wire = s.chunk(wire[:0], plaintext)
			if _, _, err := o.chunk(wire); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%d bytes: %v allocations", size, n)
		}
	}
}
