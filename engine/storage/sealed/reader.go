package sealed

import (
	"bytes"
	"errors"
	"io"

	"osaurus/engine/storage/dek"
)

// Reader opens a stream in constant memory; a file of format 1 is held whole.
// Every byte it returns is authentic, but only io.EOF says that the file is
// complete: nobody may act on a part. After an error every call returns it.
type Reader struct {
	src    io.Reader
	box    box
	format Format
	key    dek.ID
	plain  []byte // opened and not yet read
	carry  int    // how many bytes of the next chunk buf ends with
	err    error
	buf    [ChunkSize + TagSize + 1]byte // one sealed chunk and the first byte of the next
}

// NewReader reads the header of src and picks the key it names.
func NewReader(src io.Reader, keys Keys, label Label) (*Reader, error) {
	r := &Reader{src: src}
	n, err := io.ReadFull(src, r.buf[:minLegacySize])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	chunked, legacy := bytes.HasPrefix(r.buf[:n], []byte(magic)), n > 0 && r.buf[0] == legacyVersion
	switch {
	case !chunked && !legacy:
		return nil, ErrNotSealed
	case n < minLegacySize:
		return nil, ErrTruncated
	case chunked:
		err = r.startChunked(keys, label)
	default:
		err = r.openLegacy(keys)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// KeyID reads the id of the key a file of format 2 names. Format 1 names none:
// ErrHeader.
func KeyID(src io.Reader) (dek.ID, error) {
	var head [HeaderSize]byte
	if _, err := io.ReadFull(src, head[:]); err != nil {
		return dek.ID{}, truncated(err)
	}
	if string(head[:len(magic)]) != magic || head[4] != version {
		return dek.ID{}, ErrHeader
	}
	return dek.ID(head[8:16]), nil
}

func (r *Reader) startChunked(keys Keys, label Label) error {
	aad := append(label.buffer(), r.buf[:minLegacySize]...)[:HeaderSize]
	if _, err := io.ReadFull(r.src, aad[minLegacySize:]); err != nil {
		return truncated(err)
	}
	if aad[4] != version || aad[5] != 0 || aad[6] != 0 || aad[7] != 0 {
		return ErrHeader
	}
	key, err := keys.find(dek.ID(aad[8:16]))
	if err != nil {
		return err
	}
	r.format, r.key = Chunked, key.ID()
	r.box, err = newBox(key, label.additional(aad))
	return err
}

// openLegacy opens format 1 with whichever key fits: it names none.
func (r *Reader) openLegacy(keys Keys) error {
	head := r.buf[:minLegacySize]
	rest, err := io.ReadAll(io.LimitReader(r.src, MaxLegacySize-minLegacySize+1))
	if err != nil {
		return err
	}
	if minLegacySize+len(rest) > MaxLegacySize {
		return ErrTooLarge
	}
	nonce, ciphertext := head[1:1+nonceSize], append(bytes.Clone(head[1+nonceSize:]), rest...)
	err = ErrUnknownKey
	for _, key := range keys {
		if key.IsZero() {
			continue
		}
		aead, aeadErr := key.LegacyFile()
		if aeadErr != nil {
			return aeadErr
		}
		// Into fresh memory: a failed attempt would zero its destination.
		if plain, openErr := aead.Open(nil, nonce, ciphertext, nil); openErr == nil {
			r.format, r.key, r.plain, r.err = Legacy, key.ID(), plain, io.EOF
			return nil
		}
		err = ErrDamaged
	}
	return err
}

// Format returns the format found.
func (r *Reader) Format() Format { return r.format }

// Key returns the id of the key that opens the file.
func (r *Reader) Key() dek.ID { return r.key }

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.plain) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// WriteTo implements io.WriterTo, handing out whole chunks.
func (r *Reader) WriteTo(dst io.Writer) (int64, error) {
	var total int64
	for {
		if len(r.plain) > 0 {
			n, err := dst.Write(r.plain)
			r.plain, total = r.plain[n:], total+int64(n)
			if err != nil {
				return total, err
			}
		}
		switch {
		case errors.Is(r.err, io.EOF):
			return total, nil
		case r.err != nil:
			return total, r.err
		}
		r.fill()
	}
}

// fill opens the next chunk into plain. A chunk is the last one if no byte
// follows it.
func (r *Reader) fill() {
	const whole = ChunkSize + TagSize
	if r.carry > 0 {
		r.buf[0] = r.buf[whole]
	}
	n, err := io.ReadFull(r.src, r.buf[r.carry:])
	n += r.carry
	last := n <= whole
	switch {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		r.err = err
		return
	case n < TagSize || n == TagSize && r.box.next > 0:
		r.err = ErrTruncated
		return
	}
	nonce, err := r.box.advance(last)
	if err != nil {
		r.err = err
		return
	}
	chunk := r.buf[:min(n, whole)]
	if r.plain, err = r.box.aead.Open(chunk[:0], nonce, chunk, r.box.aad); err != nil {
		r.plain, r.err = nil, ErrDamaged
		return
	}
	if r.carry = 1; last {
		r.err = io.EOF
	}
}

// Open returns the content of a sealed file of either format.
func Open(keys Keys, label Label, data []byte) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(data), keys, label)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Grow(len(data))
	if _, err := r.WriteTo(&out); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return err
}
