package channel

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/secret"
)

// vectors reads a file that the second implementation wrote.
func vectors[T any](t testing.TB, name string) []T {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "vectors", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var v []T
	if err := json.Unmarshal(text, &v); err != nil || len(v) == 0 {
		t.Fatalf("%s: %d vectors, %v", name, len(v), err)
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// outcome names an error as the vectors do.
func outcome(err error) string {
	names := []struct {
		err  error
		name string
	}{
		{ErrTruncated, "truncated"}, {ErrReordered, "reordered"}, {ErrAfterFin, "after_fin"}, {ErrDecrypt, "decrypt_failed"},
		{ErrMalformed, "malformed"}, {ErrVersion, "unsupported_version"}, {ErrSignature, "bad_signature"},
		{fault.HandshakeRequest, "invalid_request"}, {fault.HandshakeVersion, "unsupported_version"}, {fault.HandshakeMalformed, "malformed"},
		{fault.SecureSessionUnknown, "unknown_session"}, {fault.SecureReplay, "replay"},
		{fault.SecureDecryptFailed, "decrypt_failed"}, {fault.SecureMalformed, "malformed"},
	}
	if _, ok := errors.AsType[*IdentityMismatch](err); ok {
		return "wrong_address"
	}
	for _, n := range names {
		if errors.Is(err, n.err) {
			return n.name
		}
	}
	if err != nil {
		return err.Error()
	}
	return "success"
}

// knownKeys is the session of a vector.
func knownKeys(t testing.TB, sid, c2s, s2c string) *keys {
	t.Helper()
	if c2s == "" {
		c2s = strings.Repeat("00", keySize)
	}
	return &keys{
		sid: sid, requests: newSealed(unhex(t, c2s)),
		replies: secret.Take(extract(unhex(t, s2c), nil)),
	}
}

func TestHelloVectors(t *testing.T) {
	t.Parallel()
	for _, v := range vectors[struct{ Name, Expect, Hello string }](t, "hello") {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			h, err := parseHello([]byte(v.Hello))
			if err == nil {
				var r *responder
				if r, err = newResponder(h, time.Now(), nil); err == nil {
					r.drop()
				}
			}
			if got := outcome(err); got != v.Expect {
				t.Errorf("got %s, want %s", got, v.Expect)
			}
		})
	}
}

func TestHandshakeVectors(t *testing.T) {
	t.Parallel()
	type vector struct {
		Name, Expect, Nonce, Pinned, Answer, Transcript, C2S, S2C, SID string
		ClientPrivate                                                  string `json:"client_private"`
		ServerPrivate                                                  string `json:"server_private"`
		ReplyKey                                                       string `json:"reply_key_1"`
		Now                                                            int64
	}
	for _, v := range vectors[vector](t, "handshake") {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			pinned, err := address.Parse(v.Pinned)
			if err != nil {
				t.Fatal(err)
			}
			nonce, err := base64url.Decode(v.Nonce)
			if err != nil {
				t.Fatal(err)
			}
			i, err := newInitiator(pinned, strings.NewReader(string(unhex(t, v.ClientPrivate))+string(nonce)))
			if err != nil {
				t.Fatal(err)
			}
			k, _, err := i.finish([]byte(v.Answer), time.Unix(v.Now, 0))
			if got := outcome(err); got != v.Expect {
				t.Fatalf("got %s, want %s", got, v.Expect)
			}
			if !i.key.scalar.IsZero() {
				t.Error("the ephemeral key survived")
			}
			if v.Transcript == "" {
				return
			}
			checkKeys(t, k, v.C2S, v.S2C, v.ReplyKey)

			sid, err := base64url.Decode(v.SID)
			if err != nil {
				t.Fatal(err)
			}
			h, err := parseHello(i.hello.append(nil))
			if err != nil {
				t.Fatal(err)
			}
			r, err := newResponder(h, time.Unix(v.Now, 0), strings.NewReader(string(unhex(t, v.ServerPrivate))+string(sid)))
			if err != nil {
				t.Fatal(err)
			}
			if string(r.transcript) != v.Transcript {
				t.Errorf("transcript %s", r.transcript)
			}
			sig, err := testSigner(t, alice).Sign(t.Context(), r.digest())
			if err != nil {
				t.Fatal(err)
			}
			answer, k := r.finish(sig)
			if string(answer) != v.Answer {
				t.Errorf("answer %s", answer)
			}
			checkKeys(t, k, v.C2S, v.S2C, v.ReplyKey)
		})
	}
}

// checkKeys compares traffic secrets by what they seal, since they cannot be
// read back.
func checkKeys(t *testing.T, got *keys, c2s, s2c, replyKey string) {
	t.Helper()
	want := knownKeys(t, got.sid, c2s, s2c)
	a, err := got.sealRequest(nil, []byte("x"), 7)
	if err != nil {
		t.Fatal(err)
	}
	b, err := want.sealRequest(nil, []byte("x"), 7)
	if err != nil || !slices.Equal(a, b) {
		t.Error("c2s differs")
	}
	if replyKey == "" {
		replyKey = hex.EncodeToString(expand(want.replies.Expose(), replyKeyLabel+"1"))
	}
	var nonce [nonceSize]byte
	key := newSealed(unhex(t, replyKey))
	if !slices.Equal(got.replyKey(1)().Seal(nil, nonce[:], nil, nil), key().Seal(nil, nonce[:], nil, nil)) {
		t.Error("reply key 1 differs")
	}
}

func TestCallVectors(t *testing.T) {
	t.Parallel()
	type vector struct {
		Name, SID, C2S, S2C string
		Calls               []struct{ Expect, Envelope string }
	}
	for _, v := range vectors[vector](t, "calls") {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t)
			admit(t, s, knownKeys(t, v.SID, v.C2S, v.S2C))
			for i, c := range v.Calls {
				_, _, err := s.open(httptest.NewRequestWithContext(t.Context(), "POST", callPath, strings.NewReader(c.Envelope)))
				if got := outcome(err); got != c.Expect {
					t.Errorf("call %d: got %s, want %s", i, got, c.Expect)
				}
			}
		})
	}
}

func TestReplyVectors(t *testing.T) {
	t.Parallel()
	type vector struct {
		Name, Expect, Mode, SID, S2C, Plaintext string
		Request                                 uint64
		Frames                                  []string
	}
	for _, v := range vectors[vector](t, "replies") {
		t.Run(v.Mode+" "+v.Name, func(t *testing.T) {
			t.Parallel()
			rec, err := knownKeys(t, v.SID, "", v.S2C).record(v.Request)
			if err != nil {
				t.Fatal(err)
			}
			o := &opener{record: rec}
			var got []byte
			for _, f := range v.Frames {
				var plaintext []byte
				if v.Mode == "buffered" {
					plaintext, err = o.whole([]byte(f))
				} else {
					plaintext, _, err = o.chunk([]byte(f))
				}
				if err != nil {
					break
				}
				got = append(got, plaintext...)
			}
			if err == nil {
				err = o.end()
			}
			if outcome(err) != v.Expect || string(got) != v.Plaintext {
				t.Errorf("got %s and %q, want %s and %q", outcome(err), got, v.Expect, v.Plaintext)
			}
			if err != nil {
				if _, _, again := o.chunk(nil); again != err { //nolint:errorlint // the very same
					t.Errorf("after %v came %v", err, again)
				}
			}
		})
	}
}

func TestInnerVectors(t *testing.T) {
	t.Parallel()
	type vector struct{ Name, Expect, Plaintext string }
	for _, v := range vectors[vector](t, "inner_requests") {
		t.Run("request "+v.Name, func(t *testing.T) {
			t.Parallel()
			if _, err := parseInnerRequest([]byte(v.Plaintext), nil); outcome(err) != v.Expect {
				t.Errorf("got %s, want %s", outcome(err), v.Expect)
			}
		})
	}
	for _, v := range vectors[vector](t, "inner_replies") {
		t.Run("reply "+v.Name, func(t *testing.T) {
			t.Parallel()
			if _, err := parseInnerReply([]byte(v.Plaintext), nil); outcome(err) != v.Expect {
				t.Errorf("got %s, want %s", outcome(err), v.Expect)
			}
		})
	}
}
