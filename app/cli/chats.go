package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"osaurus/engine/control"
)

func (a *app) chatCommands(root *cobra.Command) {
	var filter control.ChatFilter
	list := command("", "list", "List conversations, last changed first", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return a.listChats(ctx, filter)
	})
	list.Flags().StringVar(&filter.AgentID, "agent", "", "only those with this agent (its id)")
	list.Flags().IntVar(&filter.Limit, "limit", 0, "at most this many (default 100)")
	list.Flags().BoolVar(&filter.Archived, "archived", false, "archived ones too")
	search := command("", "search TEXT", "List conversations that contain a text", "  osaurus chats search walrus", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.listChats(ctx, control.ChatFilter{Text: args[0], Archived: true})
	})
	show := command("", "show ID", "Show a conversation", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.withLook(ctx, func(ctx context.Context, c *control.Client) error {
			chat, err := c.Chat(ctx, args[0])
			if err != nil {
				return err
			}
			return a.result(chat, func() {
				for _, t := range chat.Messages {
					when := "(no time)" // an older host kept none
					if !t.Created.IsZero() {
						when = t.Created.Local().Format(time.DateTime)
					}
					a.out("%s  %s", a.term.paint(dim, when), a.term.paint(bold, t.Role))
					a.out("%s", t.Content)
					if t.Attachments > 0 {
						a.out("(%d attachments)", t.Attachments)
					}
				}
			})
		})
	})
	remove := command("", "delete ID", "Delete a conversation and what is attached to it", "", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		if err := a.confirm("The conversation cannot be brought back."); err != nil {
			return err
		}
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error { return c.DeleteChat(ctx, args[0]) })
	})
	root.AddCommand(parent("host", "chats", "Conversations kept on this host", list, search, show, remove))
}

func (a *app) listChats(ctx context.Context, f control.ChatFilter) error {
	return a.withLook(ctx, func(ctx context.Context, c *control.Client) error {
		list, err := c.Chats(ctx, f)
		if err != nil {
			return err
		}
		return a.result(list, func() {
			for _, s := range list {
				a.out("%s  %s  %3d turns  %s", s.ID, s.Updated.Local().Format(time.DateTime), s.Turns, or(s.Title, "(no title)"))
			}
			if len(list) == 0 {
				a.say("There are no such conversations.")
			}
		})
	})
}
