package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/sandbox/artifact"
)

func pinsFile(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "pins.json")
	if err := os.WriteFile(copied, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}

func find(t *testing.T, file, name, platform string) artifact.Pin {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pins, err := artifact.ParsePins(raw)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pins.Find(name, platform)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSet(t *testing.T) {
	t.Parallel()
	file, sum := pinsFile(t), strings.Repeat("ab", 32)
	var out bytes.Buffer
	for _, args := range []string{
		"set sandbox-image linux/arm64 " + sum,
		"set -max 99 -note built kernel linux/arm64 " + strings.ToUpper(sum),
		"set -source libexec/osaurus-runsc -max 1000 -note n runsc linux/arm64 " + sum,
	} {
		if err := run(file, strings.Fields(args), &out); err != nil {
			t.Fatalf("%s: %v", args, err)
		}
	}
	if p := find(t, file, "sandbox-image", "linux/arm64"); p.Reference != "ghcr.io/osaurus-ai/sandbox@sha256:"+sum {
		t.Errorf("the reference is %s", p.Reference)
	}
	if p := find(t, file, "kernel", "linux/arm64"); p.SHA256 != sum || p.MaxBytes != 99 || p.Note != "built" {
		t.Errorf("the kernel is %+v", p)
	}
	if p := find(t, file, "runsc", "linux/arm64"); p.Kind != artifact.File || p.URLs[0] != "libexec/osaurus-runsc" {
		t.Errorf("the new record is %+v", p)
	}
	if err := run(file, strings.Fields("set -check kernel linux/arm64 "+sum), &out); err != nil {
		t.Errorf("nothing changes: %v", err)
	}
	content := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(content, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(file, []string{"set", "kernel", "linux/arm64", content}, &out); err != nil {
		t.Fatal(err)
	}
	if p := find(t, file, "kernel", "linux/arm64"); !strings.HasPrefix(p.SHA256, "e3b0c442") {
		t.Errorf("the hash of a file is %s", p.SHA256)
	}
}

func TestRefusesAndLeavesTheFile(t *testing.T) {
	t.Parallel()
	file, sum := pinsFile(t), strings.Repeat("ab", 32)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for args, usage := range map[string]bool{
		"":                                     true,
		"set":                                  true,
		"set kernel linux/arm64":               true,
		"drop kernel":                          true,
		"set nothing linux/amd64 " + sum:       false,
		"set kernel linux/arm64 no-such-file":  false,
		"set -check kernel linux/arm64 " + sum: false,
		"set -source http://x/y kernel linux/arm64 " + sum:          false,
		"set -source libexec/../x sandbox-image linux/amd64 " + sum: false,
		"set -max 99999999999 kernel linux/arm64 " + sum:            false,
	} {
		err := run(file, strings.Fields(args), &bytes.Buffer{})
		if err == nil || errors.Is(err, errUsage) != usage {
			t.Errorf("%q: %v", args, err)
		}
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Error("the file was changed")
	}
}

// TestFileIsInItsOwnForm makes every edit a small diff.
func TestFileIsInItsOwnForm(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(pinsFile(t))
	if err != nil {
		t.Fatal(err)
	}
	pins, err := artifact.ParsePins(raw)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := encode(pins); err != nil || !bytes.Equal(raw, again) {
		t.Errorf("pins.json would be rewritten:\n%s", again)
	}
}
