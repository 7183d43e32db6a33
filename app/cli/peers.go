package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"osaurus/engine/address"
	"osaurus/engine/control"
	"osaurus/engine/discovery"
	"osaurus/engine/runner"
)

// maxPrompt bounds a prompt read from stdin, in bytes.
const maxPrompt = 1 << 20

func (a *app) peerCommands(root *cobra.Command) {
	list := a.host("list", "List paired agents of other hosts", func(ctx context.Context, c *control.Client) error {
		peers, err := c.Peers(ctx)
		if err != nil {
			return err
		}
		return a.result(peers, func() {
			for _, p := range peers {
				a.out("%-20s %s  %s  %s", p.Name, p.Address, p.BaseURL, expiry(p.Expires))
			}
			if len(peers) == 0 {
				a.say("No peers yet. Find some:  osaurus discover")
			}
		})
	})
	forget := command("", "forget PEER", "Forget a peer and its access key", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		if err := a.confirm("You need to pair again to reach it."); err != nil {
			return err
		}
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error { return c.ForgetPeer(ctx, args[0]) })
	})
	rename := command("", "rename PEER NAME", "Give a peer another name", "", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			return c.RenamePeer(ctx, control.Rename{Peer: args[0], Name: args[1]})
		})
	})
	root.AddCommand(parent("peers", "peers", "Paired agents of other hosts", list, forget, rename), a.discoverCommand(), a.pairCommand(), a.runCommand(), a.dispatchCommand(), a.tasksCommand())
}

func (a *app) discoverCommand() *cobra.Command {
	var wait time.Duration
	c := command("peers", "discover", "Look for agents on the local network", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		ctx, stop := interruptible(ctx)
		defer stop()
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		a.say("Looking for %s…", wait)
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			found := 0
			err := c.Discover(ctx, func(ev discovery.Event) error {
				found++
				return a.result(ev, func() { a.showInstance(ev) })
			})
			if ctx.Err() != nil {
				err = nil
			}
			if found == 0 && err == nil {
				a.say("No agents found. With the other host's address:  osaurus pair http://HOST:1337/AGENT-ID@ADDRESS")
			}
			return err
		})
	})
	c.Flags().DurationVar(&wait, "wait", 5*time.Second, "how long to look")
	return c
}

func (a *app) showInstance(ev discovery.Event) {
	i := ev.Instance
	switch {
	case ev.Lost:
		a.out("gone   %s", i.Name)
	case i.Address.IsZero():
		a.out("found  %s  cannot be verified, so it cannot be paired with", i.Name)
	default:
		a.out("found  %s  %s", i.Name, i.Address)
		a.out("       osaurus pair %s/%s@%s", i.BaseURL(), i.AgentID, i.Address)
	}
}

// parseTarget reads URL/AGENT-ID@ADDRESS. Without an address to pin there is
// nothing to pair with.
func parseTarget(s string) (control.Pair, error) {
	const example = "osaurus pair http://192.0.2.7:1337/AGENT-ID@0xADDRESS"
	rest, addr, ok := strings.Cut(s, "@")
	i := strings.LastIndexByte(rest, '/')
	if !ok || i < 0 {
		return control.Pair{}, usage(example, "want the host's address, the agent's id and the agent's address")
	}
	pinned, err := address.ParseChecksummed(addr)
	if err != nil {
		return control.Pair{}, usage(example, "the agent's address: %s", err)
	}
	u, err := url.Parse(rest[:i])
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return control.Pair{}, usage(example, "the host's address must begin with http:// or https://")
	}
	if uuid.Validate(rest[i+1:]) != nil {
		return control.Pair{}, usage(example, "the agent's id must be a UUID")
	}
	return control.Pair{BaseURL: u.String(), AgentID: rest[i+1:], Address: pinned}, nil
}

func (a *app) pairCommand() *cobra.Command {
	var name string
	var own bool
	c := command("peers", "pair URL/AGENT-ID@ADDRESS | LINK", "Get access to an agent of another host", "  osaurus discover\n  osaurus pair http://192.0.2.7:1337/5B7C…@0x3315…   asks its owner\n  osaurus pair 'osaurus://0x3315…?pair=…'             an invite\n  osaurus pair --own 0x3315…                          an agent on another device of yours", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		switch {
		case own:
			return a.withHost(ctx, func(ctx context.Context, c *control.Client) error { return a.pairOwn(ctx, c, args[0], name) })
		case isLink(args[0]):
			return a.withHost(ctx, func(ctx context.Context, c *control.Client) error { return a.pairLink(ctx, c, args[0], name) })
		}
		target, err := parseTarget(args[0])
		if err != nil {
			return err
		}
		target.Name = name
		ctx, stop := interruptible(ctx)
		defer stop()
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			id, err := c.Identity(ctx, true)
			if err != nil {
				return err
			}
			a.say("The owner over there is asked about  %s\nThat is this host; compare it with what they see. Waiting up to two minutes…", a.term.paint(bold, id.Pairing.String()))
			p, err := c.Pair(ctx, target)
			if err != nil {
				return err
			}
			return a.paired(p)
		})
	})
	c.Flags().StringVar(&name, "name", "", "what to call the peer here (default: as it calls itself)")
	c.Flags().BoolVar(&own, "own", false, "the argument is the address of an agent on another device with this identity")
	return c
}

// prompt is the argument, or stdin when there is none or it is "-".
func (a *app) prompt(args []string) (string, error) {
	if len(args) > 0 && args[0] != "-" {
		return strings.Join(args, " "), nil
	}
	if a.term.interactive {
		return "", usage("osaurus run PEER \"Hello\"", "there is no prompt")
	}
	raw, err := io.ReadAll(io.LimitReader(a.Stdin, maxPrompt+1))
	if err != nil {
		return "", err
	}
	if len(raw) > maxPrompt || strings.TrimSpace(string(raw)) == "" {
		return "", usage("osaurus run PEER < prompt.txt", "a prompt has between 1 and %d bytes", maxPrompt)
	}
	return string(raw), nil
}

// target resolves a name: a paired peer first, then an agent of this host. A
// list of peers that cannot be read keeps nobody from an own agent.
func (a *app) target(ctx context.Context, c *control.Client, name string, local bool) (control.Run, error) {
	if !local {
		peers, err := c.Peers(ctx)
		if err != nil {
			if own, ownErr := c.Agents(ctx); ownErr != nil || !slices.ContainsFunc(own, func(g control.Agent) bool { return strings.EqualFold(g.Name, name) || g.ID == name }) {
				return control.Run{}, err
			}
			a.say("%s the peers are not known: %s", a.term.paint(yellow, "warning:"), err)
		}
		for _, p := range peers {
			if strings.EqualFold(p.Name, name) || strings.EqualFold(p.Address.String(), name) {
				return control.Run{Peer: p.Address.String()}, nil
			}
		}
	}
	return control.Run{Agent: name}, nil
}

func (a *app) runCommand() *cobra.Command {
	var model, session string
	var local bool
	c := command("peers", "run PEER [PROMPT…]", "Run an agent and stream its answer", "  osaurus run Assistant \"Hello\"\n  cat notes.txt | osaurus run Assistant", cobra.MinimumNArgs(1), func(ctx context.Context, args []string) error {
		prompt, err := a.prompt(args[1:])
		if err != nil {
			return err
		}
		ctx, stop := interruptible(ctx)
		defer stop()
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			in, err := a.target(ctx, c, args[0], local)
			if err != nil {
				return err
			}
			in.Prompt, in.Model, in.SessionID = prompt, model, session
			return a.streamRun(ctx, c, in)
		})
	})
	c.Flags().StringVar(&model, "model", "", "model to use (echo needs no provider)")
	c.Flags().StringVar(&session, "session", "", "keep a conversation under this id")
	c.Flags().BoolVar(&local, "local", false, "run an agent of this host, even if a peer has the name")
	return c
}

var errCutOff = errors.New("the answer was cut off before its end")

func (a *app) streamRun(ctx context.Context, c *control.Client, in control.Run) error {
	finished, printed := false, false
	var failed *control.Error
	err := c.Run(ctx, in, func(ev control.RunEvent) error {
		finished = finished || ev.Done
		if ev.Error != nil {
			failed = ev.Error
		}
		if a.json {
			a.print(ev)
			return nil
		}
		if ev.Reasoning != "" && !a.quiet {
			fmt.Fprint(a.Stderr, a.term.paint(dim, ev.Reasoning))
		}
		printed = printed || ev.Content != ""
		_, err := io.WriteString(a.Stdout, ev.Content)
		return err
	})
	if printed {
		a.out("")
	}
	switch {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case !finished:
		return errCutOff
	}
	return nil
}

func (a *app) dispatchCommand() *cobra.Command {
	var title string
	c := command("peers", "dispatch PEER [PROMPT…]", "Start a task that goes on without you", "  osaurus dispatch Assistant \"Summarise the week\"", cobra.MinimumNArgs(1), func(ctx context.Context, args []string) error {
		prompt, err := a.prompt(args[1:])
		if err != nil {
			return err
		}
		return a.withRunningOrPeer(ctx, args[0], func(ctx context.Context, c *control.Client, in control.Run) error {
			in.Prompt, in.Title = prompt, title
			t, err := c.Dispatch(ctx, in)
			if err != nil {
				return err
			}
			a.say("Started. See how it goes:  osaurus tasks show %s %s", args[0], t.ID)
			return a.result(t, func() { a.out("%s", t.ID) })
		})
	})
	c.Flags().StringVar(&title, "title", "", "title of the task")
	return c
}

// withRunningOrPeer resolves a target. A task of this host needs the host to
// go on running.
func (a *app) withRunningOrPeer(ctx context.Context, name string, f func(context.Context, *control.Client, control.Run) error) error {
	return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
		in, err := a.target(ctx, c, name, false)
		if err != nil {
			return err
		}
		if in.Peer == "" {
			return a.withRunning(ctx, func(ctx context.Context, c *control.Client) error { return f(ctx, c, in) })
		}
		return f(ctx, c, in)
	})
}

func (a *app) tasksCommand() *cobra.Command {
	show := command("", "show PEER ID", "Show a task", "", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.withRunningOrPeer(ctx, args[0], func(ctx context.Context, c *control.Client, in control.Run) error {
			in.TaskID = args[1]
			t, err := c.Task(ctx, in)
			if err != nil {
				return err
			}
			return a.result(t, func() { a.showTask(t) })
		})
	})
	cancel := command("", "cancel PEER ID", "Stop a task", "", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.withRunningOrPeer(ctx, args[0], func(ctx context.Context, c *control.Client, in control.Run) error {
			in.TaskID = args[1]
			return c.CancelTask(ctx, in)
		})
	})
	return parent("peers", "tasks", "Dispatched tasks", show, cancel)
}

func (a *app) showTask(t runner.Task) {
	a.out("%s  %s", t.Status, t.Title)
	for _, s := range []string{t.Draft, t.Output, t.Summary} {
		if s != "" {
			a.out("%s", s)
		}
	}
}
