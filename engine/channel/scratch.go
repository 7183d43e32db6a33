package channel

import (
	"io"
	"slices"
	"sync"
)

// scratch keeps buffers between calls. A borrower stores what it used back
// into *b before giving it up: wipe when that was plaintext, recycle when it was
// not. A buffer that is never given up is garbage, no more.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// borrow returns an empty buffer with room for n bytes.
func borrow(n int) *[]byte {
	b := scratch.Get().(*[]byte) //nolint:errcheck // the pool holds nothing else
	*b = slices.Grow((*b)[:0], n)
	return b
}

func wipe(b *[]byte) {
	clear(*b)
	recycle(b)
}

func recycle(b *[]byte) {
	if cap(*b) <= maxIdle {
		scratch.Put(b)
	}
}

// readAll appends what r holds to dst, at most limit bytes, else ErrTooLarge.
// declared, a Content-Length, only chooses the first buffer.
func readAll(dst []byte, r io.Reader, declared int64, limit int) ([]byte, error) {
	if declared > int64(limit) {
		return dst, ErrTooLarge
	}
	// One byte more than declared lets the read that meets EOF go without
	// another allocation.
	dst = slices.Grow(dst, int(min(max(declared+1, 512), firstRead)))
	start := len(dst)
	for {
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst)-start > limit:
			return dst, ErrTooLarge
		case err == io.EOF: //nolint:errorlint // io.Reader's contract is the bare value
			return dst, nil
		case err != nil:
			return dst, err
		}
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, len(dst))
		}
	}
}
