package server

import (
	"net/http"
	"strings"

	"osaurus/engine/accesskey"
	"osaurus/engine/fault"
)

// request is everything the gate may look at.
type request struct {
	method, path   string
	public         bool
	trusted        bool // trusted loopback
	physical       bool // loopback socket, whatever the trust
	inside         bool // through the channel
	configured     bool // a key was ever minted, or an issuer trusted
	authorization  []string
	agentHeaders   []string // X-Osaurus-Agent-Id
	peerInference  bool
	requireChannel bool
}

// verdict is what a request may do.
type verdict struct {
	access accesskey.Access
	known  bool // access is whose key it was; else nobody, or trusted loopback
	empty  bool // a model list must be empty
}

// decide is the gate of PROTOCOL.md section 4, row by row. validate checks a
// bearer; ownAgent reports whether a UUID names the agent with the audience
// of an access, or a built-in one.
func decide(q request, validate func(string) (accesskey.Access, error), sameAgent func(accesskey.Access, string) bool) (verdict, error) {
	if q.public {
		access, known := volunteered(q, validate)
		return verdict{access: access, known: known}, nil // row 1
	}
	if q.trusted {
		// Row 2: a valid agent-scoped bearer confines even here, an invalid
		// one is ignored (decisions C3).
		access, known := volunteered(q, validate)
		if !known {
			return verdict{}, nil
		}
		return limits(q, access, sameAgent)
	}
	if !q.configured {
		return verdict{}, fault.NoAccessKeys // row 3
	}
	bearer, ok := bearerOf(q.authorization)
	if !ok {
		return verdict{}, fault.TokenFormat // row 4
	}
	access, err := validate(bearer)
	if err != nil {
		return verdict{}, err // rows 5 and 6
	}
	v, err := limits(q, access, sameAgent)
	if err != nil {
		return verdict{}, err
	}
	if (q.requireChannel || needsChannel(q.method, q.path)) && !q.inside && !q.physical {
		return verdict{}, fault.SecureChannelRequired
	}
	return v, nil
}

// limits is rows 7 to 9.
func limits(q request, a accesskey.Access, sameAgent func(accesskey.Access, string) bool) (verdict, error) {
	v := verdict{access: a, known: true}
	if a.MasterScoped {
		return v, nil
	}
	if admin(q.path) {
		return verdict{}, fault.AgentScopeGate
	}
	if inference(q.path) && !q.peerInference {
		return verdict{}, fault.PeerInferenceDisabled
	}
	for _, named := range q.agentHeaders {
		if named != "" && !sameAgent(a, named) {
			return verdict{}, fault.AgentScopeGate
		}
	}
	v.empty = !q.peerInference
	return v, nil
}

func volunteered(q request, validate func(string) (accesskey.Access, error)) (accesskey.Access, bool) {
	bearer, ok := bearerOf(q.authorization)
	if !ok {
		return accesskey.Access{}, false
	}
	a, err := validate(bearer)
	return a, err == nil
}

// bearerOf takes the token out of the one Authorization header. More than one
// is refused; the scheme is compared without case.
func bearerOf(headers []string) (string, bool) {
	if len(headers) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(headers[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}

func isUnauthorised(err error) bool { return fault.Of(err).Code.Status() == http.StatusUnauthorized }
