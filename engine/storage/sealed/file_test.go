package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "peers.json"+Ext)
	key, label := testKey(t, 0), Label{JSON, "identity/peers.json"}
	for _, n := range []int{0, 5, ChunkSize, ChunkSize + 1} {
		if got, err := WriteFile(disk.Disk{}, path, key, label, bytes.NewReader(pattern(n))); err != nil || got != int64(n) {
			t.Fatalf("%d bytes: %d, %v", n, got, err)
		}
		plain, err := ReadFile(path, Keys{key}, label, int64(n))
		if err != nil || !bytes.Equal(plain, pattern(n)) {
			t.Fatalf("%d bytes: read %d, %v", n, len(plain), err)
		}
		if n > 0 {
			if _, err := ReadFile(path, Keys{key}, label, int64(n)-1); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%d bytes against a limit of one less: %v", n, err)
			}
		}
		var out bytes.Buffer
		format, id, err := CopyFile(&out, path, Keys{testKey(t, 1), key}, label)
		if err != nil || format != Chunked || id != key.ID() || out.Len() != n {
			t.Errorf("copied %d bytes of format %d under %v: %v", out.Len(), format, id, err)
		}
	}
	if raw, err := os.ReadFile(path); err != nil || bytes.Contains(raw, pattern(64)) {
		t.Errorf("the plaintext lies in the file, %v", err)
	}
}

// TestFailingSource leaves the old file: nothing appears under the name
// before the last chunk.
func TestFailingSource(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f"+Ext)
	key, label := testKey(t, 0), Label{JSON, "f"}
	if _, err := WriteFile(disk.Disk{}, path, key, label, strings.NewReader("old")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	src := io.MultiReader(bytes.NewReader(pattern(2*ChunkSize)), iotest.ErrReader(broken))
	if _, err := WriteFile(disk.Disk{}, path, key, label, src); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if got, err := ReadFile(path, Keys{key}, label, 100); err != nil || string(got) != "old" {
		t.Errorf("read %q, %v", got, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%d files, %v", len(entries), err)
	}
}

func TestFilesThatAreNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, label := testKey(t, 0), Label{JSON, "f"}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/etc/hostname", link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{filepath.Join(dir, "none"): fs.ErrNotExist, link: disk.ErrUnsafe, dir: disk.ErrUnsafe} {
		if _, err := ReadFile(path, Keys{key}, label, 10); !errors.Is(err, want) {
			t.Errorf("reading %s: %v", path, err)
		}
		if _, _, err := CopyFile(io.Discard, path, Keys{key}, label); !errors.Is(err, want) {
			t.Errorf("copying %s: %v", path, err)
		}
	}
	if _, err := WriteFile(disk.Disk{}, link, key, label, strings.NewReader("x")); !errors.Is(err, disk.ErrUnsafe) {
		t.Error(err)
	}
}

func TestWriterRefusesReuse(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	w, err := NewWriter(io.Discard, testKey(t, 0), Label{Blob, "x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("written after Close")
	}
	if err := w.Close(); err == nil {
		t.Error("closed twice")
	}
	if _, err := NewWriter(io.Discard, testKey(t, 0), Label{}, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("without randomness: %v", err)
	}
	r, err := NewReader(iotest.ErrReader(broken), Keys{testKey(t, 0)}, Label{})
	if !errors.Is(err, broken) || r != nil {
		t.Errorf("a failing source: %v", err)
	}
	if _, err := Open(nil, Label{}, mustSeal(t, nil)); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("without keys: %v", err)
	}
	if _, err := Open(Keys{{}}, Label{}, mustSeal(t, nil)); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("with a destroyed key: %v", err)
	}
}

func mustSeal(t testing.TB, plain []byte) []byte {
	t.Helper()
	b, err := Seal(testKey(t, 0), Label{}, plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDetect(t *testing.T) {
	t.Parallel()
	chunked := mustSeal(t, nil)
	for _, c := range []struct {
		head []byte
		size int64
		want Format
	}{
		{chunked, minSize, Chunked}, {chunked, minSize - 1, NotSealed}, {chunked[:5], minSize, Chunked}, {chunked[:4], minSize, NotSealed},
		{[]byte("OSEC\x03"), 100, NotSealed}, {[]byte{1}, minLegacySize, Legacy}, {[]byte{1}, minLegacySize - 1, NotSealed},
		{nil, 0, NotSealed}, {[]byte("{}"), 2, NotSealed}, {[]byte("SQLite format 3\x00"), 4096, NotSealed},
	} {
		if got := Detect(c.head, c.size); got != c.want {
			t.Errorf("%q, %d bytes: %d, want %d", c.head[:min(len(c.head), 5)], c.size, got, c.want)
		}
	}
}

// TestConstantMemory seals and opens 16 MiB with as few allocations and as
// little memory as one byte (performance.md row 8c). It measures, so it does
// not run in parallel, and takes the best of three because the runtime
// allocates too.
func TestConstantMemory(t *testing.T) {
	const size, most, limit = 16 << 20, 20, 512 << 10
	key, label := testKey(t, 0), Label{Blob, "x"}
	best := func(what string, run func() error) {
		allocs, total := ^uint64(0), ^uint64(0)
		for range 3 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := run(); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			allocs, total = min(allocs, after.Mallocs-before.Mallocs), min(total, after.TotalAlloc-before.TotalAlloc)
		}
		if allocs > most || total > limit {
			t.Errorf("%s took %d allocations, %d bytes", what, allocs, total)
		}
	}
	sealed := bytes.NewBuffer(make([]byte, 0, sealedSize(size)))
	src := &io.LimitedReader{R: zeros{}}
	best("sealing", func() error {
		src.N = size
		sealed.Reset()
		w, err := NewWriter(sealed, key, label, nil)
		if err != nil {
			return err
		}
		if _, err := w.ReadFrom(src); err != nil {
			return err
		}
		return w.Close()
	})
	whole := bytes.NewReader(sealed.Bytes())
	best("opening", func() error {
		whole.Reset(sealed.Bytes())
		r, err := NewReader(whole, Keys{key}, label)
		if err != nil {
			return err
		}
		if n, err := r.WriteTo(io.Discard); n != size {
			return fmt.Errorf("%d bytes came back, %w", n, err)
		}
		return nil
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// FuzzOpen: no input panics, and what opens seals and opens to the same.
func FuzzOpen(f *testing.F) {
	for _, v := range vectors(f) {
		if v.SealedSHA256 == "" {
			f.Add(v.data(f), string(v.Purpose), v.Name)
		}
	}
	keys := Keys{testKey(f, 0)}
	f.Fuzz(func(t *testing.T, data []byte, purpose, name string) {
		label := Label{Purpose(purpose), name}
		plain, err := Open(keys, label, data)
		if err != nil {
			return
		}
		roundTrip(t, keys[0], label, plain)
	})
}

// FuzzRoundTrip: whatever is sealed opens under its label and no other.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte(nil), "tasks.json", 1)
	f.Add(pattern(100), "a", 700)
	f.Fuzz(func(t *testing.T, chunk []byte, name string, times int) {
		plain := bytes.Repeat(chunk, max(0, min(times, (3<<16)/(len(chunk)+1))))
		label := Label{JSON, name}
		data := roundTrip(t, testKey(t, 0), label, plain)
		if _, err := Open(Keys{testKey(t, 0)}, Label{JSON, name + "x"}, data); !errors.Is(err, ErrDamaged) {
			t.Errorf("opened under another name: %v", err)
		}
	})
}

func roundTrip(t *testing.T, key dek.Key, label Label, plain []byte) []byte {
	t.Helper()
	data, err := Seal(key, label, plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(Keys{key}, label, data)
	if err != nil || !bytes.Equal(again, plain) {
		t.Fatalf("%d bytes came back as %d, %v", len(plain), len(again), err)
	}
	return data
}
