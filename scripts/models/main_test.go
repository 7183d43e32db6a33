package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestVariants(t *testing.T) {
	t.Parallel()
	if got := variants([]byte("#ifdef BROKEN_B\n#ifndef BROKEN_A\n/* each BROKEN_ variant */ BROKEN_B")); !slices.Equal(got, []string{"BROKEN_A", "BROKEN_B"}) {
		t.Errorf("%q", got)
	}
}

// TestCheckFinds: a false assertion is found, a true one is not, and a model
// whose planted mistake does no harm is refused.
func TestCheckFinds(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("spin"); err != nil {
		t.Skip("spin is missing")
	}
	file := filepath.Join(t.TempDir(), "m.pml")
	for text, want := range map[string]string{
		"byte x;\ninit {\n#ifdef BROKEN_X\n\tx = 1;\n#endif\n\tassert(x == 0)\n}":         "",
		"byte x;\ninit {\n#ifdef BROKEN_X\n\tx = 1;\n#endif\n\tassert(x == 1)\n}":         "assertion violated",
		"byte x;\ninit {\n#ifdef BROKEN_X\n\tx = 1;\n#endif\n\tassert(x <= 1)\n}":         "nothing is found wrong",
		"byte x;\ninit {\n\tassert(x == 0)\n}":                                            "no broken variant",
		"byte x;\ninit {\n#ifdef BROKEN_X\n\tx = 1;\n#endif\n\tassert(x == 0); x == 2\n}": "invalid end state",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := run([]string{file})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v, want %q", text, err, want)
		}
	}
}
