package channel

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/internal/base64url"
)

// TestHybridVectors: PROTOCOL.md section 10, by another ML-KEM.
func TestHybridVectors(t *testing.T) {
	t.Parallel()
	type vector struct {
		Name, Expect, Nonce, Pinned, Answer, PQPub, C2S, S2C string
		Hybrid                                               bool
		ClientPrivate                                        string `json:"client_private"`
		Seed                                                 string `json:"kem_seed"`
		Now                                                  int64
	}
	for _, v := range vectors[vector](t, "hybrid") {
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
			if err := i.propose(strings.NewReader(string(unhex(t, v.Seed)))); err != nil {
				t.Fatal(err)
			}
			if v.PQPub != "" && i.hello.pqPub != v.PQPub {
				t.Errorf("pqPub %s", i.hello.pqPub)
			}
			k, _, err := i.finish([]byte(v.Answer), time.Unix(v.Now, 0))
			if got := outcome(err); got != v.Expect {
				t.Fatalf("got %s, want %s", got, v.Expect)
			}
			if err == nil {
				if k.hybrid != v.Hybrid {
					t.Errorf("hybrid %v", k.hybrid)
				}
				checkKeys(t, k, v.C2S, v.S2C, "")
			}
		})
	}
}

// stripping is a peer in between that takes the exchange out of hellos, or out
// of answers, once it is told to.
type stripping struct {
	base          http.Transport
	hello, answer atomic.Bool
}

func (s *stripping) RoundTrip(r *http.Request) (*http.Response, error) {
	strip := func(text []byte, name string) []byte {
		before, rest, there := strings.Cut(string(text), `"`+name+`":"`)
		if !there {
			return text
		}
		_, after, _ := strings.Cut(rest, `",`)
		return []byte(before + after)
	}
	if strings.HasSuffix(r.URL.Path, sessionPath) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		if s.hello.Load() {
			body = strip(body, "pqPub")
		}
		r = r.Clone(r.Context())
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(body))), int64(len(body))
	}
	resp, err := s.base.RoundTrip(r)
	if err == nil && s.answer.Load() && strings.HasSuffix(r.URL.Path, sessionPath) {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		_ = resp.Body.Close()
		body = strip(body, "pqCt")
		resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(string(body))), int64(len(body))
		resp.Header.Del("Content-Length")
	}
	return resp, err
}

// TestNoHybridDowngrade: who is known to have the exchange is not believed to
// have lost it.
func TestNoHybridDowngrade(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	transport := func(mode Hybrid, s *stripping, pinned *atomic.Int32) *Transport {
		tr := NewTransport(TransportConfig{Base: s, Peer: mustURL(t, h.URL), Pinned: testSigner(t, alice).Address(), Hybrid: mode, OnHybrid: func() { pinned.Add(1) }})
		t.Cleanup(func() { tr.Close(); s.base.CloseIdleConnections() })
		return tr
	}
	get := func(tr *Transport) error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL+"/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	for name, c := range map[string]struct {
		mode          Hybrid
		hello, answer bool
		want          error // nil: it works
		pinned        int32
	}{
		"offered":                          {mode: HybridOffered, pinned: 1},
		"offered, and stripped from hello": {mode: HybridOffered, hello: true},
		"offered, stripped from answer":    {mode: HybridOffered, answer: true, want: &IdentityMismatch{}},
		"required":                         {mode: HybridRequired, pinned: 1},
		"required, stripped from hello":    {mode: HybridRequired, hello: true, want: ErrNotHybrid},
		"required, stripped from answer":   {mode: HybridRequired, answer: true, want: &IdentityMismatch{}},
		"off":                              {mode: HybridOff},
	} {
		var s stripping
		var pinned atomic.Int32
		s.hello.Store(c.hello)
		s.answer.Store(c.answer)
		err := get(transport(c.mode, &s, &pinned))
		_, mismatch := errors.AsType[*IdentityMismatch](err)
		_, wantMismatch := errors.AsType[*IdentityMismatch](c.want)
		if mismatch != wantMismatch || !wantMismatch && !errors.Is(err, c.want) || pinned.Load() != c.pinned {
			t.Errorf("%s: %v, pinned %d times", name, err, pinned.Load())
		}
	}
	// Seen once, it is required from then on.
	var s stripping
	var pinned atomic.Int32
	tr := transport(HybridOffered, &s, &pinned)
	if err := get(tr); err != nil {
		t.Fatal(err)
	}
	h.channel.Close() // it forgets its sessions
	s.hello.Store(true)
	if err := get(tr); !errors.Is(err, ErrNotHybrid) || pinned.Load() != 1 {
		t.Errorf("after it was seen: %v, pinned %d times", err, pinned.Load())
	}
}
