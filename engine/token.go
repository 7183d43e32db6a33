package engine

import (
	"context"

	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/identity"
	"osaurus/engine/secret"
)

// MintRequestToken signs a request token for another host: as the master, or
// as the agent with this id. The caller destroys it.
func (e *Engine) MintRequestToken(ctx context.Context, agentID, audience, action string) (secret.Bytes, error) {
	r := identity.TokenRequest{Audience: audience, Action: action}
	if agentID == "" {
		master, err := e.Account.Unlock(ctx, "sign a request token")
		if err != nil {
			return secret.Bytes{}, err
		}
		defer master.Destroy()
		return e.Account.MintRequestToken(ctx, master, r)
	}
	a, err := e.Agents.Resolve(agentID)
	if err != nil {
		return secret.Bytes{}, err
	}
	signer, err := e.Agents.Signer(ctx, a.Address)
	if err != nil {
		return secret.Bytes{}, err
	}
	r.Agent = &identity.AgentClaim{Parent: e.Account.Address(), Index: a.Path.Index}
	return e.Account.MintRequestToken(ctx, signer, r)
}

// VerifyRequestToken accepts a token that was made for this host, once.
func (e *Engine) VerifyRequestToken(ctx context.Context, token, action string) (identity.RequestClaims, error) {
	v, err := e.requests()
	if err != nil {
		return identity.RequestClaims{}, err
	}
	return v.Verify(ctx, token, action)
}

// HostName is the audience of request tokens for this host.
func (e *Engine) HostName() string { return e.ports.DeviceName }

func (e *Engine) openRequests() (*identity.RequestVerifier, error) {
	return identity.OpenRequestVerifier(identity.RequestVerifierConfig{
		Path: e.path("identity", "request-devices.json"), Host: e.HostName(), Master: e.Account.Address, Now: e.ports.Now,
		Agent: func(a address.Address) (uint32, bool) { return indexOf(e.Agents.ByAddress(a)) },
	})
}

func indexOf(a agents.Agent, known bool) (uint32, bool) {
	if !known || a.Path == nil {
		return 0, false
	}
	return a.Path.Index, true
}
