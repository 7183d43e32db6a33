// Package server is the relay: it keeps the tunnels of hosts, finds the one
// that carries an agent, and passes requests and answers between it and
// callers. It reads what it passes on no further than it must, and keeps
// nothing on disk. relay.md is its protocol; PROTOCOL.md beside this file says
// what several relays of one domain agree on.
package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"osaurus/engine/address"
	"osaurus/engine/relay/wire"
	"osaurus/engine/secret"
)

// DefaultDomain is where agents of the public relay are found.
const DefaultDomain = "agent.osaurus.ai"

const minute = time.Minute

// Config configures New. Everything has a default.
type Config struct {
	// Domain is what follows an agent's address in its name, with a port where
	// the public one is not that of the scheme. Names below localhost are of
	// this machine and have plain URLs, others are https.
	Domain  string
	Region  string // told to hosts and callers, and no more
	Machine string // tells relays of one domain apart; random when empty

	// TrustProxy lists who may say a caller's address in a header. Without it
	// the address is the socket's.
	TrustProxy []netip.Prefix
	// PresenceToken opens /presence; shorter than 32 characters, there is none.
	PresenceToken secret.Bytes

	// Directory is shared with other relays of the domain; nil for one alone.
	Directory Directory
	// InternalSecret proves requests between relays to each other.
	InternalSecret secret.Bytes
	// Transport reaches other relays. It must not unpack what it passes on.
	Transport http.RoundTripper

	Now func() time.Time
	Log *slog.Logger
}

// Server is a relay. It is safe for concurrent use.
type Server struct {
	c       Config
	domain  string // without the port, lower case
	scheme  string
	started time.Time
	limits  *limits
	held    held
	hosts   hosts
	seen    seen
	stats   counters
	cluster *cluster // nil when alone
	busy    busy

	marshal func(*wire.Frame) ([]byte, error)
	parse   func([]byte) (wire.Frame, error)

	draining atomic.Bool
	mu       sync.Mutex
	tunnels  map[*tunnel]struct{}
	closed   bool // no further tunnel is taken
	work     sync.WaitGroup
}

// NewMachine returns a name that no other relay has.
func NewMachine() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it does not fail (crypto/rand)
	return hex.EncodeToString(b[:])
}

// New returns a relay that waits for requests.
func New(c Config) *Server {
	if c.Domain == "" {
		c.Domain = DefaultDomain
	}
	if c.Region == "" {
		c.Region = "local"
	}
	if c.Machine == "" {
		c.Machine = NewMachine()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Transport == nil {
		c.Transport = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64, IdleConnTimeout: minute, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	}
	s := &Server{
		c: c, domain: hostname(c.Domain), scheme: "https", started: c.Now(), limits: newLimits(c.Now), tunnels: map[*tunnel]struct{}{},
		hosts: hosts{byID: map[address.Address]*tunnel{}}, held: held{most: maxHeld}, marshal: (*wire.Frame).Marshal, parse: wire.ParseHost,
	}
	s.seen.at = map[address.Address]time.Time{}
	if s.domain == "localhost" || strings.HasSuffix(s.domain, ".localhost") {
		s.scheme = "http"
	}
	if c.Directory != nil {
		s.cluster = newCluster(s, c.Directory)
	}
	return s
}

// HTTP returns an HTTP server for a handler of the relay, with its limits. A
// body has a time limit of its own, an answer one for each piece.
func (s *Server) HTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, IdleTimeout: 2 * minute, WriteTimeout: callerTime, MaxHeaderBytes: maxHeaderSize,
		DisableGeneralOptionsHandler: true, ErrorLog: log.New(io.Discard, "", 0),
	}
}

// Machine is the name of this relay among those of its domain.
func (s *Server) Machine() string { return s.c.Machine }

func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		hostport = host
	}
	return strings.ToLower(hostport)
}

// url is where callers find an agent.
func (s *Server) url(a address.Address) string {
	return s.scheme + "://" + a.Lower() + "." + s.c.Domain
}

var label = regexp.MustCompile(`^0x[0-9a-f]{40}$`)

// agentOf reads the agent's address out of a Host header (section 1).
func (s *Server) agentOf(host string) (address.Address, bool) {
	name, below := strings.CutSuffix(hostname(host), "."+s.domain)
	if !below || !label.MatchString(name) {
		return address.Address{}, false
	}
	a, err := address.Parse(name)
	return a, err == nil
}

// clientIP is the caller's address: the socket's, unless that is a proxy that
// is trusted to name it (decisions D22). Such a proxy must set the header
// itself, since its first entry counts.
func (s *Server) clientIP(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	ip := peer.Addr().Unmap().WithZone("")
	for _, p := range s.c.TrustProxy {
		if !p.Contains(ip) {
			continue
		}
		first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
		for _, text := range []string{r.Header.Get("Fly-Client-Ip"), first} {
			if named, err := netip.ParseAddr(strings.TrimSpace(text)); err == nil {
				return named.Unmap().WithZone("").String()
			}
		}
	}
	return ip.String()
}

// ServeHTTP answers on the public listener. Four paths are matched before the
// host, so they can never reach an agent (section 1).
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, search := target(r.RequestURI)
	switch path {
	case "/health":
		s.health(w)
		return
	case "/stats":
		s.statistics(w, r)
		return
	case "/presence":
		s.presence(w, r)
		return
	case "/tunnel/connect":
		s.connect(w, r)
		return
	}
	a, ok := s.agentOf(r.Host)
	switch {
	case !ok:
		writeError(w, http.StatusBadRequest, "invalid_subdomain")
	case r.Method == http.MethodOptions:
		preflight(w)
	default:
		s.busy.enter()
		defer s.busy.leave()
		s.route(s.newAnswer(w), r, a, path+search, s.clientIP(r))
	}
}

// route sends a request to the agent's tunnel, here or at another relay.
func (s *Server) route(w *answer, r *http.Request, a address.Address, path, ip string) {
	if t := s.hosts.owner(a); t != nil {
		s.ask(w, r, t, a, path, ip)
		return
	}
	s.elsewhere(w, r, a, path, ip)
}

// preflight answers for every agent alike (section 7.4).
func preflight(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "content-type, authorization, x-request-id")
	h.Set("Access-Control-Max-Age", "86400")
	w.WriteHeader(http.StatusNoContent)
}

func writeError(w http.ResponseWriter, status int, word string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`{"error":"` + word + `"}`)) // the caller may be gone
}

// connect takes a tunnel, or refuses it in the order of section 1.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	source := sourceOf(s.clientIP(r))
	switch {
	case s.draining.Load():
		s.newAnswer(w).refuse(http.StatusServiceUnavailable, "relay_restarting")
	case !strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		writeError(w, http.StatusBadRequest, "websocket_required")
	case !s.limits.connects.Allow(source):
		s.newAnswer(w).refuse(http.StatusTooManyRequests, "rate_limited")
	case !s.limits.enter(source):
		s.newAnswer(w).refuse(http.StatusTooManyRequests, "too_many_connections")
	default:
		defer s.limits.leave(source)
		// There is no cookie that a foreign page could use, so any origin will do.
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
		if err != nil {
			return // it has answered
		}
		s.carry(newSocket(c, &s.held))
	}
}

// carry runs one tunnel over a socket.
func (s *Server) carry(c conn) {
	t := newTunnel(s, c)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		c.Abort()
		return
	}
	s.tunnels[t] = struct{}{}
	s.work.Add(1)
	s.mu.Unlock()
	s.stats.connections.Add(1)
	defer func() {
		s.mu.Lock()
		delete(s.tunnels, t)
		s.mu.Unlock()
		s.work.Done()
	}()
	t.serve(context.Background()) // it ends with the socket
}
