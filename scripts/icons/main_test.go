package main

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"testing"
)

func TestIcons(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := draw("../../resources/icons", dir); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "Osaurus.icns"))
	if err != nil {
		t.Fatal(err)
	}
	if string(raw[:4]) != "icns" || int(binary.BigEndian.Uint32(raw[4:])) != len(raw) {
		t.Fatalf("the container says %q, %d of %d bytes", raw[:4], binary.BigEndian.Uint32(raw[4:]), len(raw))
	}
	for rest, n := raw[8:], 0; n < len(sizes); n++ {
		size := binary.BigEndian.Uint32(rest[4:])
		img, err := png.Decode(bytes.NewReader(rest[8:size]))
		if err != nil || string(rest[:4]) != sizes[n].kind || img.Bounds().Dx() != sizes[n].side {
			t.Fatalf("image %d is %q, %v", n, rest[:4], err)
		}
		if rest = rest[size:]; (len(rest) == 0) != (n == len(sizes)-1) {
			t.Fatalf("%d bytes are left after image %d", len(rest), n)
		}
	}
	inks := map[string]int{}
	for _, name := range []string{"plain", "running", "waiting"} {
		for suffix, side := range map[string]int{"Template.png": 18, "Template@2x.png": 36} {
			inks[name] = template(t, filepath.Join(dir, "menubar-"+name+suffix), side)
		}
	}
	if inks["running"] == inks["plain"] || inks["waiting"] == inks["plain"] {
		t.Error("the dots are not to be seen")
	}
}

// template checks that an image is black and clear alone, as macOS wants of a
// template, and returns how many pixels are inked.
func template(t *testing.T, name string, side int) (inked int) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil || img.Bounds() != image.Rect(0, 0, side, side) {
		t.Fatalf("%s: %v, %v", name, img.Bounds(), err)
	}
	for y := range side {
		for x := range side {
			r, g, b, a := img.At(x, y).RGBA()
			if r != 0 || g != 0 || b != 0 {
				t.Fatalf("%s has colour at %d,%d", name, x, y)
			}
			if a > 0x8000 {
				inked++
			}
		}
	}
	if inked == 0 || inked == side*side {
		t.Errorf("%s shows nothing", name)
	}
	return inked
}

func TestBroken(t *testing.T) {
	t.Parallel()
	if _, err := raster([]byte("<svg"), 16); err == nil {
		t.Error("a broken drawing was drawn")
	}
	if err := draw(t.TempDir(), t.TempDir()); err == nil {
		t.Error("nothing was drawn, and that is no error")
	}
}
