package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/control"
)

func (a *app) agentCommands(root *cobra.Command) {
	list := a.host("list", "List the agents", func(ctx context.Context, c *control.Client) error {
		agents, err := c.Agents(ctx)
		if err != nil {
			return err
		}
		return a.result(agents, func() {
			for _, g := range agents {
				a.out("%s  %-20s %-42s keys %d%s", g.ID, g.Name, addressOr(g.Address), g.ActiveKeys, map[bool]string{true: "  bonjour"}[g.BonjourEnabled])
			}
		})
	})
	action := func(name, short, question string) *cobra.Command {
		return command("", name+" AGENT", short, "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
			return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
				if err := a.confirmAgent(ctx, c, args[0], question); err != nil {
					return err
				}
				g, err := c.AgentAction(ctx, name, args[0])
				if err != nil {
					return err
				}
				return a.result(g, func() { a.out("%s  %s", g.Name, addressOr(g.Address)) })
			})
		})
	}
	root.AddCommand(parent("who", "agents", "Your agents and their addresses", list, a.editAgent("create"), a.editAgent("edit"),
		action("assign", "Give an agent an address", ""),
		action("rotate", "Give an agent a new address; its keys are revoked", "gets a new address"),
		action("revoke", "Take an agent's address away; its keys are revoked", "loses its address"),
		action("delete", "Delete an agent; its keys are revoked", "is deleted"),
		a.bonjour()))
}

func addressOr(x address.Address) string {
	if x.IsZero() {
		return "no address"
	}
	return x.String()
}

// confirmAgent names how many keys die before anything does.
func (a *app) confirmAgent(ctx context.Context, c *control.Client, name, what string) error {
	if what == "" || a.yes {
		return nil
	}
	agents, err := c.Agents(ctx)
	if err != nil {
		return err
	}
	for _, g := range agents {
		if g.Name == name || g.ID == name || g.Address.String() == name {
			return a.confirm(fmt.Sprintf("%s %s and %d access keys are revoked.", g.Name, what, g.ActiveKeys))
		}
	}
	return a.confirm("The agent " + what + " and its access keys are revoked.")
}

func (a *app) editAgent(verb string) *cobra.Command {
	var name, description, model, prompt string
	var bonjour, memory bool
	use, short := "create NAME", "Create an agent with an address"
	if verb == "edit" {
		use, short = "edit AGENT", "Change an agent"
	}
	cmd := command("", use, short, "", cobra.ExactArgs(1), nil)
	f := cmd.Flags()
	if verb == "edit" {
		f.StringVar(&name, "name", "", "new name")
	}
	f.StringVar(&description, "description", "", "one line about it")
	f.StringVar(&model, "model", "", "model to use when a request names none")
	f.StringVar(&prompt, "system-prompt", "", "instructions that stand before every run")
	f.BoolVar(&bonjour, "bonjour", false, "advertise it on the local network; this exposes the host")
	f.BoolVar(&memory, "allow-peer-memory", false, "let peers' runs use the owner's memory")
	cmd.RunE = func(c *cobra.Command, args []string) error {
		in := control.EditAgent{ID: args[0]}
		if verb == "create" {
			in = control.EditAgent{Name: &args[0]}
		}
		for flag, set := range map[string]func(){
			"name": func() { in.Name = &name }, "description": func() { in.Description = &description }, "model": func() { in.Model = &model },
			"system-prompt": func() { in.SystemPrompt = &prompt }, "bonjour": func() { in.Bonjour = &bonjour }, "allow-peer-memory": func() { in.AllowPeerMemory = &memory },
		} {
			if f.Changed(flag) {
				set()
			}
		}
		return a.saveAgent(c.Context(), verb, in)
	}
	return cmd
}

func (a *app) saveAgent(ctx context.Context, verb string, in control.EditAgent) error {
	return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
		save := c.EditAgent
		if verb == "create" {
			save = c.CreateAgent
		}
		g, err := save(ctx, in)
		if err != nil {
			return err
		}
		return a.result(g, func() { a.out("%s  %s  %s", g.ID, g.Name, addressOr(g.Address)) })
	})
}

func (a *app) bonjour() *cobra.Command {
	return command("", "bonjour AGENT on|off", "Advertise an agent on the local network, or stop", "", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		if args[1] != "on" && args[1] != "off" {
			return usage("osaurus agents bonjour AGENT on", "want on or off")
		}
		on := args[1] == "on"
		if on {
			a.say("This exposes the host to the network; local callers need a key then. Restart it for that.")
		}
		return a.saveAgent(ctx, "edit", control.EditAgent{ID: args[0], Bonjour: &on})
	})
}

func (a *app) keyCommands(root *cobra.Command) {
	list := a.host("list", "List the access keys", func(ctx context.Context, c *control.Client) error {
		keys, err := c.Keys(ctx)
		if err != nil {
			return err
		}
		return a.result(keys, func() {
			for _, k := range keys {
				a.out("%s  %-9s %-30s %s…  %s", k.ID, badge(k), or(k.Label, "(no label)"), k.Prefix, expiry(k.ExpiresAt))
			}
			if len(keys) == 0 {
				a.say("There are no access keys. Create one:  osaurus keys create --label NAME")
			}
		})
	})
	simple := func(name, short, question string) *cobra.Command {
		return command("", name+" ID", short, "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
			if err := a.confirm(question); err != nil {
				return err
			}
			return a.withHost(ctx, func(ctx context.Context, c *control.Client) error { return c.KeyAction(ctx, name, args[0]) })
		})
	}
	root.AddCommand(parent("who", "keys", "Access keys: who may call this host", list, a.createKey(),
		simple("revoke", "End an access key now", "Whoever uses the key loses access now."),
		simple("delete", "End an access key and forget it", "Whoever uses the key loses access now, and its record goes."),
		a.revokeAllKeys(), a.refuseBefore(), a.trustCommand()))
}

func (a *app) revokeAllKeys() *cobra.Command {
	return command("", "revoke-all ADDRESS|AGENT|master", "End every access key that an address has issued up to now", "  osaurus keys revoke-all Assistant\n  osaurus keys revoke-all master", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		if err := a.confirm("Whoever uses a key that " + args[0] + " has issued loses access now. This cannot be undone."); err != nil {
			return err
		}
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			done, err := c.RevokeAllKeys(ctx, args[0])
			if err != nil {
				return err
			}
			return a.result(done, func() {
				a.out("%d access keys of %s end, and every other that it issued up to now", done.Revoked, done.Issuer)
			})
		})
	})
}

func (a *app) refuseBefore() *cobra.Command {
	return command("", "refuse-before now|TIME", "End every access key that was issued before a moment", "  osaurus keys refuse-before now\n  osaurus keys refuse-before 2026-11-01T08:00:00Z", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		t := time.Now()
		if args[0] != "now" {
			var err error
			if t, err = time.Parse(time.RFC3339, args[0]); err != nil {
				return usage("osaurus keys refuse-before now", "%q is neither the word now nor a time like 2026-11-01T08:00:00Z", args[0])
			}
		}
		if err := a.confirm("Whoever uses a key from before loses access now. This cannot be undone."); err != nil {
			return err
		}
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error { return c.RefuseKeysBefore(ctx, t) })
	})
}

func badge(k accesskey.Metadata) string {
	switch {
	case k.Revoked:
		return "revoked"
	case k.ExpiresAt != 0 && k.ExpiresAt <= time.Now().Unix():
		return "expired"
	case k.Temporary:
		return "temporary"
	}
	return "active"
}

func expiry(at int64) string {
	if at == 0 {
		return "never expires"
	}
	return "until " + time.Unix(at, 0).Local().Format(time.DateOnly)
}

func (a *app) createKey() *cobra.Command {
	var agent, label, expires string
	c := command("", "create", "Create an access key and show it once", "  osaurus keys create --label editor --agent Assistant --expires 30d", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		exp, err := accesskey.ParseExpiration(expires)
		if err != nil {
			return usage("osaurus keys create --expires 90d", "%s", err)
		}
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			k, err := c.MintKey(ctx, control.MintKey{Agent: agent, Label: label, Expiration: exp})
			if err != nil {
				return err
			}
			a.say("Shown once; it is not stored:")
			return a.result(k, func() { a.out("%s", k.Token) })
		})
	})
	c.Flags().StringVar(&agent, "agent", "", "agent the key is for (default: everything, as the owner)")
	c.Flags().StringVar(&label, "label", "", "what it is for")
	c.Flags().StringVar(&expires, "expires", "90d", "30d, 90d, 1y or never")
	return c
}

func (a *app) trustCommand() *cobra.Command {
	var agent string
	list := a.host("list", "List addresses trusted to issue keys", func(ctx context.Context, c *control.Client) error {
		list, err := c.Whitelist(ctx)
		if err != nil {
			return err
		}
		return a.result(list, func() {
			for _, t := range list {
				scope := "for every agent and the owner"
				if !t.Audience.IsZero() {
					scope = "for " + t.Audience.String()
				}
				a.out("%s  %s", t.Issuer, scope)
			}
		})
	})
	edit := func(name, short string, f func(*control.Client, context.Context, control.Trust) error) *cobra.Command {
		c := command("", name+" ADDRESS", short, "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
			issuer, err := address.ParseChecksummed(args[0])
			if err != nil {
				return usage("osaurus keys trust --help", "%s", err)
			}
			return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
				return f(c, ctx, control.Trust{Agent: agent, Issuer: issuer})
			})
		})
		c.Flags().StringVar(&agent, "agent", "", "for this agent only")
		return c
	}
	return parent("", "trust", "Addresses trusted to issue keys", list, edit("add", "Trust an address", (*control.Client).Trust), edit("remove", "Stop trusting an address", (*control.Client).Distrust))
}
