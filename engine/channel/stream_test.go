package channel

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// sealedStream returns a stream of chunks as the server writes it, and an
// opener for it.
func sealedStream(t testing.TB, chunks ...string) (string, *opener) {
	t.Helper()
	s, o := newReplyPair(t)
	var wire []byte
	for _, c := range chunks {
		wire = append(s.chunk(append(wire, eventHead...), []byte(c)), eventTail...)
	}
	wire = append(s.end(append(wire, eventHead...)), eventTail...)
	return string(wire), o
}

// readStream reads wire to its end, in pieces of every kind.
func readStream(wire io.Reader, o *opener) (string, error) {
	left := 0
	s := newStream(io.NopCloser(wire), o, func() { left++ })
	got, err := io.ReadAll(s)
	if n, again := s.Read(make([]byte, 1)); n != 0 || (err != nil && again != err) || (err == nil && again != io.EOF) { //nolint:errorlint // the very same
		return string(got), errors.New("the end is not final")
	}
	if left == 0 {
		return string(got), errors.New("the call's place was not given back")
	}
	return string(got), err
}

func TestStreamBody(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long ", 20_000) // beyond the reader's buffer
	wire, _ := sealedStream(t, "one", "two\n\n", long, "three")
	events := strings.SplitAfter(wire, "\n\n")
	for name, x := range map[string]struct {
		wire string
		want string
		err  error
	}{
		"as written":           {wire, "onetwo\n\n" + long + "three", nil},
		"CRLF":                 {strings.ReplaceAll(wire, "\n", "\r\n"), "onetwo\n\n" + long + "three", nil},
		"no space":             {strings.ReplaceAll(wire, "data: ", "data:"), "onetwo\n\n" + long + "three", nil},
		"comments and fields":  {": ping\n\nevent: x\nid: 7\n" + strings.Replace(wire, "\n\ndata", "\n\n: ping\nretry: 1\n\ndata", 1) + ": bye\n\n", "onetwo\n\n" + long + "three", nil},
		"single line ends":     {strings.ReplaceAll(wire, "\n\n", "\n"), "onetwo\n\n" + long + "three", nil},
		"empty":                {"", "", ErrTruncated},
		"cut before the end":   {strings.Join(events[:4], ""), "onetwo\n\n" + long + "three", ErrTruncated},
		"cut within a line":    {wire[:len(events[0])+20], "one", ErrTruncated},
		"cut at the line's LF": {strings.TrimRight(events[0], "\n"), "", ErrTruncated},
		"a frame missing":      {events[0] + events[2], "one", ErrReordered},
		"a frame twice":        {events[0] + events[0], "one", ErrReordered},
		"after the end":        {wire + events[0], "onetwo\n\n" + long + "three", ErrAfterFin},
		"not a frame":          {events[0] + "data: [DONE]\n\n", "one", ErrMalformed},
		"empty data":           {events[0] + "data:\n\n", "one", ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, r := range []io.Reader{strings.NewReader(x.wire), iotest.OneByteReader(strings.NewReader(x.wire)), iotest.DataErrReader(strings.NewReader(x.wire))} {
				_, o := newReplyPair(t)
				got, err := readStream(r, o)
				if got != x.want || !errors.Is(err, x.err) {
					t.Errorf("got %d bytes and %v, want %d and %v", len(got), err, len(x.want), x.err)
				}
				if errors.Is(err, io.EOF) {
					t.Error("a failure reads as an end")
				}
			}
		})
	}
}

func TestStreamBrokenConnection(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection reset")
	wire, _ := sealedStream(t, "one")
	_, o := newReplyPair(t)
	got, err := readStream(io.MultiReader(strings.NewReader(wire[:len(wire)-10]), iotest.ErrReader(broken)), o)
	if got != "one" || !errors.Is(err, ErrTruncated) || !errors.Is(err, broken) {
		t.Errorf("got %q, %v", got, err)
	}
	// After the authentic end, how the connection went down says nothing.
	_, o = newReplyPair(t)
	if got, err := readStream(io.MultiReader(strings.NewReader(wire), iotest.ErrReader(broken)), o); got != "one" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestStreamLineLimit: a line of maxEvent bytes is read, one byte more is not,
// and memory does not grow with what follows.
func TestStreamLineLimit(t *testing.T) {
	t.Parallel()
	for _, over := range []int64{0, 1} {
		line := io.MultiReader(strings.NewReader("data: "), io.LimitReader(zeros{}, maxEvent-7+over), strings.NewReader("\n"))
		e := events{in: bufio.NewReaderSize(line, 4096)}
		got, err := e.next()
		if over == 0 && (err != nil || len(got) != maxEvent-7) {
			t.Errorf("at the limit: %d bytes, %v", len(got), err)
		}
		if over == 1 && !errors.Is(err, ErrTooLarge) {
			t.Errorf("over the limit: %d bytes, %v", len(got), err)
		}
	}
	_, o := newReplyPair(t)
	if _, err := readStream(io.MultiReader(strings.NewReader("data: "), zeros{}), o); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an endless line: %v", err)
	}
}

func TestStreamClose(t *testing.T) {
	t.Parallel()
	wire, o := sealedStream(t, "one")
	closed, left := false, 0
	s := newStream(closer{strings.NewReader(wire), &closed}, o, func() { left++ })
	if n, err := s.Read(nil); n != 0 || err != nil {
		t.Errorf("reading nothing: %d, %v", n, err)
	}
	if err := s.Close(); err != nil || !closed || left != 1 {
		t.Errorf("close: %v, outer closed %v, %d places", err, closed, left)
	}
}

type closer struct {
	io.Reader
	closed *bool
}

func (c closer) Close() error { *c.closed = true; return nil }

// FuzzStream feeds any bytes as an event stream: nothing but a prefix of the
// authentic plaintext comes out, and all of it when there is no error.
func FuzzStream(f *testing.F) {
	chunks := []string{"one", "two\n\n", "three"}
	wire, _ := sealedStream(f, chunks...)
	f.Add([]byte(wire))
	f.Add([]byte(strings.ReplaceAll(wire, "\n", "\r\n")))
	f.Add([]byte(wire + wire))
	f.Add([]byte(wire[:len(wire)/2]))
	f.Add([]byte(": ping\n\n" + wire))
	whole := strings.Join(chunks, "")
	f.Fuzz(func(t *testing.T, data []byte) {
		_, o := newReplyPair(t)
		got, err := readStream(bytes.NewReader(data), o)
		if !strings.HasPrefix(whole, got) {
			t.Fatalf("%q came out", got)
		}
		if err == nil && got != whole {
			t.Fatalf("%q passes for whole", got)
		}
	})
}
