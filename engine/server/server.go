package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/channel"
	"osaurus/engine/fault"
	"osaurus/engine/pairing"
	"osaurus/engine/ratelimit"
	"osaurus/engine/runner"
	"osaurus/engine/settings"
)

// Config is what a server stands on. Everything but Log, Now and Logger is
// required.
type Config struct {
	Version  string
	Settings func() settings.Server
	Keys     *accesskey.Keys
	Agents   *agents.Registry
	Channel  *channel.Server
	Pairing  *pairing.Host
	Invites  *pairing.Invites
	RelayURL func(a address.Address) string // "" while the relay does not have the agent
	Runner   *runner.Runner
	Endpoint func(ctx context.Context) (runner.Endpoint, error)
	Memory   Memory
	// Admin returns everything that doctor shows; Health the long form of
	// /health without status and timestamp.
	Admin  func(ctx context.Context) any
	Health func(ctx context.Context) map[string]any
	Log    func(event string, attrs ...slog.Attr)
	Now    func() time.Time
	Logger *slog.Logger
}

// Server is an http.Handler. It is safe for concurrent use.
type Server struct {
	c          Config
	port       atomic.Int64 // where Serve listens
	pairs      *ratelimit.Limiter
	handshakes *ratelimit.Limiter
	relayed    *ratelimit.Limiter
	failures   *ratelimit.Limiter
	requests   idempotency
	budget     budget
	ring       ring
	refusals   refusals
	used       *ratelimit.Limiter // first use of a key by a peer is told once a minute
}

// New returns a server that is not listening yet.
func New(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Log == nil {
		c.Log = func(string, ...slog.Attr) {}
	}
	if c.RelayURL == nil {
		c.RelayURL = func(address.Address) string { return "" }
	}
	limiter := func(n int) *ratelimit.Limiter {
		return ratelimit.New(ratelimit.Options{Limit: n, Window: limiterWindow, Now: c.Now})
	}
	s := &Server{c: c, pairs: limiter(pairingLimit), handshakes: limiter(handshakeLimit), relayed: limiter(relayLimit), failures: limiter(failureLimit), used: limiter(1)}
	s.requests.seen = map[requestKey]time.Time{}
	s.port.Store(int64(c.Settings().Port))
	return s
}

// exchange is one request on its way through the pipeline.
type exchange struct {
	w        http.ResponseWriter
	r        *http.Request
	path     string
	trusted  bool
	settings settings.Server
	body     *body
	access   *accesskey.Access
	empty    bool // model lists are hidden
	entry    *Entry
	start    time.Time

	// held is what the pointers above point to: one allocation for all.
	held struct {
		deadlines deadlines
		status    status
		body      body
		entry     Entry
		access    accesskey.Access
	}
}

// ServeHTTP implements http.Handler: the order of PROTOCOL.md section 1.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.serve(w, r, false)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, inner bool) {
	set := s.c.Settings()
	// What comes through the channel is trusted no more than its bearer, even
	// from this machine.
	x := &exchange{w: w, r: r, path: normalise(target(r)), settings: set, trusted: !inner && trustedLoopback(r, set, int(s.port.Load())), start: s.c.Now()}
	if !inner {
		x.held.deadlines = deadlines{ResponseWriter: w, control: *http.NewResponseController(w), now: s.c.Now}
		w = &x.held.deadlines
		x.w = w
	}
	if err := checkHead(r, inner); err != nil {
		w.Header().Set("Connection", "close")
		x.refuse(s, err)
		return
	}
	x.held.body = body{in: r.Body, limit: bodyLimit(x.path), now: s.c.Now, start: x.start, budget: &s.budget, control: *http.NewResponseController(w), timed: !inner}
	x.body = &x.held.body
	defer x.body.release()
	if r.ContentLength > x.body.limit {
		w.Header().Set("Connection", "close")
		x.refuse(s, tooLarge(r.ContentLength, x.body.limit))
		return
	}
	r.Body = x.body
	switch {
	case r.Method == http.MethodOptions:
		preflight(w, r, set.CORS, x.trusted)
		return
	case x.path == "/secure/call" && r.Method == http.MethodPost && !inner:
		setCORS(w.Header(), set.CORS, header(r, "Origin"), x.trusted)
		s.c.Channel.ServeCall(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, true) }))
		return
	}
	s.gated(x)
}

// target is the request's target as it stood on the wire.
func target(r *http.Request) string {
	if r.RequestURI != "" {
		return r.RequestURI
	}
	return r.URL.RequestURI() // inside the channel
}

// header is Header.Get for a name in canonical form, which every request asks
// for and few have.
func header(r *http.Request, canonical string) string {
	if values := r.Header[canonical]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// checkHead refuses what net/http lets through: too many fields, two lengths,
// and targets in absolute form.
func checkHead(r *http.Request, inner bool) error {
	fields, size := 0, 0
	if !inner { // what net/http took out
		fields = min(len(r.Host), 1) + len(r.TransferEncoding)
		if twoLengths(r) {
			return fault.BadRequest
		}
	}
	for name, values := range r.Header {
		fields += len(values)
		for _, v := range values {
			size += len(name) + len(v) + len(": \r\n")
		}
	}
	if fields > MaxHeaderFields || size > MaxHeaderBytes {
		return fault.HeadersTooLarge
	}
	if t := target(r); !strings.HasPrefix(t, "/") && (t != "*" || r.Method != http.MethodOptions) {
		return fault.BadRequest
	}
	return nil
}

// gated runs the gate, then the route.
func (s *Server) gated(x *exchange) {
	x.held.entry = begin(x)
	x.entry = &x.held.entry
	defer func() { s.ring.end(x.entry, s.c.Now()) }()
	x.held.status = status{ResponseWriter: x.w, entry: x.entry}
	x.w = &x.held.status
	setCORS(x.w.Header(), x.settings.CORS, header(x.r, "Origin"), x.trusted)
	if err := s.authorise(x); err != nil {
		x.refuse(s, x.body.drain(err))
		return
	}
	if x.r.Method == http.MethodHead {
		x.w.WriteHeader(http.StatusNoContent)
		return
	}
	s.route(x)
}

// authorise applies the 401 limiter around the gate (decisions C4).
func (s *Server) authorise(x *exchange) error {
	r := x.r
	q := request{
		method: r.Method, path: x.path, public: public(x.path), trusted: x.trusted, physical: physicalLoopback(r), inside: channel.Inside(r.Context()),
		configured: s.c.Keys.Configured(), authorization: r.Header["Authorization"], agentHeaders: r.Header["X-Osaurus-Agent-Id"],
		peerInference: x.settings.PeerInference, requireChannel: x.settings.RequireChannel,
	}
	key := source(r)
	guarded := !q.public && !q.trusted
	if guarded {
		if wait, blocked := s.failures.Blocked(key); blocked && !s.cached(q) {
			return &fault.Error{Code: fault.TooManyFailures, RetryAfter: wait}
		}
	}
	v, err := decide(q, s.c.Keys.Validate, s.sameAgent)
	if err != nil {
		if guarded && isUnauthorised(err) {
			s.failures.Allow(key)
		}
		return err
	}
	x.empty = v.empty
	if v.known {
		x.held.access = v.access
		x.access = &x.held.access
		x.entry.KeyNonce, x.entry.Audience = x.access.Nonce, x.access.Audience
	}
	if !q.public {
		x.body.release()
		x.body.budget = nil
	}
	return nil
}

func (s *Server) cached(q request) bool {
	bearer, ok := bearerOf(q.authorization)
	return ok && s.c.Keys.Cached(bearer)
}

// sameAgent reports whether a header's agent is the one of the key. What names
// no agent at all (no UUID, a built-in one) does not confine.
func (s *Server) sameAgent(a accesskey.Access, header string) bool {
	header = strings.TrimSpace(header)
	agent, err := s.c.Agents.Resolve(header)
	switch {
	case errors.Is(err, fault.InvalidAgentID):
		return true
	case err != nil:
		return false
	}
	return agent.BuiltIn || agent.Address == a.Audience
}

// refuse sends the one wire form of an error and logs what only we may know.
func (x *exchange) refuse(s *Server, err error) {
	s.tellRefusal(x, fault.Of(err)) // before the caller can know
	reply := fault.Write(x.w, err)
	if reply.Status >= http.StatusInternalServerError {
		s.c.Logger.Warn("request failed", slog.String("path", x.path), slog.Int("status", reply.Status), slog.String("id", reply.ID), slog.String("error", err.Error()))
	}
}

// owner reports a caller who may see everything: trusted loopback or the
// master's key.
func (x *exchange) owner() bool {
	return x.access == nil && x.trusted || x.access != nil && x.access.MasterScoped
}

// claim errors: fault.DuplicateRequest. It is asked once nothing else speaks
// against a request, so that one that was refused can be sent again.
func (s *Server) claim(x *exchange) error {
	return s.requests.claim(x.access, header(x.r, "Idempotency-Key"), s.c.Now())
}

func (x *exchange) caller() runner.Caller { return runner.Caller{Access: x.access} }
