package control

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"osaurus/engine/accesskey"
)

// TestProfiles takes every profile through the socket. It is not parallel: the
// runtime takes one profile of the processor at a time.
func TestProfiles(t *testing.T) {
	s, ctx := serve(t), t.Context()
	for _, kind := range append([]string{"profile"}, ProfileKinds...) {
		var got bytes.Buffer
		if err := s.Profile(ctx, kind, 1, &got); err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		z, err := gzip.NewReader(&got)
		if err != nil {
			t.Errorf("%s is no gzip: %v", kind, err)
			continue
		}
		if raw, err := io.ReadAll(z); err != nil || len(raw) == 0 {
			t.Errorf("%s: %d bytes, %v", kind, len(raw), err)
		}
	}
	for _, bad := range []struct {
		kind    string
		seconds int
	}{{"symbol", 1}, {"cmdline", 1}, {"../status", 1}, {"heap", 0}, {"heap", MaxProfile + 1}, {"heap", -1}} {
		refused(t, bad.kind+" "+strconv.Itoa(bad.seconds), s.Profile(ctx, bad.kind, bad.seconds, io.Discard), exitUsage)
	}
	if err := s.Profile(ctx, "heap", MaxProfile, io.Discard); err != nil {
		t.Errorf("at the limit: %v", err)
	}
}

// TestNoProfilesInPublic: what the network reaches answers nothing below
// /debug, and no library adds it behind our back.
func TestNoProfilesInPublic(t *testing.T) {
	t.Parallel()
	s := serve(t)
	front := httptest.NewServer(s.engine.Server)
	defer front.Close()
	if _, err := s.CreateIdentity(t.Context()); err != nil {
		t.Fatal(err)
	}
	owner, err := s.MintKey(t.Context(), MintKey{Label: "owner", Expiration: accesskey.Days30})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/agents", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=1", "/v1/debug/pprof/heap", "/debug/vars"} {
		req := httptest.NewRequest(http.MethodGet, front.URL+path, http.NoBody)
		req.RequestURI = ""
		req.Header.Set("Authorization", "Bearer "+owner.Token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		want := http.StatusNotFound
		if path == "/agents" {
			want = http.StatusOK // the key is a good one
		}
		if _ = resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("%s answers the owner %d in public", path, resp.StatusCode)
		}
	}
	out, err := exec.Command("go", "list", "-deps", "osaurus/app/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range []string{"net/http/pprof", "expvar"} {
		if strings.Contains("\n"+string(out), "\n"+pkg+"\n") {
			t.Errorf("%s is linked; it answers on http.DefaultServeMux", pkg)
		}
	}
}
