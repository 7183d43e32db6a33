package channel

import (
	"mime"
	"net/http"
	"strconv"
	"time"

	"osaurus/engine/fault"
)

// reply is the http.ResponseWriter the inner handler sees. What it writes
// leaves sealed: as one frame after the handler returned, or, for status 200
// with text/event-stream, as one frame for each Write. Inner headers other than
// Content-Type are not carried. It implements what http.ResponseController
// asks for, but not Unwrap: nothing reaches the connection past the seal.
type reply struct {
	outer   http.ResponseWriter
	control *http.ResponseController
	seal    *sealer
	head    bool // the inner method is HEAD: no body
	header  http.Header

	status    int    // 0 until the handler chose one
	kind      string // Content-Type at that moment
	sniff     bool   // there was none
	streaming bool
	body      *[]byte // of a buffered answer, borrowed
	event     []byte  // of a stream, scratch
	err       error   // first failure to write; nothing is written after it
}

// eventHead and eventTail make a frame one server-sent event.
const (
	eventHead = "data: "
	eventTail = "\n\n"
)

func newReply(w http.ResponseWriter, seal *sealer, method string) *reply {
	return &reply{
		outer: w, control: http.NewResponseController(w), seal: seal,
		head: method == http.MethodHead, header: make(http.Header),
	}
}

// Header returns the inner headers.
func (r *reply) Header() http.Header { return r.header }

// WriteHeader chooses the inner status; informational ones are not carried.
func (r *reply) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic("channel: invalid status " + strconv.Itoa(status))
	}
	if r.status != 0 || status < 200 {
		return
	}
	_, set := r.header["Content-Type"]
	r.status, r.kind, r.sniff = status, r.header.Get("Content-Type"), !set
	kind, _, _ := mime.ParseMediaType(r.kind)
	if r.streaming = kind == eventContentType && status == http.StatusOK && !r.head; !r.streaming {
		return
	}
	h := r.outer.Header()
	h.Set("Content-Type", eventContentType)
	h.Set("Cache-Control", "no-cache")
	h.Set(markHeader, "1")
	r.outer.WriteHeader(http.StatusOK)
}

// Write seals p as a frame of the stream, or keeps it for the buffered answer.
// Errors: http.ErrBodyNotAllowed, ErrTooLarge past maxBody, or the outer
// writer's.
func (r *reply) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	switch {
	case r.err != nil:
		return 0, r.err
	case r.streaming:
		return r.stream(p)
	case r.status == http.StatusNoContent || r.status == http.StatusNotModified:
		return 0, http.ErrBodyNotAllowed
	case r.head:
		return len(p), nil
	case r.body == nil:
		r.body = borrow(len(p))
	}
	if len(p) > maxBody-len(*r.body) {
		r.err = ErrTooLarge
		return 0, r.err
	}
	*r.body = append(*r.body, p...)
	return len(p), nil
}

func (r *reply) stream(p []byte) (written int, err error) {
	for len(p) > 0 {
		n := min(len(p), maxChunk)
		r.event = append(r.event[:0], eventHead...)
		r.event = append(r.seal.chunk(r.event, p[:n]), eventTail...)
		if _, r.err = r.outer.Write(r.event); r.err != nil { //nolint:gosec // G705: a sealed frame
			return written, r.err
		}
		p, written = p[n:], written+n
	}
	return written, nil
}

// finish seals the end. It is not called after a panic of the handler, and
// does nothing after a failed write: the caller then sees truncation.
func (r *reply) finish() {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if !r.streaming {
		r.finishBuffered()
		return
	}
	if r.err != nil {
		return
	}
	r.event = append(r.event[:0], eventHead...)
	r.event = append(r.seal.end(r.event), eventTail...)
	_, r.err = r.outer.Write(r.event) //nolint:gosec // G705: a sealed frame
}

func (r *reply) finishBuffered() {
	in := innerReply{status: r.status, contentType: r.kind}
	if r.body != nil {
		defer wipe(r.body)
		in.body = *r.body
	}
	if r.sniff && len(in.body) > 0 {
		in.contentType = http.DetectContentType(in.body) // as net/http would
	}
	if r.err != nil {
		answer := fault.ReplyTo(r.err)
		in = innerReply{answer.Status, answer.ContentType, answer.Body}
	}
	plain := borrow(len(in.body)*4/3 + 256)
	defer wipe(plain)
	text, err := appendInnerReply(*plain, in)
	if err != nil {
		in.contentType = "" // the handler's was not UTF-8
		text, _ = appendInnerReply(*plain, in)
	}
	*plain = text
	out, ct := borrow(len(text)*4/3+256), borrow(len(text)+tagSize)
	defer recycle(out)
	defer recycle(ct)
	r.seal.buf = *ct
	*out = r.seal.whole(*out, text)
	h := r.outer.Header()
	h.Set("Content-Type", jsonContentType)
	h.Set("Content-Length", strconv.Itoa(len(*out)))
	h.Set(markHeader, "1")
	r.outer.WriteHeader(http.StatusOK)
	_, _ = r.outer.Write(*out) // a peer that is gone cannot be told so
}

// Flush implements http.Flusher.
func (r *reply) Flush() { _ = r.FlushError() }

// FlushError sends what is in the outer writer's buffer. A buffered answer has
// nothing to send before its end.
func (r *reply) FlushError() error {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if !r.streaming {
		return nil
	}
	return r.control.Flush()
}

// SetReadDeadline passes through, for http.ResponseController.
func (r *reply) SetReadDeadline(t time.Time) error { return r.control.SetReadDeadline(t) }

// SetWriteDeadline passes through, for http.ResponseController.
func (r *reply) SetWriteDeadline(t time.Time) error { return r.control.SetWriteDeadline(t) }
