package cli

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"osaurus/engine/control"
)

// maxTokenInput bounds a request token read from stdin, in bytes.
const maxTokenInput = 64 << 10

// identityToken signs and checks requests between hosts of one owner.
func (a *app) identityToken() *cobra.Command {
	var m control.MintToken
	mint := command("", "mint ACTION", "Sign a token for one request, valid for a minute", "  osaurus identity token mint \"GET /v1/models\" --for studio", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		m.Action = args[0]
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			t, err := c.MintToken(ctx, m)
			if err != nil {
				return err
			}
			return a.result(t, func() { a.out("%s", t.Token) })
		})
	})
	mint.Flags().StringVar(&m.Audience, "for", "", "name of the host that will check it (default this one)")
	mint.Flags().StringVar(&m.Agent, "agent", "", "sign as this agent instead of as the owner")
	verify := command("", "verify ACTION < TOKEN", "Check a token for this host; it serves once", "  osaurus identity token verify \"GET /v1/models\" < token", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		raw, err := io.ReadAll(io.LimitReader(a.Stdin, maxTokenInput+1))
		if err != nil {
			return err
		}
		if len(raw) > maxTokenInput {
			return errors.New("what came on stdin is too long to be a request token")
		}
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			t, err := c.VerifyToken(ctx, control.RequestToken{Token: strings.TrimSpace(string(raw)), Action: args[0]})
			if err != nil {
				return err
			}
			return a.result(t, func() { a.out("valid: %s from %s, device %s", t.Action, t.Issuer, t.Device) })
		})
	})
	return parent("", "token", "Request tokens between hosts", mint, verify)
}
