package settings

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestDefaultsWithoutAFile(t *testing.T) {
	t.Parallel()
	got, err := Load(filepath.Join(t.TempDir(), "none.json"), DefaultServer())
	if err != nil || !reflect.DeepEqual(got, DefaultServer()) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := got.Validate(); err != nil || got.Expose || got.Port != 1337 || !got.LoopbackTrust {
		t.Errorf("the defaults are %+v, %v", got, err)
	}
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config", "server.json")
	want := Server{Port: 1, Expose: true, RequireChannel: true, PeerInference: true, CORS: []string{"*", "app://x"}, MaxConnections: MinConnections, RelayDomain: "localhost:1"}
	if err := Save(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path, DefaultServer())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want.Port = -1
	if err := Save(path, want); err == nil || !strings.Contains(err.Error(), "port") {
		t.Errorf("an invalid port: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Error("refused settings reached the file")
	}
}

// TestPartialFile: what a file does not say keeps its default.
func TestPartialFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s.json")
	if err := os.WriteFile(path, []byte(`{"version":1,"settings":{"port":8080}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	want := DefaultServer()
	want.Port = 8080
	if got, err := Load(path, DefaultServer()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestBadFiles(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		``:                "malformed",
		`{`:               "malformed",
		`[]`:              "cannot unmarshal",
		`{"settings":{}}`: "no version",
		`{"version":2,"settings":{"port":1,"later":1}}`: "version is 2",
		`{"version":"1"}`:                                      "version",
		`{"version":1,"other":1}`:                              `"other"`,
		`{"version":1,"settings":{"prot":1}}`:                  `"prot"`,
		`{"version":1,"settings":{"port":"1"}}`:                "port",
		`{"version":1,"settings":{"port":1,"port":2}}`:         "twice",
		`{"version":1,"settings":{"port":65536}}`:              "port must be",
		`{"version":1,"settings":{"max_connections":63}}`:      "max_connections must be",
		`{"version":1,"settings":{"cors":["*","https://x/"]}}`: "cors entry 2",
		`{"version":1} {}`:                                     "after the value",
		strings.Repeat(" ", MaxFile) + `1`:                     "larger than",
	} {
		path := filepath.Join(t.TempDir(), "s.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Load(path, DefaultServer())
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "s.json") {
			t.Errorf("%.60s: %v, want %q", text, err, says)
		}
		if !reflect.DeepEqual(got, DefaultServer()) {
			t.Errorf("%.60s: a bad file set %+v", text, got)
		}
		if kept, err := os.ReadFile(path); err != nil || string(kept) != text {
			t.Errorf("%.60s: the file was changed", text)
		}
	}
	if _, err := Load(t.TempDir(), DefaultServer()); err == nil {
		t.Error("a folder was read")
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change func(*Server)
		ok     bool
	}{
		{func(s *Server) { s.Port = 0 }, true}, {func(s *Server) { s.Port = 65535 }, true},
		{func(s *Server) { s.Port = -1 }, false}, {func(s *Server) { s.Port = 65536 }, false},
		{func(s *Server) { s.MaxConnections = MinConnections }, true}, {func(s *Server) { s.MaxConnections = MaxConnections }, true},
		{func(s *Server) { s.MaxConnections = MinConnections - 1 }, false}, {func(s *Server) { s.MaxConnections = MaxConnections + 1 }, false},
	} {
		s := DefaultServer()
		c.change(&s)
		if err := s.Validate(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	for origin, ok := range map[string]bool{
		"*": true, "https://example.com": true, "http://localhost:3000": true, "app://osaurus": true, "https://[::1]:1": true,
		"": false, "null": false, "example.com": false, "https://example.com/": false, "https://u@example.com": false, "https://": false,
		"https://example.com?x": false, "https://example.com#x": false, "https://exa mple.com": false, "https://example.com\n": false, "**": false,
	} {
		s := DefaultServer()
		s.CORS = []string{origin}
		if err := s.Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", origin, err)
		}
	}
}

func TestProvider(t *testing.T) {
	t.Parallel()
	for base, ok := range map[string]bool{
		"": true, "http://127.0.0.1:11434": true, "https://api.example.com/openai": true,
		"ftp://x": false, "http://": false, "127.0.0.1:11434": false, "https://user:pass@x": false, "https://x?key=1": false, "https://x#y": false, "http://\x00": false,
	} {
		if err := (Provider{BaseURL: base}).Validate(); (err == nil) != ok || err != nil && strings.Contains(err.Error(), "pass") {
			t.Errorf("%q: %v", base, err)
		}
	}
}

// broken always refuses.
type broken struct{ X int }

func (broken) Validate() error { return errors.New("no") }

func TestSaveNeedsAFolder(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Save(filepath.Join(file, "s.json"), DefaultServer()); err == nil {
		t.Error("saved below a file")
	}
	if err := Save(filepath.Join(t.TempDir(), "s.json"), broken{}); err == nil {
		t.Error("saved what is invalid")
	}
}
