package sealed

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"osaurus/engine/storage/dek"
)

// box seals or opens the chunks of one file in order.
type box struct {
	aead  cipher.AEAD
	aad   []byte // begins with the header
	nonce [nonceSize]byte
	next  uint64
}

func newBox(key dek.Key, aad []byte) (box, error) {
	aead, err := key.File(aad[HeaderSize-saltSize : HeaderSize])
	return box{aead: aead, aad: aad}, err
}

// advance returns the nonce of the next chunk.
func (b *box) advance(last bool) ([]byte, error) {
	if b.next >= maxChunks {
		return nil, ErrTooLarge
	}
	binary.BigEndian.PutUint32(b.nonce[7:], uint32(b.next))
	b.nonce[nonceSize-1] = 0
	if last {
		b.nonce[nonceSize-1] = 1
	}
	b.next++
	return b.nonce[:], nil
}

// newAdditional returns a fresh header followed by what label adds to it.
func newAdditional(key dek.Key, label Label, random io.Reader) ([]byte, error) {
	if random == nil {
		random = rand.Reader
	}
	id := key.ID()
	aad := append(label.buffer(), magic...)
	aad = append(aad, version, 0, 0, 0)
	aad = append(aad, id[:]...)
	aad = aad[:HeaderSize]
	if _, err := io.ReadFull(random, aad[HeaderSize-saltSize:]); err != nil {
		return nil, fmt.Errorf("sealed: reading randomness: %w", err)
	}
	return label.additional(aad), nil
}

// Seal returns plaintext sealed in one piece of memory. random is crypto/rand
// when nil.
func Seal(key dek.Key, label Label, plaintext []byte, random io.Reader) ([]byte, error) {
	aad, err := newAdditional(key, label, random)
	if err != nil {
		return nil, err
	}
	b, err := newBox(key, aad)
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, sealedSize(int64(len(plaintext)))), aad[:HeaderSize]...)
	for last := false; !last; {
		n := min(len(plaintext), ChunkSize)
		last = n == len(plaintext)
		nonce, err := b.advance(last)
		if err != nil {
			return nil, err
		}
		out, plaintext = b.aead.Seal(out, nonce, plaintext[:n], aad), plaintext[n:]
	}
	return out, nil
}

// sealedSize returns how long n plaintext bytes become.
func sealedSize(n int64) int64 {
	return HeaderSize + n + max(1, (n+ChunkSize-1)/ChunkSize)*TagSize
}

// Writer seals a stream in constant memory. Close seals the last chunk: what
// was written without it does not open. After an error every call returns it.
type Writer struct {
	dst io.Writer
	box box
	n   int // how much of buf is filled
	err error
	buf [ChunkSize + TagSize]byte // a chunk and the first byte of the next, sealed in place
}

var errClosed = errors.New("sealed: write after Close")

// NewWriter writes the header of a file sealed with key for label. random is
// crypto/rand when nil.
func NewWriter(dst io.Writer, key dek.Key, label Label, random io.Reader) (*Writer, error) {
	aad, err := newAdditional(key, label, random)
	if err != nil {
		return nil, err
	}
	w := &Writer{dst: dst}
	if w.box, err = newBox(key, aad); err != nil {
		return nil, err
	}
	if _, err := dst.Write(aad[:HeaderSize]); err != nil {
		return nil, err
	}
	return w, nil
}

// room is where the next bytes go. A full chunk is held back until a byte
// follows it, which tells that it is not the last.
func (w *Writer) room() []byte {
	if w.n > ChunkSize {
		w.flush(false)
	}
	return w.buf[w.n : ChunkSize+1]
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 && w.err == nil {
		n := copy(w.room(), p)
		p, w.n, written = p[n:], w.n+n, written+n
	}
	return written, w.err
}

// ReadFrom implements io.ReaderFrom, reading straight into the chunk.
func (w *Writer) ReadFrom(src io.Reader) (int64, error) {
	var total int64
	for w.err == nil {
		n, err := src.Read(w.room())
		w.n, total = w.n+n, total+int64(n)
		if errors.Is(err, io.EOF) {
			break
		} else if w.err == nil {
			w.err = err
		}
	}
	return total, w.err
}

func (w *Writer) flush(last bool) {
	chunk := w.buf[:min(w.n, ChunkSize)]
	following := w.buf[ChunkSize]
	nonce, err := w.box.advance(last)
	if err == nil {
		_, err = w.dst.Write(w.box.aead.Seal(chunk[:0], nonce, chunk, w.box.aad))
	}
	w.n -= len(chunk)
	w.buf[0] = following
	if w.err == nil {
		w.err = err
	}
}

// Close seals the last chunk. It does not close the destination.
func (w *Writer) Close() error {
	if w.n > ChunkSize {
		w.flush(false)
	}
	if w.err != nil {
		return w.err
	}
	w.flush(true)
	if w.err != nil {
		return w.err
	}
	w.err = errClosed
	return nil
}
