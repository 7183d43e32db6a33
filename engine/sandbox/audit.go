package sandbox

import (
	"log/slog"
	"sync"
	"time"

	"osaurus/engine/ratelimit"
)

// refusal is why a request was turned away, for the audit record alone: the
// caller sees one answer.
type refusal string

const (
	noToken      refusal = "no token"
	unknownToken refusal = "unknown token"
	wrongSandbox refusal = "token of another sandbox"
	wrongUser    refusal = "token of another user"
	rootCaller   refusal = "root is no agent"
	foreignAgent refusal = "names another agent"
	tooLarge     refusal = "body too large"
	tooMany      refusal = "rate limit"
	switchedOff  refusal = "switched off"
)

// audit writes a record of every 401, 403, 413 and 429: when, which sandbox,
// which user, which route, and why; never the token. A sandbox that is refused
// all the time gets MaxAudit records in a Window, and the next one says how
// many are missing, so that no guest fills the host's disk.
type audit struct {
	log     func(event string, attrs ...slog.Attr)
	limiter *ratelimit.Limiter

	mu     sync.Mutex
	missed map[string]int
}

func newAudit(log func(string, ...slog.Attr), now func() time.Time) *audit {
	return &audit{log: log, missed: map[string]int{}, limiter: ratelimit.New(ratelimit.Options{Limit: MaxAudit, Window: Window, Now: now})}
}

func (a *audit) refused(p peer, route string, status int, why refusal) {
	source := p.sandbox
	if _, ok := a.limiter.Allow(source); !ok {
		a.mu.Lock()
		a.missed[source]++
		a.mu.Unlock()
		return
	}
	a.mu.Lock()
	missed := a.missed[source]
	delete(a.missed, source)
	a.mu.Unlock()
	attrs := []slog.Attr{slog.String("sandbox", p.sandbox), slog.Int64("uid", int64(p.uid)), slog.String("route", route), slog.Int("status", status), slog.String("reason", string(why))}
	if missed > 0 {
		attrs = append(attrs, slog.Int("unrecorded", missed))
	}
	a.log("sandbox_refused", attrs...)
}
