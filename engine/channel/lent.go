package channel

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// loan is a borrowed buffer that bodies read from. It goes back when its last
// holder has given it up; the one who made it is the first.
type loan struct {
	buf     *[]byte
	giveUp  func(*[]byte) // wipe or recycle
	holders atomic.Int32
}

func newLoan(buf *[]byte, giveUp func(*[]byte)) *loan {
	l := &loan{buf: buf, giveUp: giveUp}
	l.holders.Store(1)
	return l
}

func (l *loan) drop() {
	if l.holders.Add(-1) == 0 {
		l.giveUp(l.buf)
	}
}

// body returns a reader of part, which lies in the buffer, as one more holder
// until it is closed.
func (l *loan) body(part []byte) io.ReadCloser {
	l.holders.Add(1)
	return &lentBody{loan: l, rest: part}
}

// lentBody fails after Close, also for a goroutine that outlived its handler:
// the buffer serves another call by then.
type lentBody struct {
	mu   sync.Mutex
	loan *loan // nil once closed
	rest []byte
}

func (b *lentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.loan == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *lentBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.loan != nil {
		b.loan.drop()
		b.loan, b.rest = nil, nil
	}
	return nil
}
