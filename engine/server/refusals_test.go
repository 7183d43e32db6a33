package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"osaurus/engine/fault"
)

// TestRefusalsAreLogged: every refusal is in the security log, by its own line
// or in a count, and a flood of them does not fill it.
func TestRefusalsAreLogged(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	lines, counted := 0, 0
	s := &Server{c: Config{Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler), Log: func(event string, attrs ...slog.Attr) {
		if event == "request_refused" {
			lines++
			counted++
		}
		for _, a := range attrs {
			if a.Key == "untold" {
				counted += int(a.Value.Int64())
			}
		}
	}}}
	refuse := func(err error) {
		r := httptest.NewRequest(http.MethodGet, "/agents", http.NoBody)
		x := &exchange{w: httptest.NewRecorder(), r: r, entry: &Entry{Transport: "lan"}}
		x.refuse(s, err)
	}
	for n, c := range []struct {
		err  error
		want int
	}{{fault.NoAccessKeys, 1}, {fault.AgentScopeGate, 2}, {fault.SecureChannelRequired, 3}, {fault.TooManyFailures, 4}, {fault.NotFound, 4}, {fault.InvalidFormat, 4}} {
		if refuse(c.err); lines != c.want {
			t.Errorf("refusal %d: %d lines, want %d", n, lines, c.want)
		}
	}
	for range maxTold - 4 {
		refuse(fault.AccessRevoked)
	}
	if lines != maxTold {
		t.Errorf("%d lines within the limit of %d", lines, maxTold)
	}
	for range 1000 {
		refuse(fault.AccessRevoked)
	}
	if lines != maxTold {
		t.Errorf("%d lines in one minute", lines)
	}
	now = now.Add(time.Minute)
	refuse(fault.AccessRevoked)
	if lines != maxTold+1 || counted != maxTold+1001 {
		t.Errorf("a minute later: %d lines count %d", lines, counted)
	}
	for range maxTold {
		refuse(fault.AccessRevoked)
	}
	if s.tellRest(); counted != 2*maxTold+1001 {
		t.Errorf("at the end %d are counted", counted)
	}
	if s.tellRest(); counted != 2*maxTold+1001 {
		t.Error("counted twice")
	}
}
