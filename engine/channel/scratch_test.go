package channel

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

func TestReadAll(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, x := range map[string]struct {
		from     io.Reader
		declared int64
		limit    int
		want     int
		err      error
	}{
		"empty":               {strings.NewReader(""), 0, 10, 0, nil},
		"at the limit":        {strings.NewReader("0123456789"), 10, 10, 10, nil},
		"unknown length":      {strings.NewReader("0123456789"), -1, 10, 10, nil},
		"declared over":       {strings.NewReader(""), 11, 10, 0, ErrTooLarge},
		"over":                {strings.NewReader("0123456789A"), -1, 10, 11, ErrTooLarge},
		"lies about length":   {strings.NewReader("0123456789A"), 2, 10, 11, ErrTooLarge},
		"endless":             {zeros{}, -1, 1 << 20, 0, ErrTooLarge},
		"breaks":              {io.MultiReader(strings.NewReader("01"), iotest.ErrReader(broken)), -1, 10, 2, broken},
		"data with the end":   {iotest.DataErrReader(strings.NewReader("0123456789")), 10, 10, 10, nil},
		"a byte at a time":    {iotest.OneByteReader(io.LimitReader(zeros{}, 100_000)), -1, 1 << 20, 100_000, nil},
		"more than the first": {io.LimitReader(zeros{}, 4*firstRead), 4 * firstRead, 8 * firstRead, 4 * firstRead, nil},
	} {
		prefix := []byte("prefix")
		got, err := readAll(prefix, x.from, x.declared, x.limit)
		if !errors.Is(err, x.err) || !bytes.HasPrefix(got, prefix) || (x.want > 0 && len(got) < len(prefix)+min(x.want, x.limit)) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if err == nil && len(got) != len(prefix)+x.want {
			t.Errorf("%s: %d bytes", name, len(got)-len(prefix))
		}
	}
}

// TestDeclaredLengthReservesLittle: a liar costs firstRead bytes, not what it
// declared.
func TestDeclaredLengthReservesLittle(t *testing.T) {
	t.Parallel()
	got, err := readAll(nil, strings.NewReader("x"), maxCall, maxCall)
	if err != nil || cap(got) > 2*firstRead {
		t.Errorf("%d bytes reserved, %v", cap(got), err)
	}
}

func TestWipeClearsAndLargeBuffersGo(t *testing.T) {
	t.Parallel()
	b := borrow(16)
	*b = append(*b, "plaintext"...)
	kept := *b
	wipe(b)
	if !bytes.Equal(kept, make([]byte, len("plaintext"))) {
		t.Errorf("%q is left", kept)
	}
	large := borrow(maxIdle + 1)
	*large = append(*large, "plaintext"...)
	kept = *large
	wipe(large)
	if !bytes.Equal(kept, make([]byte, len("plaintext"))) {
		t.Errorf("%q is left in a large buffer", kept)
	}
}

// TestLentBodies: the buffer goes back once, after its last holder, and no
// reader sees it after Close.
func TestLentBodies(t *testing.T) {
	t.Parallel()
	buf, back := []byte("content"), 0
	l := newLoan(&buf, func(*[]byte) { back++ })
	a, b := l.body(buf), l.body(buf[3:])
	l.drop()
	if got, err := io.ReadAll(a); string(got) != "content" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for range 2 {
		if err := a.Close(); err != nil || back != 0 {
			t.Errorf("close: %v, given back %d times", err, back)
		}
	}
	if n, err := a.Read(make([]byte, 1)); n != 0 || !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("after Close: %d, %v", n, err)
	}
	if got, err := io.ReadAll(iotest.OneByteReader(b)); string(got) != "tent" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if err := b.Close(); err != nil || back != 1 {
		t.Errorf("close: %v, given back %d times", err, back)
	}
}

// TestRequestBodyOutlivesNothing: a goroutine that a handler left behind
// reads its own request's bytes or an error, never another's.
func TestRequestBodyOutlivesNothing(t *testing.T) {
	t.Parallel()
	c := newCall(t)
	var left sync.WaitGroup
	for i := range 50 {
		mark := byte('a' + i%26)
		text, err := appendInnerRequest(nil, &innerRequest{method: "POST", path: "/", body: bytes.Repeat([]byte{mark}, 5000)})
		if err != nil {
			t.Fatal(err)
		}
		c.post(t, c.envelope(t, string(text)), func(_ http.ResponseWriter, r *http.Request) {
			left.Go(func() {
				got, err := io.ReadAll(iotest.OneByteReader(r.Body))
				if err != nil && !errors.Is(err, http.ErrBodyReadAfterClose) {
					t.Error(err)
				}
				if len(bytes.Trim(got, string(mark))) != 0 {
					t.Errorf("read another request's body: %q", got)
				}
			})
		})
	}
	left.Wait()
}
