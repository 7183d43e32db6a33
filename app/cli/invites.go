package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"osaurus/engine/control"
)

// lifetimes are those an invite can have.
var lifetimes = map[string]time.Duration{"1h": time.Hour, "1d": 24 * time.Hour, "7d": 7 * 24 * time.Hour, "30d": 30 * 24 * time.Hour}

func (a *app) inviteCommands(root *cobra.Command) {
	var agent string
	list := a.host("list", "List invites and what became of them", func(ctx context.Context, c *control.Client) error {
		invites, err := c.Invites(ctx, agent)
		if err != nil {
			return err
		}
		return a.result(invites, func() {
			for _, in := range invites {
				a.showInviteLine(in)
			}
			if len(invites) == 0 {
				a.say("No invites yet. Make one:  osaurus invite create AGENT")
			}
		})
	})
	list.Flags().StringVar(&agent, "agent", "", "of this agent only")
	show := command("", "show ID", "Show an invite again, with its link while it is open", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			in, err := c.ShowInvite(ctx, args[0])
			if err != nil {
				return err
			}
			return a.result(in, func() { a.showInvite(in) })
		})
	})
	revoke := command("", "revoke ID", "Revoke an invite and the key it was redeemed for", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error { return c.RevokeInvite(ctx, args[0]) })
	})
	root.AddCommand(parent("who", "invite", "Invite somebody to an agent through the relay", a.createInvite(), list, show, revoke), a.deviceCommands())
}

func (a *app) createInvite() *cobra.Command {
	var lasts string
	c := command("", "create AGENT", "Make a link that lets one person in once", "  osaurus relay enable Assistant\n  osaurus invite create Assistant --for 1d", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		lifetime, ok := lifetimes[lasts]
		if !ok {
			return usage("osaurus invite create AGENT --for 7d", "an invite lasts 1h, 1d, 7d or 30d")
		}
		return a.withRunning(ctx, func(ctx context.Context, c *control.Client) error {
			in, err := c.CreateInvite(ctx, control.NewInvite{Agent: args[0], Lifetime: lifetime})
			if err != nil {
				return err
			}
			return a.result(in, func() { a.showInvite(in) })
		})
	})
	c.Flags().StringVar(&lasts, "for", "7d", "how long it can be redeemed: 1h, 1d, 7d or 30d")
	return c
}

func (a *app) showInviteLine(in control.Invite) {
	more := ""
	if !in.Used.IsZero() {
		more = "  redeemed " + in.Used.Local().Format(time.DateTime) + " from " + or(in.From, "?")
	}
	a.out("%s  %-8s %-20s until %s%s", in.ID, in.State, in.Agent, in.Expires.Local().Format(time.DateTime), more)
}

// showInvite prints the link for pipes, and what goes with it for people.
func (a *app) showInvite(in control.Invite) {
	if in.Link == "" {
		a.showInviteLine(in)
		return
	}
	a.showQR(in.Link)
	a.out("%s", in.Link)
	a.say("Whoever opens this first gets in to %s, once, until %s. Send it to nobody else.\nTake it back:  osaurus invite revoke %s", in.Agent, in.Expires.Local().Format(time.DateTime), in.ID)
}

func (a *app) deviceCommands() *cobra.Command {
	list := a.host("list", "List your other devices that have keys", func(ctx context.Context, c *control.Client) error {
		devices, err := c.Devices(ctx)
		if err != nil {
			return err
		}
		return a.result(devices, func() {
			for _, d := range devices {
				a.out("%-20s %-20s %s  since %s", d.DeviceID, d.DeviceName, d.AgentAddress, d.Redeemed.Local().Format(time.DateTime))
			}
			if len(devices) == 0 {
				a.say("None of your other devices has a key here.")
			}
		})
	})
	var agent string
	forget := command("", "forget DEVICE", "Revoke a device's keys", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		if err := a.confirm("The device loses access until it redeems again."); err != nil {
			return err
		}
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			n, err := c.ForgetDevice(ctx, control.ForgetDevice{Device: args[0], Agent: agent})
			if err != nil {
				return err
			}
			return a.result(n, func() { a.out("%d keys revoked", n.Keys) })
		})
	})
	forget.Flags().StringVar(&agent, "agent", "", "for this agent only")
	return parent("who", "devices", "Your other devices with the same identity", list, forget)
}
