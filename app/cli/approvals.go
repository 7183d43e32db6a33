package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"osaurus/engine/control"
	"osaurus/engine/pairing"
)

// keysAsleep is how long answers are ignored after a prompt appeared: it can
// land in the middle of typing (PA-4).
const keysAsleep = time.Second

func (a *app) approvalCommands(root *cobra.Command) {
	list := command("", "list", "Show the request that waits", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return a.withRunning(ctx, func(ctx context.Context, c *control.Client) error {
			s, err := c.Approvals(ctx)
			if err != nil {
				return err
			}
			return a.result(s, func() {
				if s.Current == nil {
					a.out("Nothing waits.")
					return
				}
				a.out("%s  agent %s  connector %s  from %s  until %s", s.Current.ID, s.Current.AgentName, s.Current.Connector, s.Current.Source, s.Current.Expires.Local().Format(time.TimeOnly))
			})
		})
	})
	watch := command("", "watch", "Attach as an approver and show requests as they come", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		ctx, stop := interruptible(ctx)
		defer stop()
		return a.withRunning(ctx, func(ctx context.Context, c *control.Client) error {
			if a.json || !a.term.interactive {
				err := c.WatchApprovals(ctx, func(s control.Approvals) error { return a.watched(s) })
				return endOfWatch(ctx, err)
			}
			a.promptApprovals(ctx)
			return nil
		})
	})
	var validity string
	approve := command("", "approve ID", "Allow the request that waits", "  osaurus approvals approve 1f2e… --validity session", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		v, err := pairing.ParseValidity(validity)
		if err != nil || v == pairing.Deny {
			return usage("osaurus approvals approve ID --validity 90d", "validity must be session, 90d or permanent")
		}
		return a.answer(ctx, args[0], validity)
	})
	approve.Flags().StringVar(&validity, "validity", pairing.NinetyDays.String(), "session, 90d or permanent")
	deny := command("", "deny ID", "Deny the request that waits", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.answer(ctx, args[0], pairing.Deny.String())
	})
	root.AddCommand(parent("who", "approvals", "Requests to pair that wait for you", list, watch, approve, deny))
}

func endOfWatch(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil: // asked to stop
		err = nil
	case err == nil:
		err = control.ErrNoHost
	}
	return err
}

func (a *app) watched(s control.Approvals) error {
	if a.json {
		a.print(s)
		return nil
	}
	if s.Current != nil {
		a.out("%s  agent %s  connector %s  from %s", s.Current.ID, s.Current.AgentName, s.Current.Connector, s.Current.Source)
	}
	return nil
}

func (a *app) answer(ctx context.Context, id, validity string) error {
	return a.withRunning(ctx, func(ctx context.Context, c *control.Client) error {
		return c.Answer(ctx, control.Answer{ID: id, Validity: validity})
	})
}

// promptApprovals asks in this terminal for every request, until ctx ends.
func (a *app) promptApprovals(ctx context.Context) {
	c := control.NewClient(a.socket())
	defer c.Close()
	lines := a.term.lines(ctx)
	var p prompter
	err := c.WatchApprovals(ctx, func(s control.Approvals) error {
		p.show(ctx, a, c, s, lines)
		return nil
	})
	p.stop()
	if err != nil && ctx.Err() == nil && !errors.Is(err, control.ErrNoHost) {
		a.say("%s no requests can be approved in this terminal: %s", a.term.paint(yellow, "warning:"), err)
	}
}

// prompter shows one prompt at a time and stops asking when it was answered
// elsewhere.
type prompter struct {
	id       string
	cancel   context.CancelFunc
	done     chan struct{}
	answered bool // in this terminal; valid once done is closed
}

func (p *prompter) stop() {
	if p.cancel != nil {
		p.cancel()
		<-p.done
		p.cancel = nil
	}
}

func (p *prompter) show(ctx context.Context, a *app, c *control.Client, s control.Approvals, lines <-chan string) {
	if s.Current != nil && s.Current.ID == p.id {
		return
	}
	p.stop()
	if s.Current == nil {
		if p.id != "" && !p.answered && s.Last != nil {
			a.say("The request ended: %s.", s.Last.Reason)
		}
		p.id = ""
		return
	}
	p.id, p.answered = s.Current.ID, false
	asking, cancel := context.WithCancel(ctx)
	p.cancel, p.done = cancel, make(chan struct{})
	prompt := *s.Current
	go func() {
		defer close(p.done)
		validity, ok := a.askApproval(asking, prompt, lines)
		if !ok {
			return
		}
		p.answered = true
		// Not with asking, which ends as soon as the host has our answer.
		if err := c.Answer(ctx, control.Answer{ID: prompt.ID, Validity: validity.String()}); err != nil {
			a.say("%s %s", a.term.paint(red, "error:"), err)
			return
		}
		a.say("Answered: %s", validity)
	}()
}

// askApproval asks until a word is typed, or until ctx ends, which is false.
func (a *app) askApproval(ctx context.Context, p pairing.Prompt, lines <-chan string) (pairing.Validity, bool) {
	fmt.Fprintf(a.Stderr, "\n%s\n  agent      %s\n  connector  %s\n  from       %s\n", a.term.paint(bold, "Somebody asks to talk to one of your agents."), p.AgentName, p.Connector, p.Source)
	fmt.Fprintf(a.Stderr, "  It may run this agent and read its answers. The key travels sealed.\n  Compare the connector's address with what its owner sees.\n")
	fmt.Fprintf(a.Stderr, "  Type  allow (90 days) · session (until this host stops) · permanent · deny\n")
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		fmt.Fprintf(a.Stderr, "  %3d s left, else denied > ", int(time.Until(p.Expires).Seconds()))
		select {
		case <-ctx.Done():
			fmt.Fprintln(a.Stderr)
			return pairing.Deny, false
		case <-tick.C:
			fmt.Fprint(a.Stderr, "\r")
		case line := <-lines:
			validity, ok := choice(line)
			switch {
			case !ok:
				fmt.Fprintln(a.Stderr, "  Type one of the words.")
			case time.Since(p.Asked) < keysAsleep:
				fmt.Fprintln(a.Stderr, "  That was quick. Read it, then type the word again.")
			default:
				return validity, true
			}
		}
	}
}

// choice never takes an empty line for an approval.
func choice(line string) (pairing.Validity, bool) {
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "allow", "90d":
		return pairing.NinetyDays, true
	case "session":
		return pairing.SessionOnly, true
	case "permanent":
		return pairing.Permanent, true
	case "deny", "no":
		return pairing.Deny, true
	}
	return pairing.Deny, false
}
