package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"osaurus/engine"
	"osaurus/engine/address"
	"osaurus/engine/control"
	"osaurus/engine/pairing"
	"osaurus/engine/relay"
)

// relayWait is how long enabling waits for the relay's answer.
const relayWait = 15 * time.Second

func (a *app) relayCommands(root *cobra.Command) {
	enable := command("", "enable AGENT", "Have an agent reached through the relay", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			if err := c.EnableRelay(ctx, control.EnableRelay{Agent: args[0], On: true}); err != nil {
				return err
			}
			return a.awaitRelay(ctx, c, args[0])
		})
	})
	disable := command("", "disable AGENT", "Have an agent reached through the relay no longer", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			return c.EnableRelay(ctx, control.EnableRelay{Agent: args[0]})
		})
	})
	status := command("", "status", "Show which agents are reached through the relay", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			r, err := c.Relays(ctx)
			if err != nil {
				return err
			}
			return a.result(r, func() { a.showRelays(r) })
		})
	})
	root.AddCommand(parent("peers", "relay", "Reach your agents from other networks, or run a relay", enable, disable, status, a.relayServeCommand()))
}

func (a *app) showRelays(r control.Relays) {
	a.out("relay  %s", r.Domain)
	for _, s := range r.Agents {
		a.showRelay(s)
	}
	if len(r.Agents) == 0 {
		a.say("No agent is reached through the relay. Let one be:  osaurus relay enable AGENT")
	}
}

func (a *app) showRelay(s engine.Relay) {
	color := map[relay.State]string{relay.Connected: green, relay.Failed: red, relay.ServedElsewhere: yellow, relay.Connecting: yellow}[s.State]
	a.out("%-20s %s  %s", s.Name, a.term.paint(color, s.State.String()), or(s.URL, s.Address.String()))
	if s.Detail != "" {
		a.out("%-20s %s", "", s.Detail)
	}
}

// awaitRelay says how it went, once the relay has answered.
func (a *app) awaitRelay(ctx context.Context, c *control.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, relayWait)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := c.Relays(ctx)
		if err != nil {
			return err
		}
		for _, s := range r.Agents {
			if !s.Named(name) {
				continue
			}
			switch {
			case s.State == relay.Disconnected:
				a.say("Enabled. It connects when the host runs:  osaurus serve")
				return a.result(s, func() {})
			case s.State != relay.Connecting, s.Detail != "":
				if s.State == relay.Connected {
					a.say("Invite somebody:  osaurus invite create %q", s.Name)
				}
				return a.result(s, func() { a.showRelay(s) })
			}
		}
		select {
		case <-ctx.Done():
			a.say("Enabled, and still connecting. See how it goes:  osaurus relay status")
			return nil
		case <-tick.C:
		}
	}
}

// isLink tells an invite link from an address on the local network.
func isLink(s string) bool {
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(s)), "osaurus:")
}

// pairLink shows what an invite says, and redeems it once that is accepted.
func (a *app) pairLink(ctx context.Context, c *control.Client, link, name string) error {
	o, err := c.LookAtLink(ctx, link)
	if err != nil {
		return err
	}
	a.say("An invite to talk to an agent. What its maker wrote:\n  name     %s", or(o.Name, "(none)"))
	if o.Description != "" {
		a.say("  about    %s", o.Description)
	}
	a.say("What was checked:\n  address  %s\n  place    %s\n  expires  %s", o.Address, o.URL, o.Expires.Local().Format("2006-01-02 15:04"))
	if o.Paired != "" {
		a.say("It replaces the pairing you have as %q.", o.Paired)
	}
	if err := a.confirm("Accept it?"); err != nil {
		return err
	}
	p, err := c.AcceptLink(ctx, control.Link{Link: link, Name: name})
	if err != nil {
		return err
	}
	return a.paired(p)
}

// pairOwn gets access to an agent of another of the owner's devices.
func (a *app) pairOwn(ctx context.Context, c *control.Client, text, name string) error {
	addr, err := address.ParseChecksummed(text)
	if err != nil {
		return usage("osaurus pair --own 0xADDRESS", "the agent's address: %s", err)
	}
	p, err := c.PairOwn(ctx, control.PairOwn{Address: addr, Name: name})
	if err != nil {
		return err
	}
	return a.paired(p)
}

func (a *app) paired(p pairing.Peer) error {
	a.say("%s Try:  osaurus run %q \"Hello\"", a.term.paint(green, "Paired."), or(p.Name, p.Address.String()))
	return a.result(p, func() { a.out("%s  %s", p.Name, p.Address) })
}

// classifyRelay names what gets on from a refusal on the way through the relay.
func classifyRelay(code string) string {
	switch code {
	case "agent_offline", "agent_unreachable", "tunnel_closed", "gateway_timeout", "host_busy", "rate_limited":
		return "the same command, once the other host runs"
	case "agent_moved", "peer_must_upgrade":
		return "osaurus peers list"
	case "bad_link":
		return "osaurus pair LINK, with a new link from the agent's owner"
	}
	return ""
}
