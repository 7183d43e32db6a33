package engine_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine"
	"osaurus/engine/secret"
	"osaurus/engine/settings"
)

// TestDoctorAsks: whether the provider answers, whether anybody answers
// requests to pair, and whether invites can be read.
func TestDoctorAsks(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	h := start(t, home)
	found := func(id string) engine.Finding {
		t.Helper()
		for _, f := range h.Diagnose(t.Context()).Findings {
			if f.ID == id {
				return f
			}
		}
		return engine.Finding{}
	}
	status := http.StatusOK
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"object":"list","data":[]}`)
	}))
	defer provider.Close()
	if err := h.UseProvider(t.Context(), settings.Provider{BaseURL: provider.URL, Model: "m"}, secret.Bytes{}); err != nil {
		t.Fatal(err)
	}
	if f := found("provider"); f.Level != "ok" {
		t.Errorf("a provider that answers: %+v", f)
	}
	status = http.StatusUnauthorized
	if f := found("provider"); f.Level != "warning" || !strings.Contains(f.Text, "401") || f.Next == "" {
		t.Errorf("a provider that refuses: %+v", f)
	}
	provider.Close()
	if f := found("provider"); f.Level != "warning" || f.Text == "" {
		t.Errorf("a provider that is gone: %+v", f)
	}
	if f := found("approvers"); f.Level != "warning" || f.Next == "" {
		t.Errorf("nobody can approve: %+v", f)
	}
	defer h.Approval.Attach()()
	if f := found("approvers"); f.ID != "" {
		t.Errorf("somebody can approve: %+v", f)
	}
	if f := found("record"); f.ID != "" {
		t.Errorf("no invite yet: %+v", f)
	}
	dir := filepath.Join(home, "agent-invites")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, h.agent().AgentID+".json"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if f := found("record"); f.Level != "error" || f.Next == "" || !strings.Contains(f.Title, "agent-invites/") {
		t.Errorf("a ledger that cannot be read: %+v", f)
	}
}

// TestHealth: this machine's owner sees every part, and what is refused.
func TestHealth(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	h := start(t, home)
	agent := h.agent()
	if _, err := h.Memory.Add(t.Context(), agent.AgentID, "walrus"); err != nil {
		t.Fatal(err)
	}
	_, text, _ := send(t, http.DefaultClient, http.MethodGet, h.url.String()+"/health", "")
	for _, part := range []string{`"status":"healthy"`, `"version"`, `"in_flight":`, `"relay":{`, `"keystore"`, `"sandbox":{"environments":0,"setup_complete":false}`, `"memory":"ready"`} {
		if !strings.Contains(text, part) {
			t.Errorf("no %s in %s", part, text)
		}
	}
}
