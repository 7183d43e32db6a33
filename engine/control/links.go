package control

import (
	"context"

	"osaurus/engine"
	"osaurus/engine/pairing"
)

// Link is an osaurus:// link that somebody handed over; Name is what its peer
// is called here, "" for the name it gives itself.
type Link struct {
	Link string `json:"link"`
	Name string `json:"name,omitempty"`
}

// EnableRelay makes an agent reachable through the relay, or not.
type EnableRelay struct {
	Agent string `json:"agent"`
	On    bool   `json:"on"`
}

func (s *Server) linkOps() {
	e := s.engine
	op(s, "links/look", func(_ context.Context, in Link) (pairing.Invite, error) {
		found, _, err := e.LookAtLink(in.Link)
		return found, err
	})
	op(s, "links/accept", func(ctx context.Context, in Link) (pairing.Peer, error) { return e.AcceptInvite(ctx, in.Link, in.Name) })
	op(s, "relay/status", func(context.Context, Empty) ([]engine.Relay, error) { return e.RelayStatus(), nil })
	do(s, "relay/enable", func(_ context.Context, in EnableRelay) error {
		a, err := s.find(in.Agent)
		if err != nil {
			return err
		}
		return e.EnableRelay(a, in.On)
	})
}

// LookAtLink reads a link without sending anything.
func (c *Client) LookAtLink(ctx context.Context, link string) (pairing.Invite, error) {
	return call[pairing.Invite](ctx, c, "links/look", Link{Link: link})
}

// AcceptLink redeems a link and keeps the agent as a peer.
func (c *Client) AcceptLink(ctx context.Context, l Link) (pairing.Peer, error) {
	return call[pairing.Peer](ctx, c, "links/accept", l)
}

// Relays lists the agents that may be reached through the relay.
func (c *Client) Relays(ctx context.Context) ([]engine.Relay, error) {
	return call[[]engine.Relay](ctx, c, "relay/status", Empty{})
}

// EnableRelay lets an agent be reached through the relay, or not.
func (c *Client) EnableRelay(ctx context.Context, r EnableRelay) error {
	_, err := call[Empty](ctx, c, "relay/enable", r)
	return err
}
