package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/atomicfile"
	"osaurus/engine/channel"
	"osaurus/engine/fault"
	"osaurus/engine/pairing"
	"osaurus/engine/relay"
	"osaurus/engine/server"
)

// relayFile says which agents are reached through the relay (relay.md section
// 9). One that does not parse enables nothing.
const relayFile = "relay.json"

type relayChoice struct {
	Enabled map[string]bool `json:"enabledAgents"`
}

// relays is the tunnel and who takes part in it.
type relays struct {
	tunnel *relay.Tunnel
	client *http.Client // finds names below localhost on this machine

	mu      sync.Mutex
	enabled map[string]bool
}

func (e *Engine) openRelay() {
	e.relays.client = &http.Client{Transport: localTransport()}
	e.relays.enabled = map[string]bool{}
	var c relayChoice
	raw, err := os.ReadFile(e.path("config", relayFile))
	if err == nil && json.Unmarshal(raw, &c) == nil && c.Enabled != nil {
		e.relays.enabled = c.Enabled
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.ports.Logger.Warn("no agent is reached through the relay", slog.String("error", err.Error()))
	}
	e.relays.tunnel = relay.New(relay.Config{
		Agents: e.relayed, Signer: e.Agents.Signer, Dial: func(ctx context.Context) (relay.Conn, error) { return relay.Dial(e.tunnelURL(), e.relayClient())(ctx) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			e.Server.ServeHTTP(w, r.WithContext(server.WithOrigin(r.Context(), server.Relay)))
		}),
		Place: e.relayPlace, Probe: e.probe, Now: e.ports.Now, Log: e.Event,
	})
	e.Invites = pairing.NewInvites(pairing.InvitesConfig{
		Agent: e.invited, Signer: e.Agents.Signer, Keys: e.Keys, Devices: e.Storage.Document("identity/owner-devices.json"),
		Ledger: func(id string) atomicfile.Document { return e.Storage.Document("agent-invites/" + id + ".json") },
		Master: func() (address.Address, bool) { return e.Account.Address(), e.Agents.Unlocked() },
		URL:    e.relayURL, Place: func(a address.Address) string { return e.placeOf(a).String() }, Now: e.ports.Now, Rand: e.ports.Rand, Log: e.Event,
	})
}

// localTransport reaches names below localhost on this machine, whatever a
// resolver would say (RFC 6761 section 6.3).
func localTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	}}
}

// keepTunnel keeps the agents connected, to whichever relay is chosen.
func (e *Engine) keepTunnel(ctx context.Context) {
	for ctx.Err() == nil {
		domain := e.Settings().RelayDomain
		once, leave := context.WithCancel(ctx)
		left := make(chan struct{})
		go func() { defer close(left); e.relays.tunnel.Run(once) }()
		for ctx.Err() == nil {
			changed := e.settings.wait()
			if e.Settings().RelayDomain != domain {
				break
			}
			select {
			case <-ctx.Done():
			case <-changed:
			}
		}
		leave()
		<-left
	}
}

func (r *relays) close() {
	if r.client != nil {
		r.client.CloseIdleConnections()
	}
}

// relayClient is how the relay is spoken to.
func (e *Engine) relayClient() *http.Client {
	if pairing.Local(e.Settings().RelayDomain) {
		return e.relays.client
	}
	return e.ports.Client
}

// transportTo is how a peer is reached.
func (e *Engine) transportTo(base *url.URL) http.RoundTripper {
	if pairing.Local(base.Host) {
		return e.relays.client.Transport
	}
	return e.ports.Client.Transport
}

func (e *Engine) tunnelURL() string {
	domain, scheme := e.Settings().RelayDomain, "wss"
	if pairing.Local(domain) {
		scheme = "ws"
	}
	return scheme + "://" + domain + relay.ConnectPath
}

// placeOf is the one place where an agent is reached through the relay.
func (e *Engine) placeOf(a address.Address) *url.URL {
	domain, scheme := e.Settings().RelayDomain, "https"
	if pairing.Local(domain) {
		scheme = "http"
	}
	return &url.URL{Scheme: scheme, Host: a.Lower() + "." + domain}
}

// relayPlace compares what the relay says of an agent's place with ours: a
// relay decides no host.
func (e *Engine) relayPlace(a address.Address, said string) (string, error) {
	place := e.placeOf(a)
	if u, err := url.Parse(said); err != nil || !strings.EqualFold(u.Host, place.Host) {
		return "", fmt.Errorf("the relay says that agents are found at %.80q, not at %s; is relay_domain right?", said, place)
	}
	return place.String(), nil
}

// relayed lists the agents that are to be reached through the relay and can
// be: the built-in one never is.
func (e *Engine) relayed() []relay.Agent {
	e.relays.mu.Lock()
	defer e.relays.mu.Unlock()
	var list []relay.Agent
	for _, a := range e.Agents.List() {
		if e.relays.enabled[a.ID] && !a.BuiltIn && !a.Address.IsZero() {
			list = append(list, relay.Agent{ID: a.ID, Address: a.Address})
		}
	}
	return list
}

// EnableRelay lets an agent be reached through the relay, or no longer. An
// agent that another host took over is taken back.
func (e *Engine) EnableRelay(a agents.Agent, on bool) error {
	if a.BuiltIn || on && a.Address.IsZero() {
		return fault.WithText(fault.Usage, "this agent has no address, so nobody can reach it")
	}
	e.relays.mu.Lock()
	next := map[string]bool{}
	for id, enabled := range e.relays.enabled {
		if enabled && id != a.ID {
			next[id] = true
		}
	}
	if on {
		next[a.ID] = true
	}
	text, err := json.MarshalIndent(relayChoice{next}, "", "  ")
	if err == nil {
		err = atomicfile.Write(e.path("config", relayFile), append(text, '\n'))
	}
	if err == nil {
		e.relays.enabled = next
	}
	e.relays.mu.Unlock()
	if err != nil {
		return err
	}
	if on {
		e.relays.tunnel.Reclaim(a.Address)
	}
	e.relays.tunnel.Changed()
	return nil
}

// Relay is how an agent's tunnel is.
type Relay struct {
	relay.Status
	Name string `json:"name"`
}

// Named reports whether a name, id or address means this agent.
func (r Relay) Named(name string) bool {
	return r.Name == name || strings.EqualFold(r.Agent, name) || strings.EqualFold(r.Address.String(), name)
}

// RelayStatus lists the agents that are enabled; while the host does not serve
// they are disconnected.
func (e *Engine) RelayStatus() []Relay {
	known := map[address.Address]relay.Status{}
	for _, s := range e.relays.tunnel.Status() {
		known[s.Address] = s
	}
	list := []Relay{}
	for _, a := range e.relayed() {
		s, ok := known[a.Address]
		if !ok {
			s = relay.Status{Agent: a.ID, Address: a.Address}
		}
		agent, _ := e.Agents.Get(a.ID)
		list = append(list, Relay{s, agent.Name})
	}
	return list
}

// relayFindings tell of agents that are to be reached through the relay and
// are not.
func (e *Engine) relayFindings() []Finding {
	var f []Finding
	var connected []string
	for _, r := range e.RelayStatus() {
		switch r.State {
		case relay.Connected:
			connected = append(connected, r.Name)
		case relay.ServedElsewhere:
			f = append(f, Finding{"relay", "warning", r.Name + " is reached on another device of yours", "That device took over its place at the relay. To have it here again, enable it again.", "osaurus relay enable " + strconv.Quote(r.Name)})
		case relay.Failed:
			f = append(f, Finding{"relay", "error", r.Name + " is not reached through the relay", cmp.Or(r.Detail, "The relay does not say why."), "osaurus relay status"})
		case relay.Connecting:
			f = append(f, Finding{"relay", "warning", r.Name + " is not yet reached through the relay", cmp.Or(r.Detail, "It is being asked; that takes seconds when there is a network."), "osaurus relay status"})
		case relay.Disconnected: // nothing serves
		}
	}
	if len(connected) > 0 {
		f = append(f, Finding{ID: "relay", Level: "ok", Title: "Reached through the relay: " + strings.Join(connected, ", ")})
	}
	return f
}

// ErrNotOnRelay says that an agent has no URL at the relay now.
var ErrNotOnRelay = errors.New("the agent is not connected to the relay")

// relayURL is where callers find an agent.
func (e *Engine) relayURL(a address.Address) (string, error) {
	if u := e.relays.tunnel.URL(a); u != "" {
		return u, nil
	}
	return "", ErrNotOnRelay
}

func (e *Engine) invited(a address.Address) (pairing.InvitedAgent, bool) {
	agent, ok := e.Agents.ByAddress(a)
	return invitedAgent(agent), ok
}

func invitedAgent(a agents.Agent) pairing.InvitedAgent {
	return pairing.InvitedAgent{ID: a.ID, Name: a.Name, Description: a.Description, Address: a.Address, BuiltIn: a.BuiltIn}
}

// Invite makes an invite for an agent and returns it with its link.
func (e *Engine) Invite(ctx context.Context, a agents.Agent, lifetime time.Duration) (pairing.Invite, string, error) {
	in, err := e.Invites.Issue(ctx, invitedAgent(a), lifetime)
	if err != nil {
		return in, "", err
	}
	link, err := in.Link()
	return in, link, err
}

// ShowInvite returns an invite that can still be redeemed, with its link.
func (e *Engine) ShowInvite(ctx context.Context, a agents.Agent, nonce string) (pairing.Invite, string, error) {
	in, err := e.Invites.Again(ctx, invitedAgent(a), nonce)
	if err != nil {
		return in, "", err
	}
	link, err := in.Link()
	return in, link, err
}

// probe looks whether a public URL reaches us: not /health, which the relay
// answers itself.
func (e *Engine) probe(ctx context.Context, base string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/health", nil)
	if err != nil {
		return errors.New("the link is invalid")
	}
	req.Header.Set("Cache-Control", "no-cache")
	req.Header.Set("User-Agent", "OsaurusRelayHealthCheck/1")
	resp, err := e.relayClient().Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // not read
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	return nil
}

// LookAtLink reads an invite link without sending anything.
func (e *Engine) LookAtLink(link string) (pairing.Invite, address.Address, error) {
	return pairing.ParseLink(link, e.Settings().RelayDomain, e.ports.Now())
}

// AcceptInvite redeems an invite link and keeps the agent as a peer.
func (e *Engine) AcceptInvite(ctx context.Context, link, name string) (pairing.Peer, error) {
	in, addr, err := e.LookAtLink(link)
	if err != nil {
		return pairing.Peer{}, err
	}
	place, err := pairing.PlaceOf(in.URL, addr, e.Settings().RelayDomain)
	if err != nil {
		return pairing.Peer{}, err
	}
	if err := e.Peers.Room(addr); err != nil {
		return pairing.Peer{}, err
	}
	line := e.redeemer(place, addr)
	defer line.Close()
	client := http.Client{Transport: line}
	got, err := pairing.Accept(ctx, &client, in, addr, e.Settings().RelayDomain, e.ports.Rand)
	if err != nil {
		return pairing.Peer{}, err
	}
	return e.keep(ctx, got, name)
}

// PairOwn gets access to an agent of another host with this identity.
func (e *Engine) PairOwn(ctx context.Context, addr address.Address, name string) (pairing.Peer, error) {
	place := e.placeOf(addr)
	master, err := e.Account.Unlock(ctx, "reach your agent on another device")
	if err != nil {
		return pairing.Peer{}, err
	}
	defer master.Destroy()
	device := e.Account.Device()
	if err := e.Peers.Room(addr); err != nil {
		return pairing.Peer{}, err
	}
	line := e.redeemer(place, addr)
	defer line.Close()
	client := http.Client{Transport: line}
	got, err := pairing.RedeemOwner(ctx, &client, master, place, addr, pairing.Device{ID: device.ID, Name: device.Name}, e.ports.Rand)
	if err != nil {
		return pairing.Peer{}, err
	}
	return e.keep(ctx, got, name)
}

// redeemer is a channel for one redemption. What was known of the peer counts
// no longer: it is being paired anew.
func (e *Engine) redeemer(place *url.URL, addr address.Address) *channel.Transport {
	return channel.NewTransport(channel.TransportConfig{Base: e.transportTo(place), Peer: place, Pinned: addr, Now: e.ports.Now, Rand: e.ports.Rand})
}

func (e *Engine) keep(ctx context.Context, got pairing.Accepted, name string) (pairing.Peer, error) {
	defer got.Key.Destroy()
	if strings.TrimSpace(name) == "" {
		name = got.Name
	}
	defer e.lines.forget(got.Address)
	return e.Peers.Add(ctx, pairing.Target{BaseURL: got.URL, Address: got.Address}, name, got.Paired)
}
