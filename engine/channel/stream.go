package channel

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// events reads the data lines of an event stream: one frame each, with CRLF or
// LF. Other fields and comments are skipped; a line that is cut off by the end
// is none. next's result is valid until the next call.
type events struct {
	in   *bufio.Reader
	long []byte // a line longer than in's buffer
}

func (e *events) next() ([]byte, error) {
	for {
		line, err := e.line()
		if err != nil {
			return nil, err
		}
		if data, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			return bytes.TrimPrefix(data, []byte(" ")), nil
		}
	}
}

// line returns the next line without its end. Errors: ErrTooLarge, or the
// reader's.
func (e *events) line() ([]byte, error) {
	line, err := e.in.ReadSlice('\n')
	for e.long = e.long[:0]; errors.Is(err, bufio.ErrBufferFull); {
		if len(e.long)+len(line) > maxEvent {
			return nil, ErrTooLarge
		}
		e.long = append(e.long, line...)
		line, err = e.in.ReadSlice('\n')
	}
	if err != nil {
		return nil, err
	}
	if len(e.long) > 0 {
		e.long = append(e.long, line...)
		line = e.long
	}
	if len(line) > maxEvent {
		return nil, ErrTooLarge
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

// stream is the body of a streaming answer: the bytes the inner handler wrote.
// Read returns io.EOF only after the authentic end, and only when nothing
// follows it. Not safe for concurrent use, except that Close may interrupt a
// Read.
type stream struct {
	outer   io.ReadCloser
	events  events
	open    *opener
	pending []byte // opened and not yet read
	err     error  // final
	leave   func() // gives the call's places back; may be called twice
}

func newStream(outer io.ReadCloser, open *opener, leave func()) *stream {
	return &stream{outer: outer, events: events{in: bufio.NewReaderSize(outer, 32<<10)}, open: open, leave: leave}
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.pending) == 0 && s.err == nil && len(p) > 0 {
		if s.pending, s.err = s.frame(); s.err != nil {
			s.leave()
		}
	}
	n := copy(p, s.pending)
	s.pending = s.pending[n:]
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, s.err
}

// frame returns the next frame's plaintext.
func (s *stream) frame() ([]byte, error) {
	data, err := s.events.next()
	if err == nil {
		plaintext, _, err := s.open.chunk(data)
		return plaintext, err
	}
	if errors.Is(err, ErrTooLarge) {
		return nil, err
	}
	if end := s.open.end(); end == nil {
		return nil, io.EOF // after fin, how the connection ended does not matter
	}
	return nil, cut(err)
}

// Close implements io.Closer. Before the end it ends the call.
func (s *stream) Close() error {
	s.leave()
	return s.outer.Close()
}
