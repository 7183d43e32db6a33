package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"osaurus/engine/storage/disk"
)

var at = time.Date(2026, 11, 24, 5, 6, 7, 8, time.UTC)

const text = `{"walrus":1}`

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(text string) func(io.Writer) error {
	return func(dst io.Writer) error { _, err := io.WriteString(dst, text); return err }
}

// small writes an export of one file.
func small(t testing.TB, o Options) string {
	t.Helper()
	o.Dir, o.Created, o.AppVersion = t.TempDir(), at, "1"
	w, err := Create(o)
	must(t, err)
	must(t, w.Add(Item{Kind: Config, Path: Config.Path("config/a.json")}, int64(len(text)), write(text)))
	path, m, err := w.Commit()
	must(t, err)
	if path != o.Final() || len(m.Items) != 1 || !m.Complete {
		t.Fatalf("%s %+v", path, m)
	}
	return path
}

func verify(t testing.TB, path string, ids ...age.Identity) (*Source, error) {
	t.Helper()
	s, err := Open(path, ids...)
	if err != nil {
		return nil, err
	}
	_, err = s.Verify(t.Context(), func(int64) {})
	return s, err
}

func identity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	must(t, err)
	return id
}

func TestForms(t *testing.T) {
	t.Parallel()
	id := identity(t)
	for name, o := range map[string]Options{"osaurus-export-20261124T050607Z": {}, "osaurus-export-20261124T050607Z.tar": {Tar: true}, "osaurus-export-20261124T050607Z.tar.age": {Recipients: []age.Recipient{id.Recipient()}}} {
		path := small(t, o)
		if filepath.Base(path) != name {
			t.Errorf("%s is called %s", name, filepath.Base(path))
		}
		s, err := verify(t, path, id)
		must(t, err)
		got := ""
		must(t, s.Each(t.Context(), func(it Item, r io.Reader) error {
			raw, err := io.ReadAll(r)
			got += it.Rel() + string(raw)
			return err
		}))
		if got != "config/a.json"+text {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestStrangersOpenIt: the tar inside an age file is what age and tar say.
func TestStrangersOpenIt(t *testing.T) {
	t.Parallel()
	id := identity(t)
	raw, err := os.ReadFile(small(t, Options{Recipients: []age.Recipient{id.Recipient()}}))
	must(t, err)
	if bytes.Contains(raw, []byte("walrus")) {
		t.Fatal("readable")
	}
	plain, err := age.Decrypt(bytes.NewReader(raw), id)
	must(t, err)
	var names []string
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		if h.Mode != 0o600 || !h.ModTime.Equal(at.Truncate(time.Second)) {
			t.Errorf("%s: %v %v", h.Name, h.Mode, h.ModTime)
		}
		names = append(names, strings.TrimPrefix(h.Name, "osaurus-export-20261124T050607Z/"))
	}
	if got := strings.Join(names, " "); got != "README.txt config/config/a.json manifest.json" {
		t.Errorf("the tar holds %s", got)
	}
}

func TestIdentities(t *testing.T) {
	t.Parallel()
	path := small(t, Options{Recipients: []age.Recipient{identity(t).Recipient()}})
	for _, ids := range [][]age.Identity{nil, {identity(t)}} {
		if _, err := verify(t, path, ids...); !errors.Is(err, ErrIdentity) {
			t.Errorf("%d identities: %v", len(ids), err)
		}
	}
}

// TestCutAndChanged: no byte of an archive may be missing or another.
func TestCutAndChanged(t *testing.T) {
	t.Parallel()
	id := identity(t)
	for _, o := range []Options{{Tar: true}, {Recipients: []age.Recipient{id.Recipient()}}} {
		raw, err := os.ReadFile(small(t, o))
		must(t, err)
		path := filepath.Join(t.TempDir(), "x.tar")
		end := bytes.LastIndexByte(raw, '}') // a tar ends in zero bytes
		if !o.Tar {
			end = len(raw)
		}
		for cut := 0; cut < end; cut += 97 {
			must(t, os.WriteFile(path, raw[:cut], 0o600))
			if _, err := verify(t, path, id); err == nil {
				t.Fatalf("cut at %d of %d: taken", cut, len(raw))
			}
		}
		if !bytes.HasPrefix(raw, []byte(agePrefix)) {
			continue
		}
		for at := 0; at < len(raw); at += 7 { // each costs an exchange of keys
			bad := bytes.Clone(raw)
			bad[at] ^= 1
			must(t, os.WriteFile(path, bad, 0o600))
			if _, err := verify(t, path, id); err == nil {
				t.Fatalf("changed at %d of %d: taken", at, len(raw))
			}
		}
	}
}

// TestTarsRefused: what only a tar can hold.
func TestTarsRefused(t *testing.T) {
	t.Parallel()
	const root = "osaurus-export-20261124T050607Z/"
	manifest, err := json.Marshal(Manifest{V: 1, Complete: true, Items: []Item{}})
	must(t, err)
	last := tar.Header{Name: root + "manifest.json", Typeflag: tar.TypeReg}
	for name, headers := range map[string][]tar.Header{
		"no folder":       {{Name: "manifest.json", Typeflag: tar.TypeReg}},
		"another folder":  {{Name: "other/README.txt", Typeflag: tar.TypeReg}, last},
		"two folders":     {{Name: root + "README.txt", Typeflag: tar.TypeReg}, {Name: "osaurus-export-20261124T050608Z/manifest.json", Typeflag: tar.TypeReg}},
		"absolute":        {{Name: "/etc/passwd", Typeflag: tar.TypeReg}, last},
		"a parent":        {{Name: root + "config/../../x", Typeflag: tar.TypeReg}, last},
		"a link":          {{Name: root + "config/x", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink}, last},
		"a hard link":     {{Name: root + "config/x", Linkname: root + "README.txt", Typeflag: tar.TypeLink}, last},
		"a device":        {{Name: root + "config/x", Typeflag: tar.TypeChar}, last},
		"a FIFO":          {{Name: root + "config/x", Typeflag: tar.TypeFifo}, last},
		"a name twice":    {{Name: root + "config/x", Typeflag: tar.TypeReg}, {Name: root + "config/x", Typeflag: tar.TypeReg}, last},
		"manifests twice": {last, last},
		"unlisted":        {{Name: root + "config/x", Typeflag: tar.TypeReg}, last},
		"a hidden file":   {{Name: root + "config/.x", Typeflag: tar.TypeReg}, last},
		"a backslash":     {{Name: root + `config/a\b`, Typeflag: tar.TypeReg}, last},
		"no manifest":     {{Name: root + "README.txt", Typeflag: tar.TypeReg}},
		"empty":           {},
	} {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, h := range headers {
			body := []byte(nil)
			if strings.HasSuffix(h.Name, "manifest.json") {
				body = manifest
			}
			h.Size = int64(len(body))
			must(t, w.WriteHeader(&h))
			_, err := w.Write(body)
			must(t, err)
		}
		must(t, w.Close())
		path := filepath.Join(t.TempDir(), "x.tar")
		must(t, os.WriteFile(path, out.Bytes(), 0o600))
		if _, err := verify(t, path); err == nil {
			t.Errorf("%s was taken", name)
		} else if !errors.Is(err, ErrNotExport) && !errors.Is(err, ErrDiffers) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestChangedBetween: a file that changes after Verify is not taken.
func TestChangedBetween(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(path string) error{
		"changed": func(path string) error { return os.WriteFile(path, []byte(`{"walrus":2}`), 0o600) },
		"longer":  func(path string) error { return os.WriteFile(path, []byte(text+" "), 0o600) },
		"shorter": func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
		"gone":    os.Remove,
	} {
		path := small(t, Options{})
		s, err := verify(t, path)
		must(t, err)
		must(t, change(filepath.Join(path, "config/config/a.json")))
		err = s.Each(t.Context(), func(_ Item, r io.Reader) error { _, err := io.Copy(io.Discard, r); return err })
		if !errors.Is(err, ErrDiffers) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	t.Parallel()
	for _, tarred := range []bool{false, true} {
		w, err := Create(Options{Dir: t.TempDir(), Created: at, Tar: tarred})
		must(t, err)
		for name, f := range map[string]func() error{
			"too short":  func() error { return w.Add(Item{Kind: Config, Path: "config/b"}, 5, write("four")) },
			"too long":   func() error { return w.Add(Item{Kind: Config, Path: "config/c"}, 3, write("four")) },
			"outside":    func() error { return w.Add(Item{Kind: Config, Path: "config/../x"}, 4, write("four")) },
			"other kind": func() error { return w.Add(Item{Kind: Blob, Path: "config/x"}, 4, write("four")) },
		} {
			if f() == nil {
				t.Errorf("%s was written", name)
			}
			if tarred {
				break // a tar that failed is not written further
			}
		}
		must(t, w.Abort())
	}
	w, err := Create(Options{Dir: t.TempDir(), Created: at})
	must(t, err)
	must(t, w.Add(Item{Kind: Config, Path: "config/b"}, 4, write("four")))
	if w.Add(Item{Kind: Blob, Path: "blobs/b"}, 4, write("four")) == nil {
		t.Error("written out of order")
	}
}

func TestAbortTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	refuse := false
	d := disk.Disk{Step: func(op disk.Op, _ string) error {
		if refuse && op == disk.Remove {
			return errors.New("no")
		}
		return nil
	}}
	w, err := Create(Options{Disk: d, Dir: t.TempDir(), Created: at})
	must(t, err)
	refuse = true
	if err := w.Abort(); err == nil || !strings.Contains(err.Error(), "holds plaintext") {
		t.Errorf("%v", err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"osaurus-export-20261124T050607Z.partial": true, "osaurus-export-20261124T050607Z.tar.partial": true, "osaurus-export-20261124T050607Z.tar.age.partial": true,
		"osaurus-export-20261124T050607Z": false, "osaurus-export-20261124T050607Z.tar": false, "x.partial": false, "osaurus-export-2026.partial": false, ".partial": false, "": false,
	} {
		if IsPartial(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
	long := strings.Repeat("a", maxName)
	for path, want := range map[string]bool{
		"a/b": true, "config/" + long: true, "config/" + long + "a": false, "config/é ✓": true, "config/\xff": false, "config/\u0007": false, "": false,
		"/a": false, "a/": false, "a//b": false, "a/./b": false, "..": false, "a/..b": false, `a\b`: false,
		strings.Repeat("abc/", MaxPath/4)[1:] + "d": true, strings.Repeat("abc/", MaxPath/4) + "d": false,
	} {
		if ValidPath(path) != want {
			t.Errorf("%q: %v", path, !want)
		}
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, o := range []Options{{}, {Tar: true}} {
		s, err := Open(small(t, o))
		must(t, err)
		if _, err := s.Verify(ctx, func(int64) {}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
}

// FuzzTar: whatever a file holds, reading it ends in an answer, and what is
// taken is what the manifest says.
func FuzzTar(f *testing.F) {
	raw, err := os.ReadFile(small(f, Options{Tar: true}))
	must(f, err)
	f.Add(raw)
	f.Add(raw[:1000])
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "x")
		must(t, os.WriteFile(path, raw, 0o600))
		s, err := verify(t, path)
		if err != nil {
			return
		}
		must(t, s.Each(t.Context(), func(it Item, r io.Reader) error {
			if !ValidPath(it.Path) {
				t.Errorf("%q was taken", it.Path)
			}
			_, err := io.Copy(io.Discard, r)
			return err
		}))
	})
}
