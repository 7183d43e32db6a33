package server

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"

	"osaurus/engine/internal/benchratio"
)

// quiet is a ResponseWriter that keeps nothing.
type quiet struct{ header http.Header }

func (q quiet) Header() http.Header         { return q.header }
func (q quiet) Write(p []byte) (int, error) { return len(p), nil }
func (q quiet) WriteHeader(int)             {}

// BenchmarkGate is row 6: everything that happens to a request before its
// route. A HEAD request ends there.
func BenchmarkGate(b *testing.B) {
	h := newHost(b)
	bearer := "Bearer " + h.key(&h.agent)
	req := httptest.NewRequest(http.MethodHead, "/agents", nil)
	req.RemoteAddr = "192.0.2.7:4000"
	req.Header.Set("Authorization", bearer)
	w := quiet{http.Header{}}
	gate := func() {
		clear(w.header)
		req.Body = http.NoBody // else each body would hold the one before
		h.ServeHTTP(w, req)
	}
	b.Run("6 gate", func(b *testing.B) {
		const each = 2_000
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // idle processors would be charged for collecting garbage
		benchratio.Measure(b, 200, "cpu-µs", benchratio.AtMost(1.5), func() float64 {
			before := benchratio.CPUTime()
			for range each {
				gate()
			}
			return float64(benchratio.CPUTime()-before) / each / 1000
		})
	})
	b.Run("6 allocations of the gate", func(b *testing.B) {
		benchratio.Measure(b, 1, "allocs", benchratio.AtMost(2), func() float64 { return testing.AllocsPerRun(1000, gate) })
	})
	b.Run("6 over loopback vs bare", func(b *testing.B) {
		plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
		defer plain.Close()
		send := func(base string) func() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodHead, base+"/agents", nil)
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("Authorization", bearer)
			req.Header.Set(untrusted, "x")
			return func() {
				resp, err := h.client.Do(req)
				if err != nil || resp.StatusCode != http.StatusNoContent {
					b.Fatalf("%v, %v", resp, err)
				}
				_ = resp.Body.Close()
			}
		}
		benchratio.Compare(b, benchratio.Calling, benchratio.AtLeast(0.8), send(h.base), send(plain.URL))
	})
}
