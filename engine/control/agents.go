package control

import (
	"context"
	"fmt"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
)

func (s *Server) agentOps() {
	e := s.engine
	op(s, "agents/list", func(context.Context, Empty) ([]Agent, error) {
		list := []Agent{}
		for _, a := range e.Agents.List() {
			list = append(list, s.agent(a))
		}
		return list, nil
	})
	op(s, "agents/create", s.createAgent)
	op(s, "agents/edit", s.editAgent)
	s.agentAction("assign", e.Agents.Assign)
	s.agentAction("rotate", e.Agents.Rotate)
	s.agentAction("revoke", e.Agents.Revoke)
	s.agentAction("delete", func(ctx context.Context, id string) (agents.Agent, error) {
		a, _ := e.Agents.Get(id)
		return a, e.Agents.Delete(ctx, id)
	})
}

func (s *Server) agent(a agents.Agent) Agent {
	out := Agent{Agent: a}
	for _, k := range s.engine.Keys.List() {
		if !k.Revoked && !a.Address.IsZero() && k.Audience == a.Address {
			out.ActiveKeys++
		}
	}
	return out
}

// find takes a UUID, an address, or a name that only one agent has.
func (s *Server) find(name string) (agents.Agent, error) {
	if a, err := s.engine.Agents.Resolve(name); err == nil {
		return a, nil
	}
	var found []agents.Agent
	for _, a := range s.engine.Agents.List() {
		if a.Name == name {
			found = append(found, a)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return agents.Agent{}, fault.WithText(fault.Usage, "no agent has this name, id or address")
	}
	return agents.Agent{}, fault.WithText(fault.Usage, fmt.Sprintf("%d agents have this name; use the id", len(found)))
}

func (s *Server) agentAction(name string, f func(ctx context.Context, id string) (agents.Agent, error)) {
	op(s, "agents/"+name, func(ctx context.Context, in ID) (Agent, error) {
		a, err := s.find(in.ID)
		if err == nil {
			a, err = f(ctx, a.ID)
		}
		return s.agent(a), err
	})
}

func (s *Server) createAgent(ctx context.Context, in EditAgent) (Agent, error) {
	var d agents.Draft
	in.apply(&d)
	a, err := s.engine.Agents.Create(ctx, d)
	if err != nil {
		return Agent{}, err
	}
	if a, err = s.engine.Agents.Assign(ctx, a.ID); err != nil {
		return Agent{}, fmt.Errorf("the agent exists without an address: %w", err)
	}
	return s.agent(a), s.exposeFor(a)
}

func (s *Server) editAgent(ctx context.Context, in EditAgent) (Agent, error) {
	a, err := s.find(in.ID)
	if err != nil {
		return Agent{}, err
	}
	if a, err = s.engine.Agents.Update(ctx, a.ID, in.apply); err != nil {
		return Agent{}, err
	}
	if in.Bonjour == nil || !*in.Bonjour {
		return s.agent(a), nil
	}
	return s.agent(a), s.exposeFor(a)
}

// exposeFor turns exposure on with an agent's Bonjour (PROTOCOL.md of the
// server, section 1). Listeners change at the next start.
func (s *Server) exposeFor(a agents.Agent) error {
	set := s.engine.Settings()
	if !a.BonjourEnabled || set.Expose {
		return nil
	}
	set.Expose = true
	return s.engine.SetSettings(set)
}

func (in EditAgent) apply(d *agents.Draft) {
	for _, f := range []struct {
		from *string
		to   *string
	}{{in.Name, &d.Name}, {in.Description, &d.Description}, {in.Model, &d.Model}, {in.SystemPrompt, &d.SystemPrompt}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	if in.Bonjour != nil {
		d.BonjourEnabled = *in.Bonjour
	}
	if in.AllowPeerMemory != nil {
		d.AllowPeerMemory = *in.AllowPeerMemory
	}
}

func (s *Server) keyOps() {
	k := s.engine.Keys
	op(s, "keys/list", func(context.Context, Empty) ([]accesskey.Metadata, error) { return k.List(), nil })
	op(s, "keys/mint", s.mint)
	do(s, "keys/revoke", func(ctx context.Context, in ID) error { return k.Revoke(ctx, in.ID) })
	do(s, "keys/delete", func(ctx context.Context, in ID) error { return k.Delete(ctx, in.ID) })
	op(s, "keys/revoke-all", s.revokeAll)
	do(s, "keys/refuse-before", func(ctx context.Context, in RefuseBefore) error {
		if in.Time.IsZero() || in.Time.After(time.Now()) {
			return fault.WithText(fault.Usage, "keys can be refused up to a time that has been")
		}
		return k.RefuseBefore(ctx, in.Time)
	})
	op(s, "keys/whitelist", func(context.Context, Empty) ([]accesskey.Trusted, error) { return k.Whitelist(), nil })
	do(s, "keys/trust", func(ctx context.Context, in Trust) error {
		aud, err := s.audience(in.Agent)
		if err != nil {
			return err
		}
		return k.Trust(ctx, aud, in.Issuer)
	})
	do(s, "keys/distrust", func(ctx context.Context, in Trust) error {
		aud, err := s.audience(in.Agent)
		if err != nil {
			return err
		}
		return k.Distrust(ctx, aud, in.Issuer)
	})
}

// revokeAll ends every key that an address has issued up to now, also those
// this host has no record of.
func (s *Server) revokeAll(ctx context.Context, in RevokeAll) (RevokedAll, error) {
	issuer, err := s.issuer(in.Issuer)
	if err != nil {
		return RevokedAll{}, err
	}
	k, out := s.engine.Keys, RevokedAll{Issuer: issuer}
	active := func() (n int) {
		for _, m := range k.List() {
			if m.Issuer == issuer && !m.Revoked {
				n++
			}
		}
		return n
	}
	before := active()
	err = k.RevokeIssuer(ctx, issuer)
	out.Revoked = max(before-active(), 0)
	return out, err
}

// issuer is the master, an agent's address, or any address.
func (s *Server) issuer(name string) (address.Address, error) {
	if name == "master" {
		master := s.engine.Account.Address()
		if master.IsZero() {
			return master, fault.NoMaster
		}
		return master, nil
	}
	if a, err := address.Parse(name); err == nil && !a.IsZero() {
		return a, nil
	}
	if name == "" {
		return address.Address{}, fault.WithText(fault.Usage, "name an address, an agent, or master")
	}
	return s.audience(name)
}

// audience of a whitelist entry; "" is every audience.
func (s *Server) audience(agent string) (address.Address, error) {
	if agent == "" {
		return address.Address{}, nil
	}
	a, err := s.find(agent)
	if err == nil && a.Address.IsZero() {
		err = fault.WithText(fault.Usage, "the agent has no address")
	}
	return a.Address, err
}

func (s *Server) mint(ctx context.Context, in MintKey) (NewKey, error) {
	signer, done, err := s.signer(ctx, in.Agent)
	if err != nil {
		return NewKey{}, err
	}
	defer done()
	minted, err := s.engine.Keys.Mint(ctx, signer, accesskey.MintRequest{Label: in.Label, Expiration: in.Expiration})
	if err != nil {
		return NewKey{}, err
	}
	defer minted.Token.Destroy()
	return NewKey{minted.Metadata, string(minted.Token.Expose())}, nil
}

// signer is the master for "", else the agent.
func (s *Server) signer(ctx context.Context, agent string) (identity.Signer, func(), error) {
	if agent == "" {
		master, err := s.engine.Account.Unlock(ctx, "create an access key")
		return master, master.Destroy, err
	}
	aud, err := s.audience(agent)
	if err != nil {
		return nil, nil, err
	}
	signer, err := s.engine.Agents.Signer(ctx, aud)
	return signer, func() {}, err
}
