package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"osaurus/engine/control"
	"osaurus/engine/sandbox"
)

// errChecks says that diagnose found something.
var errChecks = errors.New("the sandbox does not work as it should")

func (a *app) sandboxCommands(root *cobra.Command) {
	plain := func(use, short string, f func(ctx context.Context, c *control.Client) error) *cobra.Command {
		return command("", use, short, "", cobra.NoArgs, func(ctx context.Context, _ []string) error { return a.withHost(ctx, f) })
	}
	root.AddCommand(parent("host", "sandbox", "Where agents run commands",
		plain("provision", "Verify and prepare what sandboxes boot from", func(ctx context.Context, c *control.Client) error {
			if err := c.SetUpSandbox(ctx); err != nil {
				return err
			}
			a.say("Sandboxes can start. Try the whole way:  osaurus sandbox diagnose")
			return nil
		}),
		command("", "start AGENT", "Make an agent's sandbox ready, in the running host", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
			return a.withRunning(ctx, func(ctx context.Context, c *control.Client) error {
				if err := c.StartSandbox(ctx, args[0]); err != nil {
					return err
				}
				a.say("%s has its sandbox. Run something in it:  osaurus sandbox exec %s -- COMMAND", args[0], sandbox.Quote(args[0]))
				return nil
			})
		}),
		command("", "stop [AGENT]", "Stop an agent's sandbox, or all; tokens end with it", "", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
			return a.withRunning(ctx, func(ctx context.Context, c *control.Client) error { return c.StopSandbox(ctx, strings.Join(args, "")) })
		}),
		plain("status", "Show the driver and what runs", a.sandboxStatus),
		a.sandboxExec(),
		command("", "logs [AGENT]", "Show what agents and their plugins logged lately", "", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
			return a.withRunning(ctx, func(ctx context.Context, c *control.Client) error {
				return a.sandboxLogs(ctx, c, strings.Join(args, ""))
			})
		}),
		plain("reset", "Stop all sandboxes, delete agents' homes and plugins", func(ctx context.Context, c *control.Client) error {
			if err := a.confirm("What agents kept in their sandboxes is deleted, their plugins included."); err != nil {
				return err
			}
			return c.ResetSandbox(ctx)
		}),
		plain("diagnose", "Try the whole way with an agent that is nobody's", a.sandboxDiagnose),
		a.sandboxConfig(),
		a.sandboxAllow(),
		command("", "deny AGENT", "Let an agent's runs use no sandbox; what it runs now ends", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
			off := false
			return a.switchSandbox(ctx, control.SandboxSwitch{Agent: args[0], Enabled: &off})
		}),
		a.sandboxSecrets(),
	))
}

func (a *app) sandboxStatus(ctx context.Context, c *control.Client) error {
	s, err := c.Sandbox(ctx)
	if err != nil {
		return err
	}
	return a.result(s, func() {
		switch {
		case s.Problem != "":
			a.out("driver   none: %s", s.Problem)
		default:
			a.out("driver   %s", s.Driver)
		}
		if s.NeedsRestart {
			a.say("The sandbox was prepared by another version. Prepare it again:  osaurus sandbox provision")
		}
		for _, e := range s.Environments {
			a.out("%s  network %s, %d users, %d commands running, used %s", e.Sandbox, e.Network, len(e.Users), e.Busy, e.Used.Local().Format(time.DateTime))
		}
		if len(s.Environments) == 0 {
			a.say("No sandbox runs.")
		}
	})
}

func (a *app) sandboxLogs(ctx context.Context, c *control.Client, agent string) error {
	lines, err := c.SandboxLogs(ctx, agent)
	if err != nil {
		return err
	}
	return a.result(lines, func() {
		for _, e := range lines {
			a.out("%s %s", e.Time.Local().Format(time.DateTime), e)
		}
	})
}

// exitError ends with the exit code of a command that ran in a sandbox, which
// said itself what there was to say.
type exitError int

func (e exitError) Error() string {
	return fmt.Sprintf("the command ended with exit code %d", int(e))
}

func (a *app) sandboxExec() *cobra.Command {
	var in control.SandboxRun
	c := command("", "exec AGENT -- COMMAND…", "Run a command as an agent, in its sandbox", "  osaurus sandbox exec Assistant -- ls -l", cobra.MinimumNArgs(2), func(ctx context.Context, args []string) error {
		in.Agent, in.Line = args[0], args[1]
		if len(args) > 2 { // words, as a shell here would pass them
			words := make([]string, 0, len(args)-1)
			for _, w := range args[1:] {
				words = append(words, sandbox.Quote(w))
			}
			in.Line = strings.Join(words, " ")
		}
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			r, err := c.RunInSandbox(ctx, in)
			if err != nil {
				return err
			}
			err = a.result(r, func() {
				fmt.Fprint(a.Stdout, r.Stdout)
				fmt.Fprint(a.Stderr, r.Stderr)
				if r.Hint != "" {
					a.say("%s", r.Hint)
				}
				if r.KilledBy == "idle" {
					a.say("The command was ended because it was silent for too long. --idle allows more.")
				}
			})
			if err == nil && r.ExitCode != 0 {
				err = exitError(r.ExitCode)
			}
			return err
		})
	})
	c.Long = "Run a command as an agent, in its sandbox, and end with its exit code: 128 + n\nwhen signal n ended it, 127 when there is no such program. What keeps the\ncommand from running ends with a code of \"osaurus exit-codes\" and a line that\nbegins with \"error:\". One argument is a line for a shell; several are a program\nand its arguments."
	f := c.Flags()
	f.StringVar(&in.Dir, "cwd", "", "directory in the sandbox (default the agent's home)")
	f.StringVar(&in.Plugin, "plugin", "", "plugin whose secrets the command sees")
	f.DurationVar(&in.Idle, "idle", 0, "end the command after this long without output (default 1m)")
	return c
}

func (a *app) sandboxDiagnose(ctx context.Context, c *control.Client) error {
	checks, err := c.DiagnoseSandbox(ctx)
	if err != nil {
		return err
	}
	failed := false
	err = a.result(checks, func() {
		for _, k := range checks {
			a.out("%-26s %s", k.Name, map[bool]string{true: "ok", false: "failed  " + k.Text}[k.OK])
		}
	})
	for _, k := range checks {
		failed = failed || !k.OK
	}
	if err == nil && failed {
		err = errChecks
	}
	return err
}

func (a *app) sandboxAllow() *cobra.Command {
	var commands int
	var noPlugins, noNetwork, background bool
	c := command("", "allow AGENT", "Let an agent's runs use its sandbox", "  osaurus sandbox allow Assistant --no-network", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		on, plugins, network := true, !noPlugins, !noNetwork
		return a.switchSandbox(ctx, control.SandboxSwitch{Agent: args[0], Enabled: &on, Plugins: &plugins, Network: &network, Background: &background, MaxCommands: &commands})
	})
	f := c.Flags()
	f.IntVar(&commands, "commands", sandbox.DefaultCommandsPerTurn, "how many commands one turn may run")
	f.BoolVar(&noPlugins, "no-plugins", false, "the agent may not write plugins, and domains that its plugins declare do not count")
	f.BoolVar(&background, "background", false, "daemons of the agent's plugins run")
	f.BoolVar(&noNetwork, "no-network", false, "the sandbox has no network; open connections end")
	return c
}

func (a *app) switchSandbox(ctx context.Context, in control.SandboxSwitch) error {
	return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
		now, err := c.SwitchSandbox(ctx, in)
		if err != nil {
			return err
		}
		return a.result(now, func() {
			if !now.Enabled {
				a.say("%s runs nothing in a sandbox.", in.Agent)
				return
			}
			a.say("%s may run %d commands in a turn; plugins %s, network %s, background processes %s.", in.Agent, now.MaxCommands, onOff(now.PluginCreate), onOff(now.Network), onOff(now.Background))
		})
	})
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func (a *app) sandboxSecrets() *cobra.Command {
	var plugin string
	set := command("", "set AGENT NAME", "Store a secret, read from the terminal or standard input", "  osaurus sandbox secrets set Assistant API_KEY", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		value, err := a.readSecret("Value: ")
		if err != nil {
			return err
		}
		defer value.Destroy()
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			return c.SetSandboxSecret(ctx, control.SandboxSecret{Agent: args[0], Plugin: plugin, Name: args[1], Value: string(value.Expose())})
		})
	})
	list := command("", "list AGENT", "List the names of secrets; values never show", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			names, err := c.SandboxSecrets(ctx, control.SandboxSecret{Agent: args[0], Plugin: plugin})
			if err != nil {
				return err
			}
			return a.result(names, func() {
				for _, n := range names {
					a.out("%s", n)
				}
			})
		})
	})
	remove := command("", "remove AGENT NAME", "Delete a secret", "", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			return c.RemoveSandboxSecret(ctx, control.SandboxSecret{Agent: args[0], Plugin: plugin, Name: args[1]})
		})
	})
	for _, c := range []*cobra.Command{set, list, remove} {
		c.Flags().StringVar(&plugin, "plugin", "", "of a plugin within the agent")
	}
	return parent("", "secrets", "What commands of an agent find in their environment", set, list, remove)
}
