package image_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"osaurus/engine/sandbox/artifact"
	"osaurus/engine/sandbox/image"
)

func parts() image.Parts {
	return image.Parts{Busybox: []byte("busybox"), Applets: []string{"sh", "busybox", "ls"}, Guest: []byte("guest"), Host: []byte("host")}
}

func build(t *testing.T, entries []image.Entry) *image.Index {
	t.Helper()
	ix, err := image.Build("linux/amd64", entries)
	if err != nil {
		t.Fatal(err)
	}
	return ix
}

// digest is what the recipe gave when it was last changed on purpose.
const digest = "07cc71ff6eaec58b8b1bf3f5bc38efc97285947ada3f612dfa2504625dca7839"

func TestSameBitForBit(t *testing.T) {
	t.Parallel()
	entries := image.Rootfs(parts())
	first := build(t, entries).Digest
	slices.Reverse(entries)
	if second := build(t, entries).Digest; first != second {
		t.Errorf("the order of entries matters: %s and %s", first, second)
	}
	if first != digest {
		t.Errorf("the recipe gives %s, it gave %s", first, digest)
	}
	other := parts()
	other.Guest = []byte("Guest")
	if build(t, image.Rootfs(other)).Digest == first {
		t.Error("another program, the same digest")
	}
}

func TestWriteVerifyUnpack(t *testing.T) {
	t.Parallel()
	ix := build(t, image.Rootfs(parts()))
	dir := filepath.Join(t.TempDir(), "image")
	for range 2 { // the second replaces the first
		if err := ix.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(dir + ".new"); err == nil {
		t.Error("a half layout was left")
	}
	pin := artifact.Pin{Name: artifact.SandboxImage, Platform: "linux/amd64", Kind: artifact.Index, SHA256: ix.Digest, MaxBytes: 1 << 20}
	img, err := artifact.Layout{Dir: dir}.Verify(pin)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	if err := img.Unpack(context.Background(), root, artifact.DefaultLimits); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		"bin/busybox": 0o755, "sbin/osaurus-guest": 0o555, "usr/local/bin/osaurus-host": 0o555,
		"tmp": fs.ModeDir | fs.ModeSticky | 0o777, "root": fs.ModeDir | 0o700, "workspace": fs.ModeDir | 0o755,
		"bin/sh": fs.ModeSymlink | 0o777, "etc/passwd": 0o644,
	} {
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	for _, entries := range [][]image.Entry{
		{{Name: "a"}, {Name: "a"}}, {{Name: "/a"}}, {{Name: "../a"}}, {{Name: "a/"}}, {{Name: ""}}, {{Name: "."}, {Name: "a//b"}},
	} {
		if _, err := image.Build("linux/amd64", entries); err == nil {
			t.Errorf("%v was built", entries)
		}
	}
	if _, err := image.Build("amd64", nil); err == nil {
		t.Error("a platform without a system was taken")
	}
}
