package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"osaurus/engine"
	"osaurus/engine/control"
	"osaurus/engine/settings"
)

// command is a cobra command whose work may fail.
func command(group, use, short, example string, args cobra.PositionalArgs, run func(ctx context.Context, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Example: example, GroupID: group, Args: explained(args), RunE: func(c *cobra.Command, args []string) error { return run(c.Context(), args) }}
}

// explained turns a wrong number of arguments into an error with a next step.
func explained(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usage(c.CommandPath()+" --help", "%s: want %s", err, c.UseLine())
		}
		return nil
	}
}

// parent is a command that only holds others.
func parent(group, use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, GroupID: group, Args: explained(cobra.NoArgs), RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	for _, child := range children {
		child.GroupID = ""
		c.AddCommand(child)
	}
	return c
}

func (a *app) hostCommands(root *cobra.Command) {
	root.AddCommand(
		a.serveCommand(),
		command("host", "status", "Show what the host is doing", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
			return a.withLook(ctx, func(ctx context.Context, c *control.Client) error {
				s, err := c.Status(ctx)
				if err != nil {
					return err
				}
				return a.result(s, func() { a.showStatus(s) })
			})
		}),
		command("host", "doctor", "Explain every state that needs you, and what to type", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
			return a.withLook(ctx, func(ctx context.Context, c *control.Client) error {
				s, err := c.Diagnose(ctx)
				if err != nil {
					return err
				}
				return a.result(s.Findings, func() { a.showFindings(s.Findings) })
			})
		}),
		command("host", "stop", "Stop the running host", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
			c := control.NewClient(a.socket())
			defer c.Close()
			return c.Stop(ctx)
		}),
		a.settingsCommand(), a.providerCommand(), a.logCommand(), a.reportCommand(), a.profileCommand(),
		command("host", "requests", "Show the last requests the host answered", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
			return a.withRunning(ctx, func(ctx context.Context, c *control.Client) error {
				list, err := c.Requests(ctx)
				if err != nil {
					return err
				}
				return a.result(list, func() {
					for _, r := range list {
						a.out("%s  %-6s %-40s %3d  %8s  %s", r.Time.Local().Format("15:04:05"), r.Method, r.Path, r.Status, r.Duration.Round(1e5), r.Transport)
					}
				})
			})
		}),
		command("host", "version", "Show the version", "", cobra.NoArgs, func(context.Context, []string) error {
			return a.result(map[string]string{"version": Version}, func() { a.out("osaurus %s", Version) })
		}),
	)
}

func (a *app) showStatus(s engine.Status) {
	a.out("host        %s", map[bool]string{true: "running", false: "stopped"}[s.Serving])
	a.out("home        %s", s.Home)
	a.out("port        %d%s", s.Port, map[bool]string{true: " (exposed to the network)", false: " (this machine only)"}[s.Exposed])
	a.out("identity    %s %s", s.Identity, s.Address)
	a.out("keystore    %s", s.Keystore)
	a.out("agents      %d", s.Agents)
	a.out("keys        %d", s.Keys)
	a.out("peers       %d", s.Peers)
	a.out("provider    %s", or(s.Provider, "none chosen"))
	a.out("running     %d", s.InFlight)
	for _, f := range s.Findings {
		if f.Level != "ok" {
			a.say("%s  (osaurus doctor tells more)", a.term.paint(yellow, f.Title))
		}
	}
}

func (a *app) showFindings(list []engine.Finding) {
	marks := map[string]string{"ok": a.term.paint(green, "ok     "), "warning": a.term.paint(yellow, "warning"), "error": a.term.paint(red, "error  ")}
	for _, f := range list {
		a.out("%s  %s", marks[f.Level], f.Title)
		if f.Text != "" {
			a.out("         %s", f.Text)
		}
		if f.Next != "" {
			a.out("         next: %s", a.typed(f.Next))
		}
	}
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (a *app) settingsCommand() *cobra.Command {
	show := command("", "show", "Show the settings", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			s, err := c.Settings(ctx)
			if err != nil {
				return err
			}
			return a.result(s, func() { a.showSettings(s) })
		})
	})
	set := command("", "set KEY=VALUE…", "Change settings", "  osaurus settings set port=1338 expose=true", cobra.MinimumNArgs(1), func(ctx context.Context, args []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			s, err := c.Settings(ctx)
			if err != nil {
				return err
			}
			if s, err = changed(s, args); err != nil {
				return err
			}
			if err := c.SetSettings(ctx, s); err != nil {
				return err
			}
			a.say("Saved. Port and exposure change when the host starts again.")
			return a.result(s, func() { a.showSettings(s) })
		})
	})
	return a.settingsPage(parent("host", "settings", "Open the settings in a browser; show and change those of the host", show, set))
}

func fields(s settings.Server) map[string]any {
	raw, err := json.Marshal(s)
	out := map[string]any{}
	if err != nil || json.Unmarshal(raw, &out) != nil {
		return nil
	}
	return out
}

func (a *app) showSettings(s settings.Server) {
	all := fields(s)
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		a.out("%-16s %v", name, all[name])
	}
}

// changed applies key=value pairs; cors takes a comma-separated list.
func changed(s settings.Server, pairs []string) (settings.Server, error) {
	all := fields(s)
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		old, known := all[key]
		if !ok || !known {
			return s, usage("osaurus settings show", "%q is no setting; want KEY=VALUE", key)
		}
		switch old.(type) {
		case float64:
			n, err := strconv.Atoi(value)
			if err != nil {
				return s, usage("osaurus settings show", "%s wants a number", key)
			}
			all[key] = n
		case bool:
			b, err := strconv.ParseBool(value)
			if err != nil {
				return s, usage("osaurus settings show", "%s wants true or false", key)
			}
			all[key] = b
		case string:
			all[key] = value
		default:
			list := []string{}
			for o := range strings.SplitSeq(value, ",") {
				if o != "" {
					list = append(list, o)
				}
			}
			all[key] = list
		}
	}
	raw, err := json.Marshal(all)
	if err != nil {
		return s, err
	}
	next := settings.Server{}
	return next, errors.Join(json.Unmarshal(raw, &next), next.Validate())
}

func (a *app) providerCommand() *cobra.Command {
	show := command("", "show", "Show the chosen model provider", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			p, err := c.Provider(ctx)
			if err != nil {
				return err
			}
			return a.result(p, func() { a.out("%s %s", or(p.BaseURL, "none chosen"), p.Model) })
		})
	})
	probe := command("", "probe", "Look for a provider on this machine", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			p, err := c.ProbeProviders(ctx)
			if err != nil {
				return err
			}
			a.say("Found. It is used once you confirm it:\n  osaurus provider use %s", p.BaseURL)
			return a.result(p, func() { a.out("%s  %s", p.BaseURL, strings.Join(p.Models, " ")) })
		})
	})
	var model string
	var withKey bool
	use := command("", "use URL", "Use an OpenAI-compatible provider", "  osaurus provider use http://127.0.0.1:11434\n  osaurus provider use https://api.example.com --model m --key < keyfile", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		p := control.Provider{Provider: settings.Provider{BaseURL: args[0], Model: model}}
		if withKey {
			key, err := a.readSecret("API key of the provider: ")
			if err != nil {
				return err
			}
			defer key.Destroy()
			p.Key = string(key.Expose())
		}
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error { return c.UseProvider(ctx, p) })
	})
	use.Flags().StringVar(&model, "model", "", "model to use when a request names none")
	use.Flags().BoolVar(&withKey, "key", false, "ask for the provider's API key, or read it from stdin")
	clearing := command("", "clear", "Use no provider", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error { return c.UseProvider(ctx, control.Provider{}) })
	})
	return parent("host", "provider", "Where models run", show, probe, use, clearing)
}

func (a *app) logCommand() *cobra.Command {
	show := command("", "show", "Show the security log", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return a.withLook(ctx, func(ctx context.Context, c *control.Client) error {
			return c.Log(ctx, func(line json.RawMessage) error {
				_, err := fmt.Fprintf(a.Stdout, "%s\n", line)
				return err
			})
		})
	})
	verify := command("", "verify", "Check that the security log is whole and unchanged", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			head, err := c.VerifyLog(ctx)
			if err != nil {
				return err
			}
			return a.result(head, func() { a.out("The log is whole: %d events, the last one %s…", head.Seq, head.Hash[:12]) })
		})
	})
	return parent("host", "log", "The security log", show, verify)
}

func (a *app) serveCommand() *cobra.Command {
	var port int
	c := command("host", "serve", "Start the host", "  osaurus serve\n  osaurus serve --port 0", cobra.NoArgs, func(ctx context.Context, _ []string) error { return a.serve(ctx, port) })
	c.Flags().IntVar(&port, "port", -1, "listen on this port this time (0 takes a free one)")
	return c
}

// interruptible ends ctx at the first interrupt; the second one ends the
// process at once.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
