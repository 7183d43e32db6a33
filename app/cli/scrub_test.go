package cli

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"osaurus/engine"
	"osaurus/engine/server"
	"osaurus/engine/settings"
	"osaurus/engine/storage"
)

func TestScrubbedTexts(t *testing.T) {
	t.Parallel()
	s := newScrubber(map[string]string{"/home/ada/.osaurus": "~", "/home/ada": "~", "Ada": "agent-1", "Ada of mine": "agent-2", "x": "never: too short", "": "nor nothing"})
	for in, want := range map[string]string{
		"open /home/ada/.osaurus/agents/a.json: no":  "open ~/agents/a.json: no",
		"Ada of mine is not reached":                 "agent-2 is not reached",
		"x marks":                                    "x marks",
		"read /home/eve/secret.txt":                  "read /…",
		"dial 192.168.7.31:1337 failed":              "dial an IP address:1337 failed",
		"GET https://u:p@models.example/v1?k=9 x":    "GET https://… x",
		"0x70997970C51812dc3A010C7d01b50e0d17dc79C8": "0x7099…",
		"6CC95665-5604-4ACE-A094-01F0A3279B22.json":  "6CC95665….json",
		"Bearer abc.def":                             "Bearer [redacted]",
		"key osk-v1.eyJ.sig":                         "key [redacted]",
		"mail ada@example.org now":                   "mail …@… now",
		"id Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9v=":   "id …",
		"the stores cannot be listed":                "the stores cannot be listed",
	} {
		if got := s.text(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"/v1/agents/6CC95665/run?token=x": "/v1/agents/…/run",
		"/tasks/secret":                   "/tasks/…",
		"/":                               "/",
		"/wp-admin/ada":                   "/…/…",
	} {
		if got := s.route(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// TestScrubbedEvents: a field that nobody listed stays out.
func TestScrubbedEvents(t *testing.T) {
	t.Parallel()
	got, err := newScrubber(nil).event([]byte(`{"seq":7,"time":"2026-01-02T03:04:05Z","event":"key_minted","label":"planted","audience":"0x70997970C51812dc3A010C7d01b50e0d17dc79C8","keyId":"planted","new_field":"planted","prev":"planted","hash":"planted","error":"open /home/planted/x","agents":{"planted":1},"count":3,"encrypted":true}`))
	if err != nil || strings.Contains(string(got), "planted") {
		t.Errorf("%s, %v", got, err)
	}
	if want := `{"count":3,"encrypted":true,"error":"open /…","event":"key_minted","seq":7,"time":"2026-01-02T03:04:05Z"}`; string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, err := newScrubber(nil).event([]byte("{")); err == nil {
		t.Error("half a line was taken")
	}
}

// fill puts a planted text into every string of a value.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("planted")
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	}
}

func filled[T any](keep func(*T)) T {
	var v T
	fill(reflect.ValueOf(&v).Elem())
	keep(&v)
	return v
}

// TestReportTakesOnlyWhatIsListed plants a text in every string there is; what
// is one of ours (a state, a format) is set back, and no plant may come out.
func TestReportTakesOnlyWhatIsListed(t *testing.T) {
	t.Parallel()
	s := newScrubber(nil)
	for name, v := range map[string]any{
		"status": statusOf(filled(func(s *engine.Status) { s.Identity, s.Keystore = "ready", "passphrase" })),
		"settings": settingsOf(filled(func(*settings.Server) {
		})),
		"storage": s.storage(filled(func(st *storage.Status) {
			st.Posture, st.Key.State, st.Operation = "encrypted", "ready", ""
			x := &st.Stores[0]
			x.ID, x.Format, x.State, x.Issue = "agent:planted", "sqlcipher", "ready", ""
		})),
		"requests": s.requests([]server.Entry{filled(func(e *server.Entry) { e.Method, e.Transport, e.Path = "GET", "lan", "/agents/planted/run" })}),
		"provider": s.findings([]engine.Finding{{ID: "provider", Level: "ok", Title: "Models run at planted"}}),
	} {
		raw, err := json.Marshal(v)
		if err != nil || strings.Contains(string(raw), "planted") {
			t.Errorf("%s: %s, %v", name, raw, err)
		}
	}
}
