package sandbox

import (
	"log/slog"
	"slices"
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
	hostRefused  refusal = "no host for this sandbox"
)

// audit writes a record of every 401, 403, 413 and 429: when, which sandbox,
// which user, which route, and why; never the token. A sandbox that is refused
// all the time gets MaxAudit records of each reason in a Window, so that no
// guest fills the host's disk and no reason hides another. What is missing is
// counted, and written when the window ends.
type audit struct {
	log     func(event string, attrs ...slog.Attr)
	limiter *ratelimit.Limiter

	mu     sync.Mutex
	missed map[unrecorded]int
	flush  *time.Timer // while anything is missing
}

// unrecorded is what counted refusals have in common.
type unrecorded struct {
	sandbox string
	status  int
	why     refusal
}

func newAudit(log func(string, ...slog.Attr), now func() time.Time) *audit {
	return &audit{log: log, missed: map[unrecorded]int{}, limiter: ratelimit.New(ratelimit.Options{Limit: MaxAudit, Window: Window, Now: now})}
}

func (a *audit) refused(p peer, route string, status int, why refusal) {
	a.record(p.sandbox, status, why, slog.Int64("uid", int64(p.uid)), slog.String("route", route))
}

// record is refused for whatever a sandbox was refused.
func (a *audit) record(sandbox string, status int, why refusal, more ...slog.Attr) {
	if _, ok := a.limiter.Allow(sandbox + " " + string(why)); ok {
		a.log("sandbox_refused", slices.Concat([]slog.Attr{slog.String("sandbox", sandbox)}, more, []slog.Attr{slog.Int("status", status), slog.String("reason", string(why))})...)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.missed[unrecorded{sandbox, status, why}]++
	if a.flush == nil {
		a.flush = time.AfterFunc(Window, a.settle)
	}
}

// settle writes how many refusals have no record of their own.
func (a *audit) settle() {
	a.mu.Lock()
	missed := a.missed
	a.missed = map[unrecorded]int{}
	if a.flush != nil {
		a.flush.Stop()
		a.flush = nil
	}
	a.mu.Unlock()
	for m, n := range missed {
		a.log("sandbox_refused", slog.String("sandbox", m.sandbox), slog.Int("status", m.status), slog.String("reason", string(m.why)), slog.Int("unrecorded", n))
	}
}
