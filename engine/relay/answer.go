package relay

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"unicode/utf8"

	"osaurus/engine/relay/wire"
)

// answer is the http.ResponseWriter of one call. A handler that answers with
// events is streamed: what it has written goes out when the socket is free.
// Any other answer is one frame, unless it grows large (decisions D20).
type answer struct {
	id     string
	out    *outbox
	header http.Header

	mu        sync.Mutex
	room      *sync.Cond // signalled when the queue shrinks or the call ends
	status    int
	sent      map[string]string // the head, as it was when it was written
	streaming bool
	started   bool // stream_start was sent
	buf       []byte
	done      bool
	gone      bool // nothing more is sent
}

func newAnswer(id string, out *outbox) *answer {
	a := &answer{id: id, out: out, header: http.Header{}}
	a.room = sync.NewCond(&a.mu)
	return a
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writeHeadLocked(status)
}

func (a *answer) writeHeadLocked(status int) {
	if a.status != 0 || status >= 100 && status < 200 {
		return
	}
	a.status, a.sent = status, flatten(a.header)
	kind := strings.ToLower(a.sent["content-type"])
	if strings.Contains(kind, "text/event-stream") || strings.Contains(kind, "application/x-ndjson") {
		a.streaming = true
		a.out.ready(a)
	}
}

// errGone is what a handler gets whose caller went away.
var errGone = errors.New("relay: the caller went away")

// Write implements http.ResponseWriter. It waits while too much is queued.
func (a *answer) Write(p []byte) (n int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writeHeadLocked(http.StatusOK)
	for len(p) > 0 {
		for a.streaming && len(a.buf) >= MaxQueued && !a.gone {
			a.room.Wait()
		}
		if a.gone || a.done {
			return n, errGone
		}
		part := p
		if a.streaming {
			part = p[:min(len(p), MaxQueued-len(a.buf))]
		}
		a.buf = append(a.buf, part...)
		n, p = n+len(part), p[len(part):]
		if !a.streaming && len(a.buf) > streamFrom {
			a.grow()
		}
		if a.streaming {
			a.out.ready(a)
		}
	}
	return n, nil
}

// grow turns a large answer into a stream, if it is text so far.
func (a *answer) grow() {
	if complete := whole(a.buf); !utf8.Valid(a.buf[:complete]) {
		a.refuseLocked(binaryBody)
		return
	}
	a.streaming = true
}

// refuseLocked answers in place of the handler, which has sent nothing yet.
func (a *answer) refuseLocked(body string) {
	a.gone, a.buf = true, nil
	a.out.urgent(refusal(a.id, http.StatusBadGateway, body))
	a.room.Broadcast()
}

// Flush implements http.Flusher: a stream goes out by itself.
func (a *answer) Flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writeHeadLocked(http.StatusOK)
}

// finish ends the answer. A handler that did not get to its end is cut off: a
// buffered answer becomes an error, of a stream the caller's own check tells.
func (a *answer) finish(failed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return
	}
	if failed && !a.streaming {
		a.refuseLocked(failedBody)
		return
	}
	a.writeHeadLocked(http.StatusOK)
	if !a.streaming && !utf8.Valid(a.buf) {
		a.refuseLocked(binaryBody)
		return
	}
	if a.status < 200 || a.status > 599 {
		a.refuseLocked(failedBody)
		return
	}
	a.done = true
	a.out.ready(a)
}

// wait returns when nothing is left to send: only then may another request take
// the place of this one.
func (a *answer) wait() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.gone {
		a.room.Wait()
	}
}

// responseLocked is a whole answer in one frame.
func (a *answer) responseLocked() *wire.Frame {
	f := &wire.Frame{Type: wire.Response, ID: a.id, Status: a.status, Headers: a.sent}
	if a.status != http.StatusNoContent && a.status != http.StatusResetContent && a.status != http.StatusNotModified {
		body := string(a.buf)
		f.Body = &body
	}
	a.gone, a.buf = true, nil
	a.room.Broadcast()
	return f
}

// abandon sends nothing more.
func (a *answer) abandon() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone, a.buf = true, nil
	a.room.Broadcast()
}

// next takes what is to be sent now; nil for nothing. more says that there is
// more to send already.
func (a *answer) next() (f *wire.Frame, more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return nil, false
	}
	if !a.streaming {
		return a.responseLocked(), false
	}
	if !a.started {
		a.started = true
		if a.status < 200 || a.status > 599 {
			a.refuseLocked(failedBody)
			return nil, false
		}
		return &wire.Frame{Type: wire.StreamStart, ID: a.id, Status: a.status, Headers: a.sent}, len(a.buf) > 0 || a.done
	}
	if data := a.chunk(); data != "" {
		return &wire.Frame{Type: wire.StreamChunk, ID: a.id, Data: data}, len(a.buf) > 0 || a.done
	}
	if !a.done {
		return nil, false // half a character, or nothing
	}
	a.gone = true
	a.room.Broadcast()
	return &wire.Frame{Type: wire.StreamEnd, ID: a.id}, false
}

// chunk takes text from the queue: whole characters, an invalid byte as
// U+FFFD. Half a character waits for its rest, unless there is none to come.
func (a *answer) chunk() string {
	n := min(len(a.buf), MaxChunk)
	if n < len(a.buf) || !a.done {
		n = whole(a.buf[:n])
	}
	if n == 0 {
		return ""
	}
	data := string(a.buf[:n]) // wire.Frame.Marshal replaces what is no text
	a.buf = append(a.buf[:0], a.buf[n:]...)
	a.room.Broadcast()
	return data
}

// whole is how much of b has no character begun at its end.
func whole(b []byte) int {
	for back := 1; back < utf8.UTFMax && back <= len(b); back++ {
		c := b[len(b)-back]
		if utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-back:]) {
				return len(b) - back
			}
			break
		}
	}
	return len(b)
}

// notAnswered are headers of a connection: the relay has its own.
var notAnswered = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Content-Length": true, "Date": true,
}

// flatten makes one value of each header, under its name in lower case.
func flatten(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, values := range h {
		if len(values) == 0 || notAnswered[name] || len(out) == wire.MaxHeaders {
			continue
		}
		if value := strings.Join(values, ", "); validHeader(name, value) && wire.Length(value) <= wire.MaxValue {
			out[strings.ToLower(name)] = value
		}
	}
	return out
}
