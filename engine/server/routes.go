package server

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/pairing"
)

// route serves an admitted request.
func (s *Server) route(x *exchange) {
	switch x.r.Method + " " + x.path {
	case "GET /":
		x.text("Osaurus is running.\n")
	case "GET /health":
		s.health(x)
	case "GET /models":
		s.models(x)
	case "POST /chat/completions":
		s.chat(x)
	case "GET /agents":
		s.listAgents(x)
	case "POST /memory/ingest":
		s.ingest(x)
	case "GET /pair/challenge":
		s.pairChallenge(x)
	case "POST /pair":
		s.pair(x)
	case "POST /pair-invite":
		s.pairInvite(x)
	case "POST /secure/session":
		s.handshake(x)
	case "GET /admin/status":
		s.adminStatus(x)
	default:
		s.dynamic(x)
	}
}

// dynamic serves the routes with an id in them.
func (s *Server) dynamic(x *exchange) {
	if id, verb, ok := agentRoute(x.path); ok {
		switch x.r.Method + " " + verb {
		case "GET ":
			s.getAgent(x, id)
			return
		case "POST run":
			s.run(x, id)
			return
		case "POST dispatch":
			s.dispatch(x, id)
			return
		}
	}
	if id, ok := taskRoute(x.path); ok {
		switch x.r.Method {
		case http.MethodGet:
			s.getTask(x, id)
			return
		case http.MethodDelete:
			s.cancelTask(x, id)
			return
		}
	}
	x.refuse(s, x.body.drain(fault.NotFound))
}

func taskRoute(path string) (id string, ok bool) {
	const prefix = "/tasks/"
	if len(path) != len(prefix)+36 || path[:len(prefix)] != prefix || uuid.Validate(path[len(prefix):]) != nil {
		return "", false
	}
	return path[len(prefix):], true
}

// read takes a whole body. Errors are faults.
func (x *exchange) read() ([]byte, error) {
	raw, err := io.ReadAll(x.body)
	if err != nil {
		return nil, err
	}
	x.entry.keep(raw)
	return raw, nil
}

func (x *exchange) text(s string) {
	x.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(x.w, s) // a peer that is gone cannot be told so
}

func (x *exchange) json(status int, v any) {
	raw, err := canonjson.Marshal(v)
	if err != nil {
		fault.Write(x.w, err)
		return
	}
	x.raw(status, raw)
}

func (x *exchange) raw(status int, raw []byte) {
	x.w.Header().Set("Content-Type", "application/json; charset=utf-8")
	x.w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	x.w.WriteHeader(status)
	_, _ = x.w.Write(raw) // a peer that is gone cannot be told so
}

func (s *Server) health(x *exchange) {
	out := map[string]any{}
	if x.owner() {
		out = s.c.Health(x.r.Context())
		out["version"] = s.c.Version
		out["in_flight"] = s.c.Runner.InFlight()
	}
	out["status"], out["timestamp"] = "healthy", s.c.Now().UTC().Format(time.RFC3339)
	x.json(http.StatusOK, out)
}

// adminStatus is for this machine only.
func (s *Server) adminStatus(x *exchange) {
	if !physicalLoopback(x.r) {
		x.refuse(s, fault.NotFound)
		return
	}
	x.json(http.StatusOK, s.c.Admin(x.r.Context()))
}

// limited applies a pairing limiter. Everything from the tunnel shares one
// bucket besides its own.
func (s *Server) limited(x *exchange, handshake bool) error {
	l := s.pairs
	if handshake {
		l = s.handshakes
	}
	if typedRelay(x.r) {
		if wait, ok := s.relayed.Allow("relay"); !ok {
			return &fault.Error{Code: fault.PairingLimited, RetryAfter: wait}
		}
	}
	if wait, ok := l.Allow(source(x.r)); !ok {
		return &fault.Error{Code: fault.PairingLimited, RetryAfter: wait}
	}
	return nil
}

func (s *Server) pairChallenge(x *exchange) {
	err := s.limited(x, false)
	var raw []byte
	if err == nil {
		raw, err = s.c.Pairing.Challenge()
	}
	if err != nil {
		x.refuse(s, x.body.drain(err))
		return
	}
	x.raw(http.StatusOK, raw)
}

func (s *Server) pair(x *exchange) {
	if err := s.limited(x, false); err != nil {
		x.refuse(s, x.body.drain(err))
		return
	}
	raw, err := io.ReadAll(x.body) // never kept in the request log
	if err != nil {
		x.refuse(s, err)
		return
	}
	granted, err := s.c.Pairing.Pair(x.r.Context(), raw, pairing.Source{Addr: peerAddr(x.r), Relay: originOf(x.r) == Relay})
	if err != nil {
		if pairing.Penalized(err) {
			s.pairs.Penalize(source(x.r), pairingPenalty)
		}
		if fault.Of(err).Code == fault.PairingBusy {
			err = &fault.Error{Code: fault.PairingBusy, RetryAfter: time.Second}
		}
		x.refuse(s, err)
		return
	}
	granted.Delivered(x.deliver(granted.Body))
}

// deliver reports whether an answer that must not be lost was written.
func (x *exchange) deliver(raw []byte) error {
	x.w.Header().Set("Content-Type", "application/json; charset=utf-8")
	x.w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	x.w.WriteHeader(http.StatusOK)
	if _, err := x.w.Write(raw); err != nil {
		return err
	}
	if err := http.NewResponseController(x.w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return x.r.Context().Err()
}

// pairInvite trades an invite, or the owner's proof, for a key. Where it is
// refused because of who asks, the source waits.
func (s *Server) pairInvite(x *exchange) {
	if err := s.limited(x, false); err != nil {
		x.refuse(s, x.body.drain(err))
		return
	}
	raw, err := io.ReadAll(x.body)
	if err != nil {
		x.refuse(s, err)
		return
	}
	x.entry.keep([]byte(twin(raw)))
	granted, err := s.c.Invites.Redeem(x.r.Context(), raw, redeemer(x.r))
	if err != nil {
		if status := fault.Of(err).Code.Status(); status == http.StatusUnauthorized || status == http.StatusForbidden {
			s.pairs.Penalize(source(x.r), pairingPenalty)
		}
		x.refuse(s, err)
		return
	}
	granted.Delivered(x.deliver(granted.Body))
}

// redeemer is what the ledger shows of a caller: the one the relay names, or
// the socket's address.
func redeemer(r *http.Request) string {
	if !typedRelay(r) {
		return peerAddr(r).String()
	}
	hop, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
	return cmp.Or(strings.TrimSpace(hop), r.Host)
}

func (s *Server) handshake(x *exchange) {
	if err := s.limited(x, true); err != nil {
		x.refuse(s, x.body.drain(err))
		return
	}
	s.c.Channel.ServeSession(x.w, x.r, source(x.r))
}

func (s *Server) getTask(x *exchange, id string) {
	t, err := s.c.Runner.Task(x.caller(), id)
	if err != nil {
		x.refuse(s, err)
		return
	}
	x.json(http.StatusOK, t)
}

func (s *Server) cancelTask(x *exchange, id string) {
	err := s.claim(x)
	if err == nil {
		err = s.c.Runner.Cancel(x.caller(), id)
	}
	if err != nil {
		x.refuse(s, err)
		return
	}
	x.w.WriteHeader(http.StatusNoContent)
}

// decodeJSON reads a body with the strictness of every route: nesting at most
// canonjson.MaxDepth, no duplicate keys. Errors: bad, or the body's fault.
func (x *exchange) decodeJSON(v any, bad error) error {
	raw, err := x.read()
	if err != nil {
		return err
	}
	if canonjson.Unmarshal(raw, v) != nil {
		return bad
	}
	return nil
}
