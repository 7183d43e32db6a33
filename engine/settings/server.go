package settings

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Defaults and bounds of the server's settings.
const (
	DefaultPort           = 1337
	DefaultMaxConnections = 512
	DefaultRelayDomain    = "agent.osaurus.ai"
	MinConnections        = 64 // the slots kept for loopback, and as many again
	MaxConnections        = 65536

	maxPort = 65535
)

// Server is config/server.json.
type Server struct {
	Port           int      `json:"port"`
	Expose         bool     `json:"expose"`          // listen on every interface
	LoopbackTrust  bool     `json:"loopback_trust"`  // local callers need no key while not exposed
	RequireChannel bool     `json:"require_channel"` // 426 on every route that takes a bearer
	PeerInference  bool     `json:"peer_inference"`  // agent keys may use the inference routes
	CORS           []string `json:"cors"`            // allowed origins; "*" for any
	MaxConnections int      `json:"max_connections"`
	RelayDomain    string   `json:"relay_domain"` // agents are reached at <address>.<domain>
}

// DefaultServer returns the settings of a new host.
func DefaultServer() Server {
	return Server{Port: DefaultPort, LoopbackTrust: true, CORS: []string{}, MaxConnections: DefaultMaxConnections, RelayDomain: DefaultRelayDomain}
}

// ErrPort says that there is no such port.
var ErrPort = errors.New("port must be between 1 and 65535 (0 for any free port)")

// Validate implements Validator. Port 0 asks the system for a free port.
func (s Server) Validate() error {
	if s.Port < 0 || s.Port > maxPort {
		return fmt.Errorf("%w, not %d", ErrPort, s.Port)
	}
	if s.MaxConnections < MinConnections || s.MaxConnections > MaxConnections {
		return fmt.Errorf("max_connections must be between %d and %d, not %d", MinConnections, MaxConnections, s.MaxConnections)
	}
	if u, err := url.Parse("https://" + s.RelayDomain); err != nil || u.Host != s.RelayDomain || u.Host == "" || strings.ContainsAny(s.RelayDomain, " @/?#") {
		return errors.New("relay_domain must be a host name, with a port if it needs one")
	}
	for i, origin := range s.CORS {
		if err := checkOrigin(origin); err != nil {
			return fmt.Errorf("cors entry %d: %w", i+1, err)
		}
	}
	return nil
}

// checkOrigin accepts "*" and scheme://host[:port] exactly as browsers send it.
func checkOrigin(o string) error {
	if o == "*" {
		return nil
	}
	u, err := url.Parse(o)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(o, " \t\r\n") {
		return errors.New("want * or an origin such as https://example.com or app://name")
	}
	return nil
}

// Provider is config/provider.json: where models run. Its key, if any, stands
// in the keystore.
type Provider struct {
	BaseURL string `json:"base_url"` // up to and without /v1; "" means none chosen
	Model   string `json:"model"`    // "" means the first the provider lists
}

// Validate implements Validator.
func (p Provider) Validate() error {
	if p.BaseURL == "" {
		return nil
	}
	u, err := url.Parse(p.BaseURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("base_url must be an http or https address without user, query or fragment")
	}
	return nil
}
