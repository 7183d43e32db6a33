package engine_test

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"osaurus/engine/internal/benchratio"
	"osaurus/engine/pairing"
	"osaurus/engine/secret"
	"osaurus/engine/settings"
)

// firstToken sends a run and reads it to its end; it returns how long the first
// token took.
func firstToken(b *testing.B, call func() (*http.Response, error)) time.Duration {
	begun := time.Now()
	resp, err := call()
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var first time.Duration
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if first == 0 && strings.Contains(lines.Text(), `"content":"word`) {
			first = time.Since(begun)
		}
	}
	if err := lines.Err(); err != nil || first == 0 || resp.StatusCode != http.StatusOK {
		b.Fatalf("%d %v", resp.StatusCode, err)
	}
	return first
}

// BenchmarkWholeRun is the whole job of a run of eight tokens: from a peer
// through the channel, and through a relay too, to a provider; against the same
// job of net/http alone, a TLS 1.3 proxy before the provider, and against
// calling the provider over TLS directly. Ours also keeps the turn, encrypted.
func BenchmarkWholeRun(b *testing.B) {
	model := &tagged{}
	model.hold()()
	provider := httptest.NewServer(model)
	b.Cleanup(provider.Close)
	direct := httptest.NewTLSServer(model)
	b.Cleanup(direct.Close)
	to, err := url.Parse(provider.URL)
	if err != nil {
		b.Fatal(err)
	}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, FlushInterval: -1}
	proxy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		// A provider may answer before the proxy has sent the end of the body,
		// which net/http takes from it otherwise.
		_ = http.NewResponseController(w).EnableFullDuplex()
		forward.ServeHTTP(w, q)
	}))
	b.Cleanup(proxy.Close)
	const body = `{"messages":[{"role":"user","content":"word"}]}`
	plain := func(s *httptest.Server) func() (*http.Response, error) {
		return func() (*http.Response, error) {
			return s.Client().Post(s.URL+"/v1/chat/completions", "application/json", strings.NewReader(body))
		}
	}
	alice, near, far := start(b, b.TempDir()), start(b, b.TempDir()), start(b, b.TempDir())
	if err := alice.UseProvider(b.Context(), settings.Provider{BaseURL: provider.URL, Model: "tagged"}, secret.Bytes{}); err != nil {
		b.Fatal(err)
	}
	r := startBareRelay(b)
	agent := r.join(alice)
	wait := alice.approve(pairing.NinetyDays)
	lan, err := near.Pair(b.Context(), alice.agent(), "assistant")
	wait()
	if err != nil {
		b.Fatal(err)
	}
	relayed, _ := r.invited(alice, far, agent)
	run := func(h *host, p pairing.Peer) func() (*http.Response, error) {
		return func() (*http.Response, error) {
			r.shift.Add(int64(time.Second)) // what a caller may ask for in a minute is not measured
			return h.CallPeer(b.Context(), p, func(base *url.URL) (*http.Request, error) {
				return http.NewRequest(http.MethodPost, base.JoinPath("agents", p.Address.Lower(), "run").String(), strings.NewReader(body))
			})
		}
	}
	for _, c := range []struct {
		row, what string
		ours      func() (*http.Response, error)
		ratio     float64 // of what the proxy does with the same CPU time
		added     float64 // to a direct call's first token, µs
	}{
		{"10b", "channel", run(near, lan), 0.12, 3000},
		{"10c", "relay", run(far, relayed), 0.09, 6000},
	} {
		b.Run(fmt.Sprintf("%s run through the %s vs TLS proxy", c.row, c.what), func(b *testing.B) {
			benchratio.Compare(b, benchratio.Calling, benchratio.AtLeast(c.ratio), func() { firstToken(b, c.ours) }, func() { firstToken(b, plain(proxy)) })
		})
		b.Run(fmt.Sprintf("%s first token through the %s beyond direct TLS", c.row, c.what), func(b *testing.B) {
			benchratio.Measure(b, 40, "µs", benchratio.AtMost(c.added), func() float64 {
				return float64(firstToken(b, c.ours)-firstToken(b, plain(direct))) / float64(time.Microsecond)
			})
		})
	}
}
