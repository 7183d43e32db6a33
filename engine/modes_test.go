package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// lay makes a file or, for a name that ends in a slash, a folder, with a mode.
func lay(t *testing.T, home, name string, mode fs.FileMode) {
	t.Helper()
	path := filepath.Join(home, name)
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if name[len(name)-1] == '/' {
		err = errors.Join(err, os.MkdirAll(path, 0o700))
	} else {
		err = errors.Join(err, os.WriteFile(path, nil, 0o600))
	}
	if err := errors.Join(err, os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func TestNarrow(t *testing.T) {
	t.Parallel()
	home, outside := t.TempDir(), t.TempDir()
	lay(t, outside, "file", 0o644)
	want := map[string]fs.FileMode{}
	for _, c := range []struct {
		name       string
		mode, want fs.FileMode
	}{
		{"security.log", 0o644, 0o600}, {"tasks.json.osec", 0o666, 0o600}, {".storage-manifest.json", 0o777, 0o600}, {"scheduler.sqlite", 0o640, 0o600},
		{"chat-history/blobs/x.osec", 0o644, 0o600}, {"chat-history/blobs/", 0o755, 0o700}, {"chat-history/", 0o777, 0o700},
		{"memory/memory.sqlite-wal", 0o604, 0o600}, {"identity/peers.json.osec", 0o644, 0o600}, {"identity/", 0o711, 0o700},
		{"config/server.json", 0o664, 0o600}, {"agents/A.json", 0o644, 0o600}, {"agents/A/runs/r.json", 0o644, 0o600}, {"quarantine/q/info.json", 0o644, 0o600},
		{"Tools/p/bin", 0o755, 0o700}, {"Tools/p/data/data.db", 0o644, 0o600}, {"config/read-only.json", 0o400, 0o400}, {"config/only-read.json", 0o444, 0o600},
		// Not the host's.
		{"container/workspace/agents/2001/file", 0o666, 0o666}, {"container/workspace/", 0o711, 0o711}, {"cache/x", 0o644, 0o644}, {"artifacts/a/x", 0o644, 0o644}, {"else/x", 0o644, 0o644},
	} {
		lay(t, home, c.name, c.mode)
		want[c.name] = c.want
	}
	for name, to := range map[string]string{"chat-history/link": filepath.Join(outside, "file"), "memory/dir": outside, "identity/in": filepath.Join(home, "cache", "x"), "watchers": outside, "config/gone": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(home, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := narrow(home); err != nil {
		t.Fatal(err)
	}
	for name, mode := range want {
		if info, err := os.Lstat(filepath.Join(home, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has %v, want %v (%v)", name, info.Mode().Perm(), mode, err)
		}
	}
	if info, err := os.Stat(filepath.Join(outside, "file")); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("a link was followed: %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(home); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the home has %v, %v", info.Mode(), err)
	}
}

// TestNarrowIsBounded: so many names are looked at, and no more.
func TestNarrowIsBounded(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	for i := range 5 {
		lay(t, home, fmt.Sprintf("config/%d", i), 0o644)
	}
	if err := narrowUpTo(home, 4); err != nil { // the home, config and two files
		t.Fatal(err)
	}
	wide := 0
	for i := range 5 {
		if info, err := os.Stat(filepath.Join(home, "config", fmt.Sprint(i))); err != nil || info.Mode().Perm() != 0o600 {
			wide++
		}
	}
	if wide != 3 {
		t.Errorf("%d were left", wide)
	}
}
