package channel_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/channel"
)

// recorder is a RoundTripper in front of a handler that writes down what both
// said, except what the network adds.
type recorder struct {
	handler http.Handler
	text    bytes.Buffer
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	body := must(io.ReadAll(req.Body))
	fmt.Fprintf(&r.text, "> %s %s\n", req.Method, req.URL.RequestURI())
	r.headers("> ", req.Header)
	fmt.Fprintf(&r.text, ">\n> %s\n\n", body)
	in := httptest.NewRequestWithContext(req.Context(), req.Method, req.URL.RequestURI(), bytes.NewReader(body))
	in.Header = req.Header
	rec := httptest.NewRecorder()
	r.handler.ServeHTTP(rec, in)
	fmt.Fprintf(&r.text, "< %d\n", rec.Code)
	r.headers("< ", rec.Header())
	fmt.Fprintf(&r.text, "<\n< %s\n\n", strings.ReplaceAll(strings.TrimSuffix(rec.Body.String(), "\n\n"), "\n", "\n< "))
	resp := rec.Result()
	resp.Request = req
	return resp, nil
}

func (r *recorder) headers(prefix string, h http.Header) {
	var text bytes.Buffer
	if err := h.Write(&text); err != nil {
		panic(err)
	}
	for line := range strings.Lines(text.String()) {
		r.text.WriteString(prefix + strings.TrimRight(line, "\r\n") + "\n")
	}
}

// TestExchanges compares what goes over the wire, with fixed clock and
// randomness, with testdata/exchanges byte for byte. A difference is a change
// of the protocol, or of what a peer may notice; -update accepts it.
func TestExchanges(t *testing.T) {
	t.Parallel()
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/run"):
			w.Header().Set("Content-Type", "text/event-stream")
			for _, event := range []string{`{"choices":[{"delta":{"role":"assistant","content":""}}]}`, `{"choices":[{"delta":{"content":"Grüß dich"}}]}`, "[DONE]"} {
				fmt.Fprintf(w, "data: %s\n\n", event)
			}
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":{"message":"Access key has expired","type":"authentication_error"}}`)
		}
	})
	type step struct {
		method, path, bearer, body string
		forget                     bool // the server loses its sessions before
	}
	for name, steps := range map[string][]step{
		"buffered":                        {{method: "GET", path: "/v1/agents?x=%20", bearer: "osk-v1.a.b"}},
		"stream":                          {{method: "POST", path: "/agents/x/run", bearer: "osk-v1.a.b", body: `{"messages":[]}`}},
		"two calls of one session":        {{method: "HEAD", path: "/health"}, {method: "GET", path: "/"}},
		"resent after a lost session":     {{method: "GET", path: "/"}, {method: "GET", path: "/", forget: true}},
		"not resent after a lost session": {{method: "GET", path: "/"}, {method: "DELETE", path: "/tasks/1", forget: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := func() time.Time { return time.Unix(1_800_000_000, 0) }
			server := channel.NewServer(channel.Config{Signer: signers, Now: now, Rand: rand.NewChaCha8([32]byte{'s'})})
			rec := &recorder{handler: mount(server, app)}
			tr := channel.NewTransport(channel.TransportConfig{
				Base: rec, Peer: must(url.Parse("http://peer.test")), Pinned: must(address.Parse(agentAddress)),
				Now: now, Rand: rand.NewChaCha8([32]byte{'c'}), Hybrid: channel.HybridOff, // encapsulation draws its own randomness
			})
			for _, s := range steps {
				if s.forget {
					server.Close()
				}
				req := request(t, s.method, "http://peer.test"+s.path, []byte(s.body))
				if s.bearer != "" {
					req.Header.Set("Authorization", "Bearer "+s.bearer)
				}
				if s.body != "" {
					req.Header.Set("Content-Type", "application/json")
				}
				resp, err := tr.RoundTrip(req)
				if err != nil {
					fmt.Fprintf(&rec.text, "= %v\n\n", err)
					continue
				}
				fmt.Fprintf(&rec.text, "= %s %s\n= %s\n\n", resp.Status, resp.Header.Get("Content-Type"),
					strings.ReplaceAll(string(must(io.ReadAll(resp.Body))), "\n", "\n= "))
				resp.Body.Close()
			}
			path := filepath.Join("testdata", "exchanges", strings.ReplaceAll(name, " ", "_")+".txt")
			got := strings.ReplaceAll(rec.text.String(), " \n", "\n")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if want, err := os.ReadFile(path); err != nil || string(want) != got {
				t.Errorf("%s differs (%v), got:\n%s", path, err, got)
			}
		})
	}
}
