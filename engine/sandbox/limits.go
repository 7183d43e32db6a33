package sandbox

import (
	"time"

	"osaurus/engine/ratelimit"
)

// Limits of the bridge that its protocol fixes (sections 3 and 4).
const (
	MaxBody    = 8 << 20 // bytes
	MaxResults = 10      // facts of one memory query
	Salience   = 0.7     // of what agents store themselves
)

// Limits of ours.
const (
	MaxHeader      = 16 << 10         // bytes
	MaxConnections = 64               // of one sandbox, bridge and proxy together
	HeaderTimeout  = 10 * time.Second // for the head of a request
	BodyTimeout    = 30 * time.Second // for its body
	IdleTimeout    = 2 * time.Minute  // between requests
	MaxHeld        = 64 << 20         // bytes of bodies in memory over all agents
	MaxAudit       = 30               // audit records of one sandbox and reason in a window
)

// headSlop is what net/http adds to Server.MaxHeaderBytes.
const headSlop = 4 << 10

// Rates are calls in a Window.
type Rates struct {
	Inference, HTTP, Dispatch int
}

// DefaultRates and Window are what the protocol names; every other bucket has
// the rate of HTTP.
var DefaultRates = Rates{Inference: 60, HTTP: 120, Dispatch: 10}

// Window is the sliding window of every rate.
const Window = time.Minute

// The buckets.
const (
	bucketInference = "inference"
	bucketHTTP      = "http"
	bucketDispatch  = "dispatch"
)

// limiters is one sliding window for each agent and bucket.
type limiters map[string]*ratelimit.Limiter

func newLimiters(r Rates, now func() time.Time) limiters {
	one := func(n int) *ratelimit.Limiter {
		return ratelimit.New(ratelimit.Options{Limit: n, Window: Window, Now: now})
	}
	return limiters{bucketInference: one(r.Inference), bucketHTTP: one(r.HTTP), bucketDispatch: one(r.Dispatch)}
}

func (l limiters) allow(bucket, who string) (time.Duration, bool) { return l[bucket].Allow(who) }
