package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRefusesWhatIsNotStatic(t *testing.T) {
	t.Parallel()
	text := filepath.Join(t.TempDir(), "busybox")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/bin/ls": "not static", text: "EOF", "/no/such/busybox": "busybox-static"} {
		if _, err := build(path, t.TempDir()+"/image"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
