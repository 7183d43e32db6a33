package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLibexec: beside a program that was built, in libexec/osaurus of the
// prefix of one that was installed, also through a link.
func TestLibexec(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	prefix := filepath.Join(dir, "cellar")
	for _, sub := range []string{"bin", "linked"} {
		if err := os.MkdirAll(filepath.Join(prefix, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	installed, link := filepath.Join(prefix, "bin", "osaurus"), filepath.Join(prefix, "linked", "osaurus")
	if err := os.WriteFile(installed, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(installed, link); err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]string{
		installed:                                filepath.Join(prefix, "libexec", "osaurus"),
		link:                                     filepath.Join(prefix, "libexec", "osaurus"),
		"/src/build/osaurus":                     "/src/build/libexec",
		"/usr/bin/osaurus-not-there/bin/osaurus": "/usr/bin/osaurus-not-there/libexec/osaurus",
	} {
		if got := libexecOf(program); got != want {
			t.Errorf("%s: %s, want %s", program, got, want)
		}
	}
}
