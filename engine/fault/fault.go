// Package fault is the closed set of outcomes that cross a boundary: each has
// one HTTP status, one public text and one body shape, apart from the private
// cause. Codes are append-only, because peers decide by them.
package fault

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Error is a Code with what only this occurrence knows. Text, when set,
// replaces the table's public text and must not contain input or secrets.
type Error struct {
	Code       Code
	Text       string
	RetryAfter time.Duration // 0 sends no Retry-After header
	Cause      error         // for the log, never for the peer
}

// New returns code with a cause, which may be nil.
func New(code Code, cause error) *Error { return &Error{Code: code, Cause: cause} }

// WithText returns code with another public text.
func WithText(code Code, text string) *Error { return &Error{Code: code, Text: text} }

// Public returns the text a peer may see.
func (e *Error) Public() string {
	if e.Text != "" {
		return e.Text
	}
	return e.Code.Text()
}

// Error returns the public text and the cause, for logs and terminals.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Public()
	}
	return e.Public() + ": " + e.Cause.Error()
}

// Unwrap lets errors.Is find the code and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Code}
	}
	return []error{e.Code, e.Cause}
}

// Of returns the outcome an error stands for; Internal when it names none.
func Of(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if c, ok := errors.AsType[Code](err); ok {
		return New(c, nil)
	}
	return New(Internal, err)
}

// Reply is an error as it goes over the wire.
type Reply struct {
	Status      int
	ContentType string
	Body        []byte
	RetryAfter  string // seconds, rounded up; "" for none
	ID          string // for the log, set when the peer was shown an id
}

const (
	jsonType = "application/json; charset=utf-8"
	textType = "text/plain; charset=utf-8"
)

// ReplyTo turns any error into its one wire form. An error that is no fault,
// or is Local, becomes 500 with a short random id that ties it to the log.
func ReplyTo(err error) Reply {
	e := Of(err)
	r := Reply{Status: e.Code.Status(), ContentType: jsonType}
	if e.RetryAfter > 0 {
		r.RetryAfter = strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10)
	}
	text := e.Public()
	switch e.Code.Shape() {
	case E1, E6:
		r.Body = body(map[string]any{"error": map[string]string{"message": text, "type": e.Code.Type()}})
	case E2:
		r.Body = body(map[string]any{"error": map[string]string{"code": e.Code.Name(), "message": text, "type": e.Code.Type()}})
	case E3:
		r.Body = body(map[string]string{"error": e.Code.Name(), "message": text})
	case E4:
		r.Body = body(map[string]string{"error": text})
	case E5:
		r.ContentType, r.Body = textType, []byte(text)
	default:
		r.Status, r.ID = http.StatusInternalServerError, newID()
		r.Body = body(map[string]any{"error": map[string]string{"message": "Internal error " + r.ID, "type": "server_error"}})
	}
	return r
}

// Write sends err to w and returns what was sent.
func Write(w http.ResponseWriter, err error) Reply {
	r := ReplyTo(err)
	h := w.Header()
	h.Set("Content-Type", r.ContentType)
	h.Set("Content-Length", strconv.Itoa(len(r.Body)))
	if r.RetryAfter != "" {
		h.Set("Retry-After", r.RetryAfter)
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.Body) // a peer that is gone cannot be told so
	return r
}

// Event returns err as one E7 server-sent event, without the closing [DONE].
func Event(err error) []byte {
	e := Of(err)
	inner := map[string]string{"message": e.Public(), "type": e.Code.Type()}
	if e.Code.Shape() == Local || e.Code == Internal {
		inner["message"], inner["type"] = "Internal error", "server_error"
	} else if name := e.Code.Name(); name != "" {
		inner["code"] = name
	}
	return append(append([]byte("data: "), body(map[string]any{"error": inner})...), "\n\n"...)
}

// body writes maps of strings, which cannot fail; map keys come out sorted.
func body(v any) []byte {
	var sb strings.Builder
	enc := json.NewEncoder(&sb)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("fault: internal error: " + err.Error())
	}
	return []byte(strings.TrimSuffix(sb.String(), "\n"))
}

func newID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
