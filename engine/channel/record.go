package channel

import (
	"errors"
	"slices"
	"strconv"
)

// errDestroyed says that the session ended in between.
var errDestroyed = errors.New("channel: session ended")

// sealRequest appends ciphertext ‖ tag of plaintext as request seq, which must
// be used once in the session's life.
func (k *keys) sealRequest(dst, plaintext []byte, seq uint64) ([]byte, error) {
	aead := k.cipher()
	if aead == nil {
		return nil, errDestroyed
	}
	var nonce [nonceSize]byte
	setNonce(&nonce, seq)
	return aead().Seal(dst, nonce[:], plaintext, appendRequestAAD(nil, k.sid, seq)), nil
}

// openRequest opens ct in place. Errors: ErrDecrypt, errDestroyed.
func (k *keys) openRequest(ct []byte, seq uint64) ([]byte, error) {
	aead := k.cipher()
	if aead == nil {
		return nil, errDestroyed
	}
	var nonce [nonceSize]byte
	setNonce(&nonce, seq)
	plaintext, err := aead().Open(ct[:0], nonce[:], ct, appendRequestAAD(nil, k.sid, seq))
	if err != nil {
		return nil, ErrDecrypt
	}
	return plaintext, nil
}

// record is the state both directions of an answer share: its key, and the
// number of the next frame.
type record struct {
	aead  sealed
	seq   uint64
	nonce [nonceSize]byte
	aad   []byte // osaurus-sc1:resp:<sid>:<reqSeq>: and, after fixed bytes, <seq>:<fin>
	fixed int
	buf   []byte // ciphertext of the frame at hand
}

func (k *keys) record(request uint64) (record, error) {
	aead := k.replyKey(request)
	if aead == nil {
		return record{}, errDestroyed
	}
	aad := make([]byte, 0, 96)
	aad = append(append(append(aad, replyAAD...), k.sid...), ':')
	aad = append(strconv.AppendUint(aad, request, 10), ':')
	return record{aead: aead, aad: aad, fixed: len(aad)}, nil
}

// prepare sets nonce and AAD for the next frame.
func (r *record) prepare(fin bool) {
	setNonce(&r.nonce, r.seq)
	r.aad = strconv.AppendUint(r.aad[:r.fixed], r.seq, 10)
	if fin {
		r.aad = append(r.aad, ":1"...)
	} else {
		r.aad = append(r.aad, ":0"...)
	}
}

// sealer seals the one answer to one request, so that no sequence number is
// sealed twice: after the last frame, using it is a programmer's error and
// panics. Not safe for concurrent use.
type sealer struct {
	record
	done bool
}

// whole appends the only frame of a buffered answer.
func (s *sealer) whole(dst, plaintext []byte) []byte {
	if s.seq != 0 {
		panic("channel: a buffered answer in the middle of a stream")
	}
	return s.next(dst, plaintext, true)
}

// chunk appends the next frame of a stream.
func (s *sealer) chunk(dst, plaintext []byte) []byte { return s.next(dst, plaintext, false) }

// end appends the last frame of a stream, which is empty.
func (s *sealer) end(dst []byte) []byte { return s.next(dst, nil, true) }

func (s *sealer) next(dst, plaintext []byte, fin bool) []byte {
	if s.done {
		panic("channel: a frame after the last one")
	}
	s.done = fin
	s.prepare(fin)
	s.buf = slices.Grow(s.buf[:0], len(plaintext)+tagSize)
	s.buf = s.aead().Seal(s.buf, s.nonce[:], plaintext, s.aad)
	dst = appendFrame(dst, frame{ct: s.buf, fin: fin, seq: s.seq})
	s.seq++
	return dst
}

// opener opens the answer to one request. Its first error is final: every
// later call returns it. Not safe for concurrent use.
//
//	reading ──chunk──▶ reading ──fin──▶ finished
//	   └──────any error──────▶ failed ◀──┘ anything more
type opener struct {
	record
	finished bool
	failed   error
}

// whole opens a buffered answer: exactly one frame, sequence 0, fin. The
// result is valid until the next call. Errors: ErrMalformed, ErrReordered,
// ErrTruncated, ErrDecrypt.
func (o *opener) whole(data []byte) ([]byte, error) {
	plaintext, fin, err := o.next(data)
	if err == nil && !fin {
		o.failed = ErrTruncated
	}
	return plaintext, o.failed
}

// chunk opens the next frame of a stream; fin says that it was the last, which
// has to be empty. The result is valid until the next call. Errors:
// ErrMalformed, ErrReordered, ErrAfterFin, ErrDecrypt.
func (o *opener) chunk(data []byte) (plaintext []byte, fin bool, err error) {
	plaintext, fin, err = o.next(data)
	if err == nil && fin && len(plaintext) > 0 {
		o.failed = ErrMalformed
	}
	if o.failed != nil {
		return nil, false, o.failed
	}
	return plaintext, fin, nil
}

func (o *opener) next(data []byte) (plaintext []byte, fin bool, err error) {
	if o.finished && o.failed == nil {
		o.failed = ErrAfterFin
	}
	if o.failed != nil {
		return nil, false, o.failed
	}
	if plaintext, fin, err = o.open(data); err != nil {
		o.failed = err
		return nil, false, err
	}
	o.seq++
	o.finished = fin
	return plaintext, fin, nil
}

func (o *opener) open(data []byte) ([]byte, bool, error) {
	f, err := parseFrame(data, o.buf[:0])
	if err != nil {
		return nil, false, err
	}
	o.buf = f.ct
	if f.seq != o.seq {
		return nil, false, ErrReordered
	}
	o.prepare(f.fin)
	plaintext, err := o.aead().Open(f.ct[:0], o.nonce[:], f.ct, o.aad)
	if err != nil {
		return nil, false, ErrDecrypt
	}
	return plaintext, f.fin, nil
}

// end returns ErrTruncated unless the answer was whole.
func (o *opener) end() error {
	if o.failed == nil && !o.finished {
		o.failed = ErrTruncated
	}
	return o.failed
}
