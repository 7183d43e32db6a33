package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const sound = `//go:build darwin && cgo

package x

import "C"

import (
	"os"
	"syscall"
)

func size(f *os.File) (int64, error) {
	var st syscall.Stat_t
	err := syscall.Fstat(int(f.Fd()), &st)
	C.anything(f) // typed by C: not seen
	return st.Birthtimespec.Sec, err
}
`

// planted are mistakes that a compiler for macOS would report.
var planted = map[string][2]string{
	"a wrong method":     {"f.Fd()", "f.Descriptor()"},
	"a wrong field":      {"st.Birthtimespec.Sec", "st.Btim.Sec"},
	"a wrong type":       {"&st)", "st)"},
	"a missing argument": {"int(f.Fd()), &st", "&st"},
	"an undefined name":  {"return st", "return stat"},
	"an unused variable": {"var st syscall.Stat_t", "var st syscall.Stat_t; unused := 1"},
	"an unused import":   {`"os"`, "\"os\"\n\t\"errors\""},
	"a result too few":   {", err\n}", "\n}"},
	"a syntax error":     {"func size(", "func size(("},
	"an unknown package": {`"os"`, "\"os\"\n\t_ \"osaurus/nowhere\""},
}

// TestPlantedErrors: each mistake in code for macOS is found, on both
// architectures, and sound code has none.
func TestPlantedErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module x\n\ngo 1.26.0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir) // the program works where it is started
	t.Setenv("GOFLAGS", "")
	check := func(goarch, source string) []string {
		t.Helper()
		if err := os.WriteFile("x.go", []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		pkgs, err := list("darwin", goarch, "", true, []string{"./..."})
		if err != nil {
			t.Fatal(err)
		}
		c := newChecker(goarch, false)
		c.checkAll(pkgs)
		return c.problems
	}
	for _, goarch := range []string{"arm64", "amd64"} {
		if got := check(goarch, sound); len(got) != 0 {
			t.Errorf("%s: sound code has problems: %q", goarch, got)
		}
	}
	for what, change := range planted {
		if strings.Count(sound, change[0]) != 1 {
			t.Fatalf("%s: %q is not there once", what, change[0])
		}
		if got := check("arm64", strings.Replace(sound, change[0], change[1], 1)); len(got) == 0 {
			t.Errorf("%s was not found", what)
		}
	}
}
