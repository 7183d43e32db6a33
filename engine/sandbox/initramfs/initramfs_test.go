package initramfs_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/sandbox/image"
	"osaurus/engine/sandbox/initramfs"
)

func tree(t *testing.T) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"dev": 0o755, "bin": 0o755, "tmp": 0o777 | fs.ModeSticky} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, size := range map[string]int{"bin/a": 1, "bin/ab": 2, "bin/abc": 3, "bin/abcd": 4, "bin/empty": 0, "bin/replaced": 9} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("x", size)), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a", filepath.Join(dir, "bin/link")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

var extra = []image.Entry{
	{Name: "init", Mode: 0o755, Body: []byte("#!/bin/sh\n")},
	{Name: "boot.json", Mode: 0o600, Body: []byte("{}")},
	{Name: "bin/replaced", Mode: 0o755, Body: []byte("new")},
	{Name: "etc", Mode: fs.ModeDir | 0o755},
	{Name: "etc/l", Mode: fs.ModeSymlink, Target: "../init"},
}

func packed(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := initramfs.Write(&out, tree(t), extra...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// digest is of the archive when its form was last changed on purpose.
const digest = "0913f162f7e10e1be37618c872ddcb24d7d786fd9dbef080a6c87a72d9993c79"

func TestSameBitForBit(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256(packed(t))
	if got := hex.EncodeToString(sum[:]); got != digest {
		t.Errorf("the archive has %s, it had %s", got, digest)
	}
}

// TestAnotherProgramReadsIt unpacks with busybox what was packed.
func TestAnotherProgramReadsIt(t *testing.T) {
	t.Parallel()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox: install busybox-static")
	}
	cmd := exec.Command(busybox, "cpio", "-itv")
	cmd.Stdin = bytes.NewReader(packed(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"drwxrwxrwt .* tmp", "-rwxr-x--- .* bin/abcd", "lrwxrwxrwx .* bin/link -> a", "-rw------- .* boot.json",
		"crw------- .* dev/console", "lrwxrwxrwx .* etc/l -> ../init", "-rwxr-xr-x .* init",
	} {
		mode, name, _ := strings.Cut(want, " .* ")
		found := false
		for line := range strings.Lines(string(out)) {
			found = found || strings.HasPrefix(line, mode) && strings.HasSuffix(strings.TrimSpace(line), " "+name)
		}
		if !found {
			t.Errorf("no line %q in\n%s", want, out)
		}
	}
	if n := strings.Count(string(out), "bin/replaced"); n != 1 {
		t.Errorf("bin/replaced stands there %d times", n)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	for _, bad := range [][]image.Entry{{{Name: "/init"}}, {{Name: "../init"}}, {{Name: "a"}, {Name: "a"}}, {{Name: "."}}, {{Name: "dev/console"}}} {
		if err := initramfs.Write(&bytes.Buffer{}, tree(t), bad...); err == nil {
			t.Errorf("%v was packed", bad)
		}
	}
	if err := initramfs.Write(full{}, tree(t)); err == nil {
		t.Error("a full disk was not noticed")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, os.ErrClosed }
