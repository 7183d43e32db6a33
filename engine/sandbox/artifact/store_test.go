package artifact

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"archive/tar"

	"github.com/ulikunitz/xz"
)

func TestStore(t *testing.T) {
	t.Parallel()
	_, image, _ := pushed(t)
	s := newSource(t, serveFile(kernelBytes, ""))
	kernel := filePin(s.URL)
	store := &Store{Dir: t.TempDir(), Pins: Pins{kernel, image}, Network: loopback(t)}
	states := func() (all []State) {
		reports, err := store.VerifyAll(context.Background())
		must(t, err)
		for _, r := range reports {
			all = append(all, r.State)
		}
		return all
	}
	if got := states(); got[0] != Absent || got[1] != Absent {
		t.Fatalf("an empty store: %v", got)
	}
	if _, err := store.Image(SandboxImage, testPlatform); !errors.Is(err, ErrAbsent) {
		t.Fatal(err)
	}
	for range 2 { // the second pull has nothing to do
		must(t, store.Pull(context.Background(), kernel))
		must(t, store.Pull(context.Background(), image))
	}
	if len(s.heads) != 1 {
		t.Errorf("the kernel was fetched %d times", len(s.heads))
	}
	if got := states(); got[0] != Good || got[1] != Good {
		t.Fatalf("a full store: %v", got)
	}
	img, err := store.Image(SandboxImage, testPlatform)
	must(t, err)
	path, err := store.File(Kernel, testPlatform)
	must(t, err)

	// Tampering after a good boot is seen at the next.
	raw, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, flip(raw), 0o600))
	if _, err := store.File(Kernel, testPlatform); !errors.Is(err, ErrIntegrity) {
		t.Errorf("a damaged kernel: %v", err)
	}
	layer := store.layout(image).Blob(img.Layers[0].Digest)
	must(t, os.WriteFile(layer, []byte("evil"), 0o600))
	if _, err := store.Image(SandboxImage, testPlatform); !errors.Is(err, ErrIntegrity) {
		t.Errorf("a damaged layer: %v", err)
	}
	if got := states(); got[0] != Damaged || got[1] != Damaged {
		t.Fatalf("a damaged store: %v", got)
	}
	if _, err := store.Image(Kernel, testPlatform); !errors.Is(err, ErrPin) {
		t.Error("a file was taken for an image")
	}
	if _, err := store.File(SandboxImage, testPlatform); !errors.Is(err, ErrPin) {
		t.Error("an image was taken for a file")
	}
	if _, err := store.File("nothing", testPlatform); !errors.Is(err, ErrPin) {
		t.Error("an unpinned name was found")
	}
}

func TestStoreOfThisBuild(t *testing.T) {
	t.Parallel()
	l, pin := built(t)
	pin.Reference = "libexec/" + filepath.Base(l.Dir) + "@sha256:" + pin.SHA256
	runsc := filePin("libexec/osaurus-runsc")
	store := &Store{Dir: t.TempDir(), Libexec: filepath.Dir(l.Dir), Pins: Pins{pin, runsc}}
	_, err := store.Image(pin.Name, testPlatform)
	must(t, err)
	if err := store.Pull(context.Background(), runsc); !errors.Is(err, ErrAbsent) {
		t.Errorf("what was not built: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(store.Libexec, "osaurus-runsc"), kernelBytes, 0o755))
	must(t, store.Pull(context.Background(), runsc))
	must(t, os.WriteFile(filepath.Join(store.Libexec, "osaurus-runsc"), flip(kernelBytes), 0o755))
	if err := store.Pull(context.Background(), runsc); !errors.Is(err, ErrIntegrity) {
		t.Errorf("another program: %v", err)
	}
}

func xzTar(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	must(t, err)
	_, err = w.Write(tarOf(t, headers...))
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

func TestStoreMember(t *testing.T) {
	t.Parallel()
	const in = "opt/kata/"
	for name, c := range map[string]struct {
		headers []tar.Header
		good    bool
	}{
		"a file":              {[]tar.Header{file("./"+in+"vmlinux.container", string(kernelBytes))}, true},
		"a link before it":    {[]tar.Header{link(in+"vmlinux.container", "vmlinux-6"), file(in+"vmlinux-6", string(kernelBytes))}, true},
		"another file":        {[]tar.Header{file(in+"vmlinux.container", "evil")}, false},
		"a longer file":       {[]tar.Header{file(in+"vmlinux.container", string(kernelBytes)+"x")}, false},
		"no such file":        {[]tar.Header{file(in+"vmlinuz", string(kernelBytes))}, false},
		"a link in a circle":  {[]tar.Header{link(in+"vmlinux.container", "vmlinux.container")}, false},
		"a link that goes up": {[]tar.Header{link(in+"vmlinux.container", "../../../etc/passwd")}, false},
	} {
		archive := xzTar(t, c.headers...)
		s := newSource(t, serveFile(archive, ""))
		outer := Pin{Name: "kata-static", Platform: testPlatform, Kind: File, URLs: []string{s.URL}, SHA256: sumOf(archive), MaxBytes: MaxFile}
		inner := filePin("member/kata-static/opt/kata/vmlinux.container")
		store := &Store{Dir: t.TempDir(), Pins: Pins{outer, inner}, Network: loopback(t)}
		err := store.Pull(context.Background(), inner)
		if c.good {
			must(t, err)
			_, err = store.File(Kernel, testPlatform)
			must(t, err)
			continue
		}
		if !errors.Is(err, ErrIntegrity) {
			t.Errorf("%s: got %v", name, err)
		}
		gone(t, store.Path(inner), store.Path(inner)+partialSuffix)
		must(t, store.Verify(outer)) // the archive was good and stays
	}
}
