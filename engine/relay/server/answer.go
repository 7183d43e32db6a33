package server

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"osaurus/engine/relay/wire"
)

// statusClientGone is written for a caller that is gone already.
const statusClientGone = 499

// answer writes what a caller gets for a relayed request.
type answer struct {
	http.ResponseWriter
	s       *Server
	control *http.ResponseController

	began, asked time.Time
	lookup, host time.Duration // until the request was on its way, and the host's own

	mu      sync.Mutex
	hurried bool
}

func (s *Server) newAnswer(w http.ResponseWriter) *answer {
	return &answer{ResponseWriter: w, s: s, control: http.NewResponseController(w), began: time.Now()}
}

// hurry ends a write that is under way: the caller is too slow.
func (w *answer) hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hurried = true
	_ = w.control.SetWriteDeadline(time.Now()) // a test's writer has none
}

// patient gives what is written next its time, unless the caller had enough.
func (w *answer) patient() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.hurried {
		_ = w.control.SetWriteDeadline(time.Now().Add(callerTime))
	}
}

// Write implements http.ResponseWriter.
func (w *answer) Write(p []byte) (int, error) {
	w.patient()
	return w.ResponseWriter.Write(p)
}

// FlushError lets http.ResponseController flush.
func (w *answer) FlushError() error {
	w.patient()
	return w.control.Flush()
}

// Unwrap lets http.ResponseController find the connection.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// refuse answers with an error of the relay's own (section 7.1).
func (w *answer) refuse(status int, word string) {
	w.mark()
	writeError(w, status, word)
}

// mark sets the headers that tell who relayed, and how long it took.
func (w *answer) mark() {
	h := w.Header()
	fill(h, "Access-Control-Allow-Origin")
	fill(h, "Access-Control-Expose-Headers")
	h.Set("X-Relay-Region", w.s.c.Region)
	h.Set("X-Relay-Machine", w.s.c.Machine)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	rest := time.Since(w.began) - w.lookup - w.host
	h.Add("Server-Timing", fmt.Sprintf("lookup;dur=%.3f, host;dur=%.3f, relay;dur=%.3f", ms(w.lookup), ms(w.host), ms(max(rest, 0))))
}

// fill sets what the host did not.
func fill(h http.Header, name string) {
	if h.Get(name) == "" {
		h.Set(name, "*")
	}
}

// relay passes the host's answer on as it comes.
func (w *answer) relay(ctx context.Context, t *tunnel, e *exchange) {
	abandon := func(why cause) {
		t.remove(e.id)
		e.fail(why)
		t.cancel(e.id)
	}
	timer := time.NewTimer(firstByte)
	defer timer.Stop()
	var head *wire.Frame
	for {
		p, h, parts, last := e.take()
		if h != nil && head == nil {
			head, w.host = h, time.Since(w.asked)
			w.head(h, p, parts)
		}
		if len(parts) > 0 && !w.body(parts) {
			if e.why() == slowCaller {
				w.s.stats.slow.Add(1)
			} else {
				abandon(callerGone)
			}
			panic(http.ErrAbortHandler)
		}
		switch p {
		case done:
			return
		case broken:
			w.broke(e.why(), head != nil)
			return
		}
		timer.Reset(time.Until(last.Add(map[bool]time.Duration{false: firstByte, true: streamIdle}[head != nil])))
		select {
		case <-e.wake:
		case <-ctx.Done():
			abandon(callerGone)
			if head == nil {
				w.refuse(statusClientGone, "client_disconnected")
			}
			return
		case <-timer.C:
			abandon(timedOut)
			if head == nil {
				w.refuse(http.StatusGatewayTimeout, "gateway_timeout")
			}
			return // a stream that is idle ends as if it were whole (section 6)
		}
	}
}

// broke ends an answer that will not be whole.
func (w *answer) broke(why cause, begun bool) {
	switch why {
	case badFrame, badAnswer:
		w.s.stats.badResponses.Add(1)
	case slowCaller:
		w.s.stats.slow.Add(1)
	}
	switch {
	case begun:
		panic(http.ErrAbortHandler) // the caller sees a body that breaks off
	case why == tunnelClosed:
		w.mark()
		w.Header().Set("Content-Type", plainText)
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte(`{"error":"tunnel_closed"}`)) // the caller may be gone
	case why == slowCaller: // there was no room for it
		w.refuse(http.StatusServiceUnavailable, "relay_overloaded")
	default:
		w.refuse(http.StatusBadGateway, "bad_host_response")
	}
}

// dropped are headers of a host that belong to its connection, or that the
// relay writes itself.
var dropped = map[string]bool{
	"Transfer-Encoding": true, "Connection": true, "Keep-Alive": true, "Upgrade": true, "Proxy-Authenticate": true, "Proxy-Authorization": true, "Te": true, "Trailer": true,
	"Content-Length": true, missHeader: true,
}

const plainText = "text/plain;charset=UTF-8"

// head writes the head of the host's answer; parts are its body so far.
func (w *answer) head(f *wire.Frame, p phase, parts []string) {
	h := w.Header()
	for _, name := range slices.Sorted(maps.Keys(f.Headers)) {
		key := http.CanonicalHeaderKey(name)
		if dropped[key] {
			continue
		}
		value, _ := toLatin1(f.Headers[name]) // it was looked at when it came
		if value = strings.Trim(value, " \t"); len(h[key]) > 0 {
			value = h[key][0] + ", " + value // names that differed in case
		}
		h[key] = []string{value}
	}
	_, typed := h["Content-Type"]
	buffered := f.Type == wire.Response && !bodiless(f.Status)
	switch {
	case buffered && !typed:
		h.Set("Content-Type", plainText)
	case !typed:
		h["Content-Type"] = nil // nothing is guessed
	}
	if buffered {
		n := 0
		for _, part := range parts {
			n += len(part)
		}
		h.Set("Content-Length", strconv.Itoa(n))
	}
	w.mark()
	w.patient() // an answer without a body is written when all is over
	w.WriteHeader(f.Status)
	if p == streaming && len(parts) == 0 {
		_ = w.FlushError() // an error shows with the first part
	}
}

// body writes text to the caller, and reports whether it took it.
func (w *answer) body(parts []string) bool {
	for _, part := range parts {
		if _, err := w.Write([]byte(part)); err != nil {
			return false
		}
	}
	return w.FlushError() == nil
}
