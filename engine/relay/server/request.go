package server

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"osaurus/engine/address"
	"osaurus/engine/relay/wire"
)

// withheld are headers of a caller that a host never sees (section 5); "fly-",
// "cf-" and "x-relay-" go with everything that begins so.
var withheld = map[string]bool{
	"host": true, "cookie": true, "proxy-authorization": true, "x-forwarded-proto": true, "x-forwarded-host": true, "x-forwarded-port": true, "x-real-ip": true,
	"x-agent-address": true, "x-forwarded-for": true, // ours stand in their place
}

func isWithheld(lower string) bool {
	return withheld[lower] || strings.HasPrefix(lower, "fly-") || strings.HasPrefix(lower, "cf-") || strings.HasPrefix(lower, "x-relay-")
}

// forwarded is the headers of a request as a host gets them: lower-case names,
// repeats joined.
func forwarded(r *http.Request, a address.Address, ip string) map[string]string {
	out := make(map[string]string, len(r.Header)+2)
	for name, values := range r.Header {
		lower := strings.ToLower(name)
		if isWithheld(lower) {
			continue
		}
		out[lower] = fromLatin1(strings.Join(values, ", "))
	}
	if len(r.TransferEncoding) > 0 { // net/http keeps it apart
		out["transfer-encoding"] = strings.Join(r.TransferEncoding, ", ")
	}
	out["x-agent-address"], out["x-forwarded-for"] = a.Lower(), ip
	return out
}

// Errors of reading a body.
var (
	errTooLarge = errors.New("relay: the body is too large")
	errNoRoom   = errors.New("relay: too many bodies are held")
)

// readBody reads a whole body, as far as there is room for it. The caller
// calls release when the text is no longer needed.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) (text string, release func(), err error) {
	taken := 0
	release = func() { s.held.release(taken) }
	if r.ContentLength > wire.MaxBodyBytes {
		return "", release, errTooLarge
	}
	if r.ContentLength == 0 {
		return "", release, nil
	}
	control := http.NewResponseController(w)
	size := r.ContentLength
	if size < 0 {
		size = wire.MaxBodyBytes
	}
	// A test's writer has no deadline.
	_ = control.SetReadDeadline(time.Now().Add(bodyTime + time.Duration(size/bodyPace)*time.Second))
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	var body []byte
	if r.ContentLength > 0 {
		body = make([]byte, 0, min(r.ContentLength, 1<<20)+1)
	}
	piece := make([]byte, min(size+1, plain))
	for {
		n, err := r.Body.Read(piece)
		if n > 0 {
			if len(body)+n > wire.MaxBodyBytes {
				return "", release, errTooLarge
			}
			if !s.held.take(n) {
				return "", release, errNoRoom
			}
			taken += n
			body = append(body, piece[:n]...)
		}
		if errors.Is(err, io.EOF) {
			return decode(body), release, nil
		}
		if err != nil {
			return "", release, err
		}
	}
}

// ask sends a request to the host that has the agent, and waits for what comes
// back. The tunnel may close at any time.
func (s *Server) ask(w *answer, r *http.Request, t *tunnel, a address.Address, path, ip string) {
	w.lookup = time.Since(w.began)
	if !s.limits.callers.Allow(sourceOf(ip)) || !s.limits.agents.Allow(a.Lower()) {
		w.refuse(http.StatusTooManyRequests, "rate_limited")
		return
	}
	body, release, err := s.readBody(w.ResponseWriter, r)
	if err != nil {
		release()
		w.unread(r, err)
		return
	}
	e := &exchange{id: uuid.NewString(), agent: a, held: &s.held, wake: make(chan struct{}, 1), phase: pending, last: time.Now()}
	e.hurry = w.hurry
	f := &wire.Frame{Type: wire.Request, ID: e.id, Method: r.Method, Path: path, Headers: forwarded(r, a, ip), Body: &body}
	raw, err := s.marshal(f)
	release()
	if err != nil || !t.add(e) {
		w.refuse(http.StatusServiceUnavailable, "relay_overloaded")
		return
	}
	s.stats.requests.Add(1)
	w.asked = time.Now()
	if !t.out.put(raw) {
		t.remove(e.id)
		w.refuse(http.StatusBadGateway, "tunnel_send_failed")
		return
	}
	w.relay(r.Context(), t, e)
}

// unread answers a request whose body could not be read. Where the caller is
// still there the connection is closed: net/http would wait for the rest of the
// body before it answers.
func (w *answer) unread(r *http.Request, err error) {
	switch {
	case errors.Is(err, errTooLarge):
		w.Header().Set("Connection", "close") // the rest of the body is not read
		w.refuse(http.StatusRequestEntityTooLarge, "body_too_large")
	case errors.Is(err, errNoRoom):
		w.Header().Set("Connection", "close")
		w.refuse(http.StatusServiceUnavailable, "relay_overloaded")
	case !errors.Is(err, os.ErrDeadlineExceeded) && (r.Context().Err() != nil || errors.Is(err, io.ErrUnexpectedEOF)):
		w.refuse(statusClientGone, "client_disconnected")
	default:
		w.Header().Set("Connection", "close")
		w.refuse(http.StatusBadRequest, "body_unreadable")
	}
}
