package guest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"osaurus/engine/sandbox/wire"
)

func openHome(t *testing.T) (h *home, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "home")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return &home{root: root, uid: os.Getuid(), seen: map[uint64]string{}}, dir
}

// TestUnpackHostile: an archive writes into its home alone, whatever it says,
// and one that breaks off is an error.
func TestUnpackHostile(t *testing.T) {
	t.Parallel()
	h, dir := openHome(t)
	outside := filepath.Join(filepath.Dir(dir), "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	gz := gzip.NewWriter(&raw)
	archive := tar.NewWriter(gz)
	for _, e := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "../outside/a"}, {Typeflag: tar.TypeReg, Name: outside + "/b"}, {Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside}, {Typeflag: tar.TypeReg, Name: "l/c"},
		{Typeflag: tar.TypeDir, Name: "l/d"}, {Typeflag: tar.TypeLink, Name: "e", Linkname: "../outside"}, {Typeflag: tar.TypeFifo, Name: "l/f"}, {Typeflag: tar.TypeChar, Name: "g"}, {Typeflag: tar.TypeDir, Name: "l"}, {Typeflag: tar.TypeReg, Name: "good"},
	} {
		if err := archive.WriteHeader(&e); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	unpack := func(data []byte) error {
		if err := os.WriteFile(filepath.Join(dir, wire.PackedHome), data, 0o600); err != nil {
			t.Fatal(err)
		}
		return h.unpack()
	}
	if err := unpack(raw.Bytes()); err != nil || h.left != 8 {
		t.Errorf("%d stayed behind, %v", h.left, err)
	}
	if list, err := os.ReadDir(outside); err != nil || len(list) != 0 {
		t.Errorf("outside the home: %v %v", list, err)
	}
	var names []string
	list, err := os.ReadDir(dir)
	for _, e := range list {
		names = append(names, e.Name())
	}
	if err != nil || !slices.Equal(names, []string{"good", "l"}) {
		t.Errorf("%q %v", names, err)
	}
	for _, data := range [][]byte{nil, []byte("no archive"), raw.Bytes()[:raw.Len()/2]} {
		if unpack(data) == nil {
			t.Errorf("%d bytes were unpacked", len(data))
		}
	}
}

// TestHoles: zeros take no room, neither in the middle nor at the end.
func TestHoles(t *testing.T) {
	t.Parallel()
	h, dir := openHome(t)
	const size = 128 << 20
	f, err := os.Create(filepath.Join(dir, "holes"))
	if err == nil {
		_, err = f.WriteAt([]byte("x"), size/2)
	}
	if err := errors.Join(err, f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	if err := h.pack(&raw); err != nil || h.left != 0 {
		t.Fatal(h.left, err)
	}
	to, dir := openHome(t)
	if err := os.WriteFile(filepath.Join(dir, wire.PackedHome), raw.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := to.unpack(); err != nil || to.left != 0 {
		t.Fatal(to.left, err)
	}
	info, err := os.Stat(filepath.Join(dir, "holes"))
	if st, ok := sysOf(info, err); !ok || info.Size() != size || st.Blocks*512 > 1<<20 {
		t.Errorf("%v %+v", err, st)
	}
}
