package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"osaurus/engine/control"
)

func (a *app) memoryCommands(root *cobra.Command) {
	var in control.Remember
	add := command("", "add AGENT TEXT", "Have an agent remember something", "  osaurus memory add Assistant 'The walrus is called Wally'", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			f, err := c.AddFact(ctx, control.Remember{Agent: args[0], Text: args[1]})
			if err != nil {
				return err
			}
			return a.result(f, func() { a.out("%s", f.ID) })
		})
	})
	list := command("", "list [AGENT]", "List what agents were told to remember", "", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		var of control.Remember
		if len(args) == 1 {
			of.Agent = args[0]
		}
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			facts, err := c.Facts(ctx, of)
			if err != nil {
				return err
			}
			return a.result(facts, func() {
				for _, f := range facts {
					a.out("%s  %s  %s", f.ID, f.Created.Local().Format(time.DateTime), f.Content)
				}
				if len(facts) == 0 {
					a.say("Nothing was pinned. Add something:  osaurus memory add AGENT TEXT")
				}
			})
		})
	})
	query := command("", "query AGENT WORDS", "Look for words in what an agent remembers", "", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		in.Agent, in.Text = args[0], args[1]
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			found, err := c.QueryMemory(ctx, in)
			if err != nil {
				return err
			}
			return a.result(found, func() {
				for _, f := range found {
					a.out("%-9s  %s  %s", f.Kind, f.Created.Local().Format(time.DateTime), f.Content)
				}
				if len(found) == 0 {
					a.say("Nothing has all of these words.")
				}
			})
		})
	})
	query.Flags().IntVar(&in.Limit, "limit", 0, "at most this many (default 20)")
	forget := command("", "forget ID", "Delete something that was pinned", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error { return c.ForgetFact(ctx, args[0]) })
	})
	root.AddCommand(parent("host", "memory", "What agents remember", add, list, query, forget))
}
