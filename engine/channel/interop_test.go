package channel_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/channel"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

// agentKey is alice's agent, index 0 (known-answers); agentAddress its address.
var agentKey = unhex("c2ddba76f071d8115d12d4a8e4d9df7c460aa6ae4f4a59b6c9d1f740a88146f9")

const agentAddress = "0x331565e19602986634610f4b33ff7ad182860036"

type testSigner struct{ key signature.Key }

func (s testSigner) Address() address.Address { return s.key.Address() }

func (s testSigner) Sign(_ context.Context, d signature.Digest) (signature.Signature, error) {
	return s.key.Sign(d), nil
}

// signers serves the known agent.
func signers(_ context.Context, a address.Address) (identity.Signer, error) {
	s := testSigner{must(signature.NewKey(secret.New(agentKey)))}
	if a != s.Address() {
		return nil, fault.UnknownAgentAddress
	}
	return s, nil
}

func mount(s *channel.Server, next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/secure/session", func(w http.ResponseWriter, r *http.Request) { s.ServeSession(w, r, "test") })
	mux.HandleFunc("/secure/call", func(w http.ResponseWriter, r *http.Request) { s.ServeCall(w, r, next) })
	return mux
}

// inside is the application both servers carry.
func inside() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body := must(io.ReadAll(r.Body))
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s %s %s %s %x", r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"),
			r.Header.Get("Accept"), r.Header.Get("Content-Type"), r.Header.Get("X-Custom"), sha256.Sum256(body))
	})
	mux.HandleFunc("/size", func(w http.ResponseWriter, r *http.Request) {
		var n int
		fmt.Sscan(r.URL.Query().Get("n"), &n)
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(bytes.Repeat([]byte("x"), n))
	})
	mux.HandleFunc("/none", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		var n, size int
		fmt.Sscan(r.URL.Query().Get("n"), &n)
		fmt.Sscan(r.URL.Query().Get("size"), &size)
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		for i := range n {
			fmt.Fprintf(w, "data: {\"i\":%d,\"x\":%q}\n\n", i, strings.Repeat("é", size))
			w.(http.Flusher).Flush()
		}
	})
	return mux
}

var dialects = map[string]dialect{
	"plain": {}, "padded": {padded: true}, "indented": {indented: true}, "all": {padded: true, indented: true, extra: true}, "hybrid": {hybrid: true}, "hybrid, all": {padded: true, indented: true, extra: true, hybrid: true},
}

// pairs runs f with every combination of the two clients and the two servers,
// the naive ones in every dialect.
func pairs(t *testing.T, f func(t *testing.T, c *http.Client, base string)) {
	serve := func(t *testing.T, h http.Handler) string {
		ts := httptest.NewServer(h)
		t.Cleanup(ts.Close)
		return ts.URL
	}
	ours := func(t *testing.T, base string) *http.Client {
		tr := channel.NewTransport(channel.TransportConfig{Peer: must(url.Parse(base)), Pinned: must(address.Parse(agentAddress))})
		t.Cleanup(tr.Close)
		return &http.Client{Transport: tr}
	}
	ourServer := func() http.Handler { return mount(channel.NewServer(channel.Config{Signer: signers}), inside()) }
	t.Run("ours-ours", func(t *testing.T) {
		t.Parallel()
		base := serve(t, ourServer())
		f(t, ours(t, base), base)
	})
	for name, d := range dialects {
		t.Run("naive-ours-"+name, func(t *testing.T) {
			t.Parallel()
			base := serve(t, ourServer())
			f(t, &http.Client{Transport: &naiveClient{url: base, agent: agentAddress, dialect: d}}, base)
		})
		t.Run("ours-naive-"+name, func(t *testing.T) {
			t.Parallel()
			base := serve(t, newNaiveServer(agentKey, d, inside()))
			f(t, ours(t, base), base)
		})
		t.Run("naive-naive-"+name, func(t *testing.T) {
			t.Parallel()
			base := serve(t, newNaiveServer(agentKey, d, inside()))
			f(t, &http.Client{Transport: &naiveClient{url: base, agent: agentAddress, dialect: d}}, base)
		})
	}
}

func do(t *testing.T, c *http.Client, req *http.Request) (int, string, string) {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(body)
}

func request(t *testing.T, method, target string, body []byte) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	return must(http.NewRequestWithContext(ctx, method, target, r))
}

func TestInteropRequests(t *testing.T) {
	t.Parallel()
	pairs(t, func(t *testing.T, c *http.Client, base string) {
		for _, body := range [][]byte{nil, {}, {0}, []byte("hello"), bytes.Repeat([]byte{0xff, 0, 0x80}, 1<<16)} {
			for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH"} {
				req := request(t, method, base+"/echo?q=%20a&b", body)
				req.Header.Set("Authorization", "Bearer osk-v1.a.b")
				req.Header.Set("Accept", "text/plain, */*")
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("X-Custom", `quo"te \ ü`)
				status, kind, got := do(t, c, req)
				sum := sha256.Sum256(body)
				want := method + ` /echo?q=%20a&b Bearer osk-v1.a.b text/plain, */* application/json quo"te \ ü ` + hex.EncodeToString(sum[:])
				if status != http.StatusTeapot || kind != "text/plain; charset=utf-8" || got != want {
					t.Fatalf("got %d %q %q, want %q", status, kind, got, want)
				}
			}
		}
	})
}

func TestInteropBuffered(t *testing.T) {
	t.Parallel()
	pairs(t, func(t *testing.T, c *http.Client, base string) {
		for _, n := range []int{0, 1, 2, 3, 47, 48, 49, 4096, 65536, 1 << 20} {
			status, kind, got := do(t, c, request(t, "GET", fmt.Sprintf("%s/size?n=%d", base, n), nil))
			if status != 200 || kind != "application/octet-stream" || got != strings.Repeat("x", n) {
				t.Fatalf("size %d: got %d %q and %d bytes", n, status, kind, len(got))
			}
		}
		if status, kind, got := do(t, c, request(t, "POST", base+"/none", nil)); status != 204 || kind != "" || got != "" {
			t.Fatalf("got %d %q %q", status, kind, got)
		}
		if status, _, got := do(t, c, request(t, "GET", base+"/missing", nil)); status != 404 || got != "404 page not found\n" {
			t.Fatalf("got %d %q", status, got)
		}
	})
}

func TestInteropStreams(t *testing.T) {
	t.Parallel()
	pairs(t, func(t *testing.T, c *http.Client, base string) {
		for _, x := range []struct{ n, size int }{{0, 0}, {1, 0}, {3, 10}, {100, 1}, {2, 20_000}, {1, 200_000}} {
			status, kind, got := do(t, c, request(t, "GET", fmt.Sprintf("%s/stream?n=%d&size=%d", base, x.n, x.size), nil))
			var want strings.Builder
			for i := range x.n {
				fmt.Fprintf(&want, "data: {\"i\":%d,\"x\":%q}\n\n", i, strings.Repeat("é", x.size))
			}
			if status != 200 || kind != "text/event-stream" || got != want.String() {
				t.Fatalf("%+v: got %d %q and %d bytes, want %d", x, status, kind, len(got), want.Len())
			}
		}
	})
}

func TestInteropConcurrent(t *testing.T) {
	t.Parallel()
	pairs(t, func(t *testing.T, c *http.Client, base string) {
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				for j := range 5 {
					n := 100*i + j
					_, _, got := do(t, c, request(t, "GET", fmt.Sprintf("%s/size?n=%d", base, n), nil))
					if len(got) != n {
						t.Errorf("got %d bytes, want %d", len(got), n)
					}
				}
			})
		}
		wg.Wait()
	})
}
