package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/internal/base64url"
)

// Config is what a Server needs. Signer is required.
type Config struct {
	// Signer returns the key of the agent a hello names. The peer is told of
	// fault.UnknownAgentAddress and fault.HostIdentityUnavailable; any other
	// error becomes fault.HandshakeFailed. Safe for concurrent use.
	Signer func(ctx context.Context, agent address.Address) (identity.Signer, error)
	Now    func() time.Time // nil: time.Now
	Rand   io.Reader        // nil: crypto/rand; safe for concurrent use
}

// Server answers /secure/session and /secure/call (PROTOCOL.md sections 2, 4
// to 7). Safe for concurrent use.
type Server struct {
	config   Config
	sessions *table
}

// NewServer returns a server without sessions.
func NewServer(c Config) *Server {
	if c.Signer == nil {
		panic("channel: NewServer without a Signer")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Server{config: c, sessions: newTable()}
}

// ServeSession answers a handshake. source, as the rate limiter names it, is
// whom the session counts against. When the caller's body reader fails with a
// fault, that fault is the answer.
func (s *Server) ServeSession(w http.ResponseWriter, r *http.Request, source string) {
	reply, err := s.handshake(r, source)
	if err != nil {
		fault.Write(w, err)
		return
	}
	w.Header().Set("Content-Type", jsonContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(reply)))
	_, _ = w.Write(reply) //nolint:gosec // G705: JSON of ours; a peer that is gone cannot be told so
}

func (s *Server) handshake(r *http.Request, source string) ([]byte, error) {
	body, err := readBody(nil, r, maxHello, fault.HandshakeRequest)
	if err != nil {
		return nil, err
	}
	h, err := parseHello(body)
	if err != nil {
		return nil, err
	}
	now := s.config.Now()
	resp, err := newResponder(h, now, s.config.Rand)
	if err != nil {
		return nil, handshakeFault(err)
	}
	defer resp.drop()
	signer, err := s.config.Signer(r.Context(), h.agent)
	if err != nil {
		return nil, handshakeFault(err)
	}
	if signer.Address() != h.agent {
		return nil, fault.New(fault.HandshakeFailed, errors.New("channel: the signer has another address"))
	}
	sig, err := signer.Sign(r.Context(), resp.digest())
	if err != nil {
		return nil, handshakeFault(err)
	}
	reply, keys := resp.finish(sig)
	raw, err := base64url.DecodeExact(keys.sid, sidSize)
	if err != nil {
		return nil, handshakeFault(err)
	}
	fresh := &session{id: sessionID(raw), agent: h.agent, source: source, expires: resp.answer.expires, keys: keys}
	s.sessions.add(fresh, now)
	// An agent that was rotated while it signed is gone by now; its CloseAgent
	// may have come before this session was there to be ended.
	if _, err := s.config.Signer(r.Context(), h.agent); err != nil {
		s.sessions.remove(func(x *session) bool { return x == fresh })
		return nil, handshakeFault(err)
	}
	return reply, nil
}

// handshakeFault passes the outcomes a peer may see and covers the rest.
func handshakeFault(err error) error {
	for _, code := range []fault.Code{fault.HandshakeMalformed, fault.UnknownAgentAddress, fault.HostIdentityUnavailable} {
		if errors.Is(err, code) {
			return fault.New(code, err)
		}
	}
	if errors.Is(err, fault.KeystoreLocked) {
		return fault.New(fault.HostIdentityUnavailable, err)
	}
	return fault.New(fault.HandshakeFailed, err)
}

// readBody reads at most limit bytes after dst. Errors are faults: the body
// reader's own, fault.PayloadTooLarge, else otherwise.
func readBody(dst []byte, r *http.Request, limit int, otherwise fault.Code) ([]byte, error) {
	body, err := readAll(dst, r.Body, r.ContentLength, limit)
	if err == nil {
		return body, nil
	}
	if errors.Is(err, ErrTooLarge) {
		seen := max(r.ContentLength, int64(limit)+1)
		return body, fault.WithText(fault.PayloadTooLarge, fmt.Sprintf("Request body too large (%d > %d bytes)", seen, limit))
	}
	if f := fault.Of(err); f.Code != fault.Internal {
		return body, f
	}
	return body, fault.New(otherwise, err)
}

// CloseAgent ends every session of an agent: its key was rotated or revoked.
// Answers that began go on; the next call meets 401 secure_session_unknown.
func (s *Server) CloseAgent(agent address.Address) {
	s.sessions.remove(func(x *session) bool { return x.agent == agent })
}

// Sweep forgets expired sessions and destroys their keys. Handshakes do so in
// passing, so only an idle host needs it.
func (s *Server) Sweep() { s.sessions.sweep(s.config.Now()) }

// Close ends every session.
func (s *Server) Close() { s.sessions.remove(func(*session) bool { return true }) }
