package control

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"osaurus/engine"
	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/fault"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/pairing"
)

// Relays is where the host's agents are reached through the relay.
type Relays struct {
	Domain string         `json:"domain"`
	Agents []engine.Relay `json:"agents"`
}

// EnableRelay has an agent reached through the relay, or no longer.
type EnableRelay struct {
	Agent string `json:"agent"`
	On    bool   `json:"on"`
}

// Link is an invite link, and what to call the peer it brings.
type Link struct {
	Link string `json:"link"`
	Name string `json:"name,omitempty"`
}

// Offered is what a link says. Name and Description are whatever its maker
// wrote; the rest is checked.
type Offered struct {
	Address     address.Address `json:"address"`
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	URL         string          `json:"url"`
	Expires     time.Time       `json:"expires"`
	Paired      string          `json:"paired_as,omitempty"` // the peer that would be replaced
}

func (s *Server) linkOps() {
	e := s.engine
	s.inviteOps()
	op(s, "relay/status", func(context.Context, Empty) (Relays, error) {
		return Relays{e.Settings().RelayDomain, e.RelayStatus()}, nil
	})
	do(s, "relay/enable", func(_ context.Context, in EnableRelay) error {
		a, err := s.find(in.Agent)
		if err != nil {
			return err
		}
		return e.EnableRelay(a, in.On)
	})
	op(s, "link/look", func(_ context.Context, in Link) (Offered, error) {
		inv, addr, err := e.LookAtLink(in.Link)
		if err != nil {
			return Offered{}, err
		}
		out := Offered{Address: addr, Name: pairing.PeerName(inv.Name), Description: pairing.PeerName(inv.Desc), URL: inv.URL, Expires: time.Unix(inv.Exp, 0).UTC()}
		if p, err := e.Peers.Find(addr.String()); err == nil {
			out.Paired = p.Name
		}
		return out, nil
	})
	op(s, "link/accept", func(ctx context.Context, in Link) (pairing.Peer, error) {
		return e.AcceptInvite(ctx, in.Link, in.Name)
	})
}

// Relays shows where the agents are reached through the relay.
func (c *Client) Relays(ctx context.Context) (Relays, error) {
	return call[Relays](ctx, c, "relay/status", Empty{})
}

// EnableRelay has an agent reached through the relay, or no longer.
func (c *Client) EnableRelay(ctx context.Context, in EnableRelay) error {
	_, err := call[Empty](ctx, c, "relay/enable", in)
	return err
}

// LookAtLink reads an invite link without sending anything.
func (c *Client) LookAtLink(ctx context.Context, link string) (Offered, error) {
	return call[Offered](ctx, c, "link/look", Link{Link: link})
}

// AcceptLink redeems an invite link.
func (c *Client) AcceptLink(ctx context.Context, in Link) (pairing.Peer, error) {
	return call[pairing.Peer](ctx, c, "link/accept", in)
}

// NewInvite asks for an invite to an agent.
type NewInvite struct {
	Agent    string        `json:"agent"`
	Lifetime time.Duration `json:"lifetime_ns"`
}

// Invite is one invite of an agent's ledger. Link is there for create and show
// only: who has it gets in.
type Invite struct {
	ID      string          `json:"id"` // the beginning of the nonce, in hex
	AgentID string          `json:"agent_id"`
	Agent   string          `json:"agent"`
	Address address.Address `json:"address,omitzero"`
	State   string          `json:"state"`
	Issued  time.Time       `json:"issued"`
	Expires time.Time       `json:"expires"`
	Used    time.Time       `json:"used,omitzero"`
	From    string          `json:"redeemed_from,omitempty"`
	KeyID   string          `json:"access_key_id,omitempty"`
	Link    string          `json:"link,omitempty"`
}

func (s *Server) inviteOps() {
	op(s, "invites/create", s.createInvite)
	op(s, "invites/list", func(_ context.Context, in ID) ([]Invite, error) { return s.invites(in.ID) })
	op(s, "invites/show", s.showInvite)
	do(s, "invites/revoke", func(ctx context.Context, in ID) error {
		i, err := s.invite(in.ID)
		if err != nil {
			return err
		}
		return s.engine.Invites.Revoke(ctx, i.AgentID, i.nonce)
	})
}

// issued is an invite with what names it in its ledger.
type issued struct {
	Invite
	nonce string
}

// idBytes is how much of a nonce names an invite.
const idBytes = 6

func (s *Server) issued(a agents.Agent, in pairing.IssuedInvite) issued {
	raw, err := base64url.Decode(in.Nonce)
	id := in.Nonce
	if err == nil && len(raw) > idBytes {
		id = hex.EncodeToString(raw[:idBytes])
	}
	return issued{Invite{ID: id, AgentID: a.ID, Agent: a.Name, Address: a.Address, State: in.State(time.Now()), Issued: in.IssuedAt, Expires: time.Unix(in.Exp, 0).UTC(),
		Used: in.UsedAt, From: in.RedeemedFrom, KeyID: in.AccessKeyID}, in.Nonce}
}

// ledgers lists the invites of one agent, or of all.
func (s *Server) ledgers(agent string) ([]issued, error) {
	list := s.engine.Agents.List()
	if agent != "" {
		a, err := s.find(agent)
		if err != nil {
			return nil, err
		}
		list = []agents.Agent{a}
	}
	var all []issued
	for _, a := range list {
		ledger, err := s.engine.Invites.List(a.ID)
		if err != nil {
			return nil, err
		}
		for _, in := range ledger {
			all = append(all, s.issued(a, in))
		}
	}
	return all, nil
}

func (s *Server) invites(agent string) ([]Invite, error) {
	all, err := s.ledgers(agent)
	list := make([]Invite, 0, len(all))
	for _, in := range all {
		list = append(list, in.Invite)
	}
	return list, err
}

// invite finds one by its id, the beginning of it, or its nonce.
func (s *Server) invite(id string) (issued, error) {
	all, err := s.ledgers("")
	if err != nil {
		return issued{}, err
	}
	var found []issued
	for _, in := range all {
		if in.nonce == id || id != "" && strings.HasPrefix(in.ID, strings.ToLower(id)) {
			found = append(found, in)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return issued{}, fault.WithText(fault.Usage, "no invite has this id")
	}
	return issued{}, fault.WithText(fault.Usage, "several invites begin like this; write more of the id")
}

func (s *Server) createInvite(ctx context.Context, in NewInvite) (Invite, error) {
	a, err := s.find(in.Agent)
	if err != nil {
		return Invite{}, err
	}
	if in.Lifetime == 0 {
		in.Lifetime = pairing.DefaultInvite
	}
	made, link, err := s.engine.Invite(ctx, a, in.Lifetime)
	if err != nil {
		return Invite{}, err
	}
	out, err := s.invite(made.Nonce)
	out.Link = link
	return out.Invite, err
}

func (s *Server) showInvite(ctx context.Context, in ID) (Invite, error) {
	i, err := s.invite(in.ID)
	if err != nil {
		return Invite{}, err
	}
	if i.State != pairing.InviteActive {
		return i.Invite, nil
	}
	a, ok := s.engine.Agents.Get(i.AgentID)
	if !ok {
		return Invite{}, fault.AgentNotFound
	}
	_, i.Link, err = s.engine.ShowInvite(ctx, a, i.nonce)
	return i.Invite, err
}

// CreateInvite makes an invite; the reply has its link.
func (c *Client) CreateInvite(ctx context.Context, in NewInvite) (Invite, error) {
	return call[Invite](ctx, c, "invites/create", in)
}

// Invites lists the invites of an agent, or of all when it is "".
func (c *Client) Invites(ctx context.Context, agent string) ([]Invite, error) {
	return call[[]Invite](ctx, c, "invites/list", ID{agent})
}

// ShowInvite returns an invite, with its link while it can be redeemed.
func (c *Client) ShowInvite(ctx context.Context, id string) (Invite, error) {
	return call[Invite](ctx, c, "invites/show", ID{id})
}

// RevokeInvite ends an invite and the key it was redeemed for.
func (c *Client) RevokeInvite(ctx context.Context, id string) error {
	_, err := call[Empty](ctx, c, "invites/revoke", ID{id})
	return err
}
