// Package channel is the Secure Channel, version 1: end-to-end encryption
// between two peers above HTTP, so that a relay or an observer on the LAN is a
// blind pipe (PROTOCOL.md). The handshake and the record layer are machines
// without I/O; Server and Transport put them around an ordinary http.Handler
// and behind an ordinary http.Client.
package channel

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/identity"
)

// Config is what a Server needs. Signer is required.
type Config struct {
	// Signer returns the key of the agent a hello names. Errors the peer sees
	// as such: fault.UnknownAgentAddress and fault.HostIdentityUnavailable;
	// any other becomes fault.HandshakeFailed. Safe for concurrent use.
	Signer func(ctx context.Context, agent address.Address) (identity.Signer, error)
	Now    func() time.Time // nil: time.Now
	Rand   io.Reader        // nil: crypto/rand; must be safe for concurrent use
}

// Server answers /secure/session and /secure/call. Safe for concurrent use.
type Server struct{ config Config }

// NewServer returns a server without sessions.
func NewServer(c Config) *Server { return &Server{config: c} }

// ServeSession answers a handshake. source is whom the session counts
// against, as the rate limiter names it.
func (s *Server) ServeSession(w http.ResponseWriter, r *http.Request, source string) {
	panic("channel: not built yet")
}

// ServeCall opens a sealed call, has next serve the inner request and seals
// what next writes.
func (s *Server) ServeCall(w http.ResponseWriter, r *http.Request, next http.Handler) {
	panic("channel: not built yet")
}

// CloseAgent ends every session of an agent.
func (s *Server) CloseAgent(agent address.Address) {}

// Sweep forgets expired sessions; handshakes and calls do so in passing, so
// only an idle host needs it.
func (s *Server) Sweep() {}

// Close ends every session.
func (s *Server) Close() {}

// Inside reports whether a request arrived through the channel.
func Inside(ctx context.Context) bool { return false }

// TransportConfig is what a Transport needs. Peer and Pinned are required.
type TransportConfig struct {
	Base   http.RoundTripper // nil: http.DefaultTransport
	Peer   *url.URL          // scheme, host and an optional path prefix
	Pinned address.Address   // the address stored at pairing
	Now    func() time.Time  // nil: time.Now
	Rand   io.Reader         // nil: crypto/rand; must be safe for concurrent use
}

// Transport is the client: an http.RoundTripper that sends every request for
// a URL on Peer through the channel, and never outside it. Safe for
// concurrent use.
type Transport struct{ config TransportConfig }

// NewTransport returns a transport without sessions. It panics when Peer or
// Pinned is missing.
func NewTransport(c TransportConfig) *Transport { return &Transport{config: c} }

// RoundTrip sends req through the channel.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	panic("channel: not built yet")
}

// Close ends every session. Calls in flight finish; later ones fail.
func (t *Transport) Close() {}
