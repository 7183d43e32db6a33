package sealed

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"filippo.io/age"

	"osaurus/engine/atomicfile"
	"osaurus/engine/internal/benchratio"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
)

// memoryDir is a folder that no disk slows down, where there is one.
func memoryDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "osaurus-bench-")
	if err != nil {
		return b.TempDir()
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// BenchmarkFiles is rows 8a to 8c: sealing a file beside copying it, and
// beside age.
func BenchmarkFiles(b *testing.B) {
	dir := memoryDir(b)
	key, label := testKey(b, 0), Label{JSON, "bench"}
	recipient, err := age.GenerateX25519Identity()
	if err != nil {
		b.Fatal(err)
	}
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	source := func(size int) (string, func() *os.File) {
		path := filepath.Join(dir, fmt.Sprint("source", size))
		must(atomicfile.Write(path, bytes.Repeat([]byte("0123456789abcdef"), size/16)))
		return path, func() *os.File {
			f, err := os.Open(path)
			must(err)
			return f
		}
	}
	seal := func(open func() *os.File) func() {
		return func() {
			f := open()
			_, err := WriteFile(disk.Disk{}, filepath.Join(dir, "sealed"), key, label, f)
			must(err)
			must(f.Close())
		}
	}
	// The same durable replacement with another content.
	replace := func(open func() *os.File, fill func(io.Writer, io.Reader) error) func() {
		return func() {
			f := open()
			must(disk.Disk{}.Replace(filepath.Join(dir, "other"), func(w io.Writer) error { return fill(w, f) }))
			must(f.Close())
		}
	}
	withAge := func(w io.Writer, r io.Reader) error {
		enc, err := age.Encrypt(w, recipient.Recipient())
		must(err)
		_, err = io.Copy(enc, r)
		must(err)
		return enc.Close()
	}
	_, large := source(64 << 20)
	b.Run("8a sealing 64 MiB vs copying", func(b *testing.B) {
		buf := make([]byte, ChunkSize)
		plain := replace(large, func(w io.Writer, r io.Reader) error {
			_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf)
			return err
		})
		benchratio.Compare(b, benchratio.Calling, benchratio.AtLeast(0.5), seal(large), plain)
	})
	for _, c := range []struct {
		name string
		size int
		goal float64
	}{{"64 MiB", 64 << 20, 0.95}, {"1 MiB", 1 << 20, 1.25}, {"16 KiB", 16 << 10, 3}} {
		_, open := source(c.size)
		b.Run("8b sealing "+c.name+" vs age", func(b *testing.B) {
			benchratio.Compare(b, benchratio.Calling, benchratio.AtLeast(c.goal), seal(open), replace(open, withAge))
		})
	}
	content := make([]byte, 64<<20)
	b.Run("8c allocations at 64 MiB", func(b *testing.B) {
		benchratio.Measure(b, 1, "allocs", benchratio.AtMost(20), func() float64 { return testing.AllocsPerRun(3, sealInto(b, content, key, label)) })
	})
	b.Run("8c memory at 64 MiB", func(b *testing.B) {
		benchratio.Measure(b, 3, "KiB", benchratio.AtMost(512), func() float64 {
			run := sealInto(b, content, key, label)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			run()
			runtime.ReadMemStats(&after)
			return float64(after.TotalAlloc-before.TotalAlloc) / 1024
		})
	})
}

// sealInto seals content that is at hand into nothing.
func sealInto(b *testing.B, content []byte, key dek.Key, label Label) func() {
	src := bytes.NewReader(content)
	return func() {
		src.Reset(content)
		w, err := NewWriter(io.Discard, key, label, nil)
		if err == nil {
			_, err = w.ReadFrom(src)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
