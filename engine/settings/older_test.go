package settings

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestOlderHost: a file without a version is set aside whole, what it says
// beyond doubt is taken over, and the next start finds a file of ours.
func TestOlderHost(t *testing.T) {
	t.Parallel()
	changed := func(port int, expose bool) Server {
		s := DefaultServer()
		s.Port, s.Expose = port, expose
		return s
	}
	for text, want := range map[string]Server{
		`{"port":1338,"exposeToNetwork":true}`:                    changed(1338, true),
		`{"port":1337,"exposeToNetwork":false,"x":{"version":3}}`: changed(1337, false),
		`{"port":65535}`:                        changed(65535, false),
		`{"port":65536,"exposeToNetwork":true}`: changed(DefaultPort, true),
		`{"port":0}`:                            DefaultServer(),
		`{"port":"1338","exposeToNetwork":"yes","relay_domain":"x"}`: DefaultServer(),
		`{"port":13.5,"exposeToNetwork":null,"cors":["*"]}`:          DefaultServer(),
		`{"settings":{"port":99}}`:                                   DefaultServer(),
		`{}`:                                                         DefaultServer(),
	} {
		path := filepath.Join(t.TempDir(), "server.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time it is ours
			if got, err := Adopt(path, DefaultServer(), TakeServer); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v, %v", text, got, err)
			}
		}
		if kept, err := os.ReadFile(path + OlderSuffix); err != nil || string(kept) != text {
			t.Errorf("%s: set aside as %q, %v", text, kept, err)
		}
		if got, err := Load(path, DefaultServer()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the new file says %+v, %v", text, got, err)
		}
	}
}

// TestOlderAgain: one that was set aside before is not written over, and a
// start that was cut off in between goes on.
func TestOlderAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "provider.json")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	adopt := func() error {
		_, err := Adopt(path, Provider{}, nil)
		return err
	}
	write(path, `{"a":1}`)
	if err := os.Link(path, path+OlderSuffix); err != nil { // cut off here
		t.Fatal(err)
	}
	if err := adopt(); err != nil {
		t.Fatal(err)
	}
	write(path, `{"a":2}`)
	if err := adopt(); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(path + OlderSuffix + "*")
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	for i, want := range []string{`{"a":1}`, `{"a":2}`} {
		if got, err := os.ReadFile(all[i]); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", all[i], got, err)
		}
	}
	write(path, `{"a":2}`)
	write(all[1], "taken")
	if err := adopt(); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("no name was left: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != `{"a":2}` {
		t.Errorf("it was lost: %s, %v", got, err)
	}
}

// TestNotOlder: what says another version, or does not parse, is refused and
// stays.
func TestNotOlder(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"version":2,"port":1}`, `{"version":0}`, `{"version":null}`, `{"version":"1"}`, `[]`, `{`, ``, `{"port":1,"port":2}`} {
		path := filepath.Join(t.TempDir(), "server.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Adopt(path, DefaultServer(), TakeServer); err == nil {
			t.Errorf("%s was taken", text)
		}
		if kept, err := os.ReadFile(path); err != nil || string(kept) != text {
			t.Errorf("%s: the file was changed", text)
		}
		if _, err := os.Lstat(path + OlderSuffix); err == nil {
			t.Errorf("%s was set aside", text)
		}
	}
}
