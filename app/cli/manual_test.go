package cli

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

func TestManual(t *testing.T) {
	t.Parallel()
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pages := Manual(date)
	count := 0
	each(documented(), func(*cobra.Command) { count++ })
	if len(pages) != count || len(pages) < 40 {
		t.Errorf("%d pages for %d commands", len(pages), count)
	}
	root := string(pages["osaurus.1"])
	for _, want := range []string{".TH \"OSAURUS\" 1 \"2026\\-01\\-02\"", ".BR osaurus\\-serve (1)", "needs confirmation", "\\-\\-passphrase\\-fd"} {
		if !strings.Contains(root, want) {
			t.Errorf("osaurus.1 lacks %s", want)
		}
	}
	for name, again := range Manual(date) {
		if !bytes.Equal(again, pages[name]) {
			t.Errorf("%s is not the same a second time", name)
		}
	}
	man, err := exec.LookPath("man")
	if err != nil {
		t.Skip("man is missing")
	}
	for _, name := range []string{"osaurus.1", "osaurus-storage-export.1"} {
		cmd := exec.Command(man, "--warnings=w", "--local-file", "-")
		cmd.Env = append(cmd.Environ(), "MANWIDTH=100", "LC_ALL=C.UTF-8")
		cmd.Stdin = bytes.NewReader(pages[name])
		var warned bytes.Buffer
		cmd.Stderr = &warned
		if out, err := cmd.Output(); err != nil || warned.Len() > 0 || !bytes.Contains(out, []byte("SYNOPSIS")) {
			t.Errorf("man %s: %v\n%s", name, err, &warned)
		}
	}
}

func TestRoff(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{`a\b`: `a\eb`, "--x": `\-\-x`, ".so /etc/passwd": `\&.so /etc/passwd`, "a\n'b": "a\n" + `\&'b`} {
		if got := roff(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// TestCompletions runs each script through the shell it is for, where there is
// one.
func TestCompletions(t *testing.T) {
	t.Parallel()
	files, err := Completions()
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for name, text := range files {
		if !bytes.Contains(text, []byte("osaurus")) {
			t.Errorf("%s does not name the program", name)
		}
		shell, _, _ := strings.Cut(name, "/")
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		check := exec.Command(path, "-n")
		check.Stdin = bytes.NewReader(text)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
