package server

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"osaurus/engine/runner"
)

// endless is a provider that says one word and then nothing more, until its
// caller goes.
func endlessProvider(t *testing.T) runner.Endpoint {
	t.Helper()
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, `data: {"choices":[{"index":0,"delta":{"content":"word"}}]}`+"\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(p.Close)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return runner.Endpoint{BaseURL: p.URL, Client: client}
}

// TestRevocationEndsStreams: whatever ends a key ends what runs under it,
// plain and inside the channel, within a second (decisions C15).
func TestRevocationEndsStreams(t *testing.T) {
	t.Parallel()
	endings := map[string]func(t *testing.T, h *host) error{
		"revoked": func(t *testing.T, h *host) error { return h.keys.Revoke(t.Context(), h.keys.List()[0].ID) },
		"deleted": func(t *testing.T, h *host) error { return h.keys.Delete(t.Context(), h.keys.List()[0].ID) },
		"issuer":  func(t *testing.T, h *host) error { return h.keys.RevokeIssuer(t.Context(), h.keys.List()[0].Issuer) },
		"refused before": func(t *testing.T, h *host) error {
			return h.keys.RefuseBefore(t.Context(), time.Now().Add(2*time.Second))
		},
		"agent rotated":  func(t *testing.T, h *host) error { _, err := h.agents.Rotate(t.Context(), h.agent.ID); return err },
		"agent revoked":  func(t *testing.T, h *host) error { _, err := h.agents.Revoke(t.Context(), h.agent.ID); return err },
		"agent deleted":  func(t *testing.T, h *host) error { return h.agents.Delete(t.Context(), h.agent.ID) },
		"identity reset": func(t *testing.T, h *host) error { return h.agents.Reset(t.Context()) },
	}
	for name, end := range endings {
		for _, sealed := range []bool{false, true} {
			t.Run(name+map[bool]string{false: " plain", true: " sealed"}[sealed], func(t *testing.T) {
				t.Parallel()
				h := newHostWith(t, endlessProvider(t))
				bearer := h.key(&h.agent)
				client := h.client
				if sealed {
					client = h.through(h.agent.Address)
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.base+"/agents/"+h.agent.ID+"/run", strings.NewReader(`{"model":"m","messages":[{"role":"user","content":"x"}]}`))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+bearer)
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				r := bufio.NewReader(resp.Body)
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						t.Fatalf("%d, %q, %v", resp.StatusCode, line, err)
					}
					if strings.Contains(line, "word") {
						break
					}
				}
				before := time.Now()
				if err := end(t, h); err != nil {
					t.Fatal(err)
				}
				rest, err := io.ReadAll(r)
				if err != nil || !strings.Contains(string(rest), `"code":"access_revoked"`) {
					t.Errorf("the stream ends with %q, %v", rest, err)
				}
				if took := time.Since(before); took > time.Second {
					t.Errorf("it took %v", took)
				}
				if _, err := h.keys.Validate(bearer); err == nil {
					t.Error("the key is still valid")
				}
			})
		}
	}
}
