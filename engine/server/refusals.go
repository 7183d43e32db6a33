package server

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"osaurus/engine/fault"
)

// maxTold is how many refusals a minute get a line of their own in the security
// log: a stranger who is refused must not be able to fill the disk.
const maxTold = 60

// refusals puts into the security log who was turned away. What has no line of
// its own is counted in the next one, so nothing is lost; the last count is
// written when the server stops.
type refusals struct {
	mu     sync.Mutex
	minute time.Time // when the present minute began
	told   int       // lines of this minute
	untold int       // refusals since the last line
}

// refusal reports a status that says no to whoever asks.
func refusal(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusUpgradeRequired, http.StatusTooManyRequests:
		return true
	}
	return false
}

// take returns how many refusals the line for this one has to count besides
// its own; false when there is no line for it.
func (f *refusals) take(now time.Time) (untold int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.minute) >= time.Minute || now.Before(f.minute) {
		f.minute, f.told = now, 0
	}
	if f.told >= maxTold {
		f.untold++
		return 0, false
	}
	f.told++
	untold, f.untold = f.untold, 0
	return untold, true
}

// rest returns what no line has counted yet.
func (f *refusals) rest() (untold int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	untold, f.untold = f.untold, 0
	return untold
}

// tellRefusal writes the line of a refusal that passed the head's limits. The
// reason is one of engine/fault's texts; the path may hold what a stranger
// wrote and stays out.
func (s *Server) tellRefusal(x *exchange, e *fault.Error) {
	if x.entry == nil || !refusal(e.Code.Status()) {
		return
	}
	untold, ok := s.refusals.take(s.c.Now())
	if !ok {
		return
	}
	attrs := []slog.Attr{slog.String("source", source(x.r)), slog.String("transport", x.entry.Transport), slog.Int("status", e.Code.Status()), slog.String("reason", e.Public())}
	if untold > 0 {
		attrs = append(attrs, slog.Int("untold", untold))
	}
	s.c.Log("request_refused", attrs...)
}

// tellRest writes what was only counted.
func (s *Server) tellRest() {
	if n := s.refusals.rest(); n > 0 {
		s.c.Log("requests_refused", slog.Int("untold", n))
	}
}
