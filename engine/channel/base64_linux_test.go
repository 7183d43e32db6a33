package channel

import (
	"bytes"
	"encoding/base64"
	"syscall"
	"testing"
)

// TestBase64AtThePageEdge places buffers against an unmapped page: reading or
// writing one byte too far kills the process.
func TestBase64AtThePageEdge(t *testing.T) {
	t.Parallel()
	page := syscall.Getpagesize()
	edge := func() []byte {
		mem, err := syscall.Mmap(-1, 0, 2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Munmap(mem) })
		if err := syscall.Mprotect(mem[page:], syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		return mem[:page:page]
	}
	plain, text, back := edge(), edge(), edge()
	for i := range plain {
		plain[i] = byte(i * 31)
	}
	for name, c := range codecs {
		for n := range 300 {
			size := base64.RawURLEncoding.EncodedLen(n)
			src, enc, dst := plain[page-n:], text[page-size:], back[page-n:]
			c.Encode(enc, src)
			if got, err := c.Decode(dst, enc); err != nil || got != n || !bytes.Equal(src, dst) {
				t.Fatalf("%s: %d bytes: %d, %v", name, n, got, err)
			}
		}
	}
}
