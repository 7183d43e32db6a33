package control

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"osaurus/engine"
	"osaurus/engine/address"
	"osaurus/engine/channel"
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

// PairOwn names an agent of another host with the same identity.
type PairOwn struct {
	Address address.Address `json:"address"`
	Name    string          `json:"name,omitempty"`
}

func (s *Server) relayOps() {
	e := s.engine
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
	op(s, "pair/own", func(ctx context.Context, in PairOwn) (pairing.Peer, error) {
		return e.PairOwn(ctx, in.Address, in.Name)
	})
}

// relayWords are what a relay, or the host behind it, answers in clear when a
// call does not arrive. Anybody on the way can write them, so they decide
// nothing: they are told to the person.
var relayWords = map[string]string{
	"agent_offline":       "the relay says that the agent's host is offline",
	"agent_unreachable":   "the relay says that it cannot reach the relay that has the agent",
	"tunnel_closed":       "the agent's host went offline during the call",
	"tunnel_send_failed":  "the agent's host went offline during the call",
	"bad_host_response":   "the relay says that the agent's host answered with something it cannot carry",
	"gateway_timeout":     "the agent's host did not answer within the relay's time",
	"host_busy":           "the agent's host has too many calls at once; try again shortly",
	"local_server_error":  "the agent's host failed to answer",
	"invalid_subdomain":   "the relay does not know such a place",
	"rate_limited":        "the relay takes no more calls for now; try again in a minute",
	"client_disconnected": "the relay lost the call",
}

// describeRelay tells what a call through the relay, or the channel, met.
func describeRelay(e *Error, err error) {
	if st, ok := errors.AsType[*channel.StatusError](err); ok {
		if text, known := relayWords[st.Word()]; known {
			e.Code, e.Message, e.Exit = st.Word(), text, exitUnreachable
		} else if st.Status == http.StatusBadGateway || st.Status == http.StatusServiceUnavailable || st.Status == http.StatusGatewayTimeout {
			e.Code, e.Exit = "unreachable", exitUnreachable
		}
	}
	switch {
	case errors.Is(err, channel.ErrPeerMustUpgrade):
		e.Code = "peer_must_upgrade"
	case errors.Is(err, channel.ErrUnknownAgent):
		e.Code = "agent_moved"
	case errors.Is(err, pairing.ErrLink), errors.Is(err, pairing.ErrLinkVersion), errors.Is(err, pairing.ErrLinkSigned), errors.Is(err, pairing.ErrLinkExpired), errors.Is(err, pairing.ErrLinkHost):
		e.Code, e.Exit = "bad_link", exitUsage
		e.Message = strings.TrimPrefix(e.Message, "pairing: ")
	}
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

// PairOwn gets access to an agent of another host with the same identity.
func (c *Client) PairOwn(ctx context.Context, in PairOwn) (pairing.Peer, error) {
	return call[pairing.Peer](ctx, c, "pair/own", in)
}
