package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// craft writes an image of raw layers into a layout: what image.Build would
// not make.
func craft(t testing.TB, mediaType string, diffOf func(layer []byte) []byte, layers ...[]byte) (Layout, Pin) {
	t.Helper()
	l := Layout{Dir: t.TempDir()}
	must(t, l.create())
	put := func(raw []byte) descriptor {
		sum := sumOf(raw)
		must(t, os.WriteFile(l.Blob(sum), raw, 0o600))
		return descriptor{Digest: "sha256:" + sum, Size: int64(len(raw))}
	}
	doc := func(v any) descriptor {
		raw, err := json.Marshal(v)
		must(t, err)
		return put(raw)
	}
	var diffs []string
	var descs []descriptor
	for _, raw := range layers {
		sum := sha256.Sum256(diffOf(raw))
		diffs = append(diffs, "sha256:"+hex.EncodeToString(sum[:]))
		d := put(raw)
		d.MediaType = mediaType
		descs = append(descs, d)
	}
	cfg := doc(map[string]any{"rootfs": map[string]any{"diff_ids": diffs}})
	man := doc(map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "config": cfg, "layers": descs})
	man.Platform = &platform{"linux", "amd64"}
	ix := doc(map[string]any{"mediaType": indexTypes[0], "manifests": []descriptor{man}})
	return l, pinOf(strings.TrimPrefix(ix.Digest, "sha256:"), "registry.invalid/sandbox")
}

const plainLayer = "application/vnd.oci.image.layer.v1.tar"

func same(b []byte) []byte { return b }

func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		body := h.Uname // carries the content in these tests
		h.Uname = ""
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		must(t, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			_, err := w.Write([]byte(body))
			must(t, err)
		}
	}
	must(t, w.Close())
	return out.Bytes()
}

func file(name, body string) tar.Header { return tar.Header{Name: name, Uname: body} }
func dir(name string) tar.Header        { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
func link(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
}
func hard(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}
}

// TestUnpackRefuses tries what an archive can do to who unpacks it. A file
// beside the destination must stay as it is.
func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	cases := map[string][]tar.Header{
		"absolute name":              {file("/etc/passwd", "evil")},
		"name that goes up":          {file("../outside", "evil")},
		"name that goes up inside":   {file("a/../../outside", "evil")},
		"name that comes back":       {dir("a"), file("a/../b", "evil")},
		"name that is up":            {dir("..")},
		"name that is no text":       {file("a\xffb", "evil")},
		"link that goes up":          {link("l", "../outside")},
		"link that goes up inside":   {dir("a"), link("a/l", "../../outside")},
		"absolute link that goes up": {link("l", "/../outside")},
		"link to nothing":            {link("l", "")},
		"file through a link that leaves by another": {
			dir("a"), dir("a/b"), link("x", "a/b"), link("x/y", "../../.."), file("x/y/outside", "evil"),
		},
		"hard link that goes up":      {hard("h", "../outside")},
		"absolute hard link":          {hard("h", "/etc/passwd")},
		"hard link to nothing":        {hard("h", "nothing")},
		"hard link to a folder":       {dir("d"), hard("h", "d")},
		"hard link to a link":         {link("l", "a"), hard("h", "l")},
		"character device":            {{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
		"block device":                {{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8}},
		"pipe":                        {{Name: "pipe", Typeflag: tar.TypeFifo}},
		"whiteout of nothing":         {file("a/.wh.", "")},
		"whiteout that goes up":       {file("a/.wh...", "")},
		"file below a file":           {file("f", "x"), file("f/g", "evil")},
		"whiteout outside by a link":  {link("l", "/"), file("l/../../.wh.outside", "")},
		"hard link through a link up": {dir("a"), link("a/l", "/../.."), hard("h", "a/l/outside")},
	}
	for name, headers := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, pin := craft(t, plainLayer, same, tarOf(t, headers...))
			img, err := l.Verify(pin)
			must(t, err)
			parent := t.TempDir()
			outside := filepath.Join(parent, "outside")
			must(t, os.WriteFile(outside, []byte("good"), 0o600))
			dest := filepath.Join(parent, "root")
			wants(t, img.Unpack(context.Background(), dest, DefaultLimits), "")
			if raw, err := os.ReadFile(outside); err != nil || string(raw) != "good" {
				t.Error("a file outside was changed")
			}
			if all, _ := os.ReadDir(parent); len(all) != 1 {
				t.Errorf("left behind: %v", all)
			}
		})
	}
}

func TestUnpackLayersOverEachOther(t *testing.T) {
	t.Parallel()
	lower := tarOf(t,
		dir("bin"), file("bin/tool", "old"), link("sh", "/bin/tool"), dir("data"), file("data/gone", "x"), file("data/kept", "x"),
		dir("opaque"), file("opaque/old", "x"), file("was-file", "x"), dir("was-dir"), file("was-dir/x", "x"), hard("bin/same", "bin/tool"),
		tar.Header{Name: "bin/setuid", Uname: "x", Mode: 0o4755}, tar.Header{Name: "tmp", Typeflag: tar.TypeDir, Mode: 0o1777})
	upper := tarOf(t,
		file("bin/tool", "new"), file("data/.wh.gone", ""), file("opaque/new", "x"), file("opaque/.wh..wh..opq", ""),
		dir("was-file"), file("was-file/in", "x"), file("was-dir", "now a file"), file("deep/er/file", "x"), link("deep/up", "../bin"))
	l, pin := craft(t, plainLayer, same, lower, upper)
	dest, err := unpackTo(t, l, pin, DefaultLimits)
	must(t, err)
	for name, want := range map[string]string{"bin/tool": "new", "sh": "new", "bin/same": "old", "was-file/in": "x", "was-dir": "now a file", "deep/er/file": "x", "deep/up/tool": "new", "opaque/new": "x"} {
		if raw, err := os.ReadFile(filepath.Join(dest, name)); err != nil || string(raw) != want {
			t.Errorf("%s: %q, %v", name, raw, err)
		}
	}
	for _, name := range []string{"data/gone", "opaque/old", "data/.wh.gone"} {
		if _, err := os.Lstat(filepath.Join(dest, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	if info, err := os.Stat(filepath.Join(dest, "bin/setuid")); err != nil || info.Mode() != 0o755 {
		t.Errorf("set-id file: %v %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(dest, "tmp")); err != nil || info.Mode() != os.ModeDir|os.ModeSticky|0o777 {
		t.Errorf("sticky folder: %v %v", info.Mode(), err)
	}
	if to, err := os.Readlink(filepath.Join(dest, "sh")); err != nil || to != "bin/tool" {
		t.Errorf("an absolute link became %q", to)
	}
}

func gzipped(t testing.TB, raw []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(raw)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

func TestUnpackChecksDiffIDs(t *testing.T) {
	t.Parallel()
	raw := tarOf(t, file("a", "content"))
	const kind = "application/vnd.oci.image.layer.v1.tar+gzip"
	plain := func([]byte) []byte { return raw }
	l, pin := craft(t, kind, plain, gzipped(t, raw))
	_, err := unpackTo(t, l, pin, DefaultLimits)
	must(t, err)
	// The blob is what the manifest names, and unpacks to something else.
	l, pin = craft(t, kind, plain, gzipped(t, tarOf(t, file("a", "another"))))
	_, err = unpackTo(t, l, pin, DefaultLimits)
	wants(t, err, "unpacked layer: SHA-256 mismatch")
	l, pin = craft(t, kind, plain, gzipped(t, raw)[:40])
	_, err = unpackTo(t, l, pin, DefaultLimits)
	wants(t, err, "")
	l, pin = craft(t, kind, same, []byte("no gzip at all"))
	_, err = unpackTo(t, l, pin, DefaultLimits)
	wants(t, err, "gzip")
	l, pin = craft(t, "application/vnd.oci.image.layer.v1.tar+zstd", same, raw)
	if _, err = unpackTo(t, l, pin, DefaultLimits); err == nil {
		t.Error("an unknown compression was accepted")
	}
}

func TestUnpackLimits(t *testing.T) {
	t.Parallel()
	l, pin := craft(t, plainLayer, same, tarOf(t, file("a", strings.Repeat("x", 1000)), file("b", "y"), dir("c")))
	for _, c := range []struct {
		limits Limits
		text   string
	}{
		{Limits{1001, 3}, ""}, {Limits{1000, 3}, "too many bytes"}, {Limits{1001, 2}, "too many entries"},
	} {
		_, err := unpackTo(t, l, pin, c.limits)
		if c.text == "" {
			must(t, err)
		} else {
			wants(t, err, c.text)
		}
	}
}

func TestUnpackStops(t *testing.T) {
	t.Parallel()
	l, pin := built(t)
	img, err := l.Verify(pin)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	dest := filepath.Join(t.TempDir(), "root")
	if err := img.Unpack(ctx, dest, DefaultLimits); err == nil {
		t.Fatal("a cancelled unpack went on")
	}
	if _, err := os.Lstat(dest); err == nil {
		t.Fatal("something was left")
	}
	must(t, os.Mkdir(dest, 0o700))
	if err := img.Unpack(context.Background(), dest, DefaultLimits); err == nil {
		t.Fatal("it unpacked over what was there")
	}
	if _, err := os.Lstat(dest); err != nil {
		t.Fatal("it deleted what it did not make")
	}
}

// FuzzUnpack feeds any tar: it never writes outside, panics, or leaves a link
// that leads out.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, dir("a"), file("a/b", "x"), link("l", "/a/b"), hard("h", "a/b")))
	f.Add(tarOf(f, dir("a"), link("a/l", "b/../.."), file("a/l/x", "evil")))
	f.Add(tarOf(f, file("a/.wh.b", ""), file("a/.wh..wh..opq", "")))
	f.Add([]byte("not a tar"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) == 0 {
			return
		}
		l, pin := craft(t, plainLayer, same, raw)
		img, err := l.Verify(pin)
		must(t, err)
		parent := t.TempDir()
		dest := filepath.Join(parent, "root")
		if img.Unpack(context.Background(), dest, Limits{1 << 20, 200}) != nil {
			dest = ""
		}
		all, err := os.ReadDir(parent)
		if err != nil || len(all) > 1 || len(all) == 1 && filepath.Join(parent, all[0].Name()) != dest {
			t.Fatal("something lies outside")
		}
		if dest != "" {
			must(t, linksStayInside(dest))
		}
	})
}

func linksStayInside(dest string) error {
	return filepath.WalkDir(dest, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSymlink == 0 {
			return err
		}
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		if filepath.IsAbs(to) || !strings.HasPrefix(filepath.Join(filepath.Dir(path), to)+"/", dest+"/") {
			return fmt.Errorf("%s leads to %s", path, to)
		}
		return nil
	})
}
