package cli

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"osaurus/app/page"
	"osaurus/app/panes"
	"osaurus/engine/control"
)

// pageDir is where the file that leads to the page lies, below the home.
const pageDir = "runtime"

// settingsPage makes the settings command open the page when no subcommand is
// given.
func (a *app) settingsPage(c *cobra.Command) *cobra.Command {
	var noOpen bool
	c.Flags().BoolVar(&noOpen, "no-open", false, "print where the page is and open no browser")
	c.Long = "Open the settings in a browser: identity, storage, agents and keys, peers and\nrequests to pair. No host needs to run, and other commands work meanwhile. It ends\nwith Ctrl-C, or when nobody has used it for ten minutes."
	c.Example = "  osaurus settings\n  osaurus settings --no-open\n  osaurus settings set port=1338"
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, stop := interruptible(c.Context())
		defer stop()
		return a.withSharedHome(ctx, func(ctx context.Context, h *control.Client) error { return a.servePage(ctx, h, noOpen) })
	}
	return c
}

func (a *app) servePage(ctx context.Context, h *control.Client, noOpen bool) (err error) {
	m := panes.New(h, panes.Env{Home: a.Getenv("HOME"), DiskEncrypted: func(context.Context) panes.DiskState { return page.DiskOf(a.home) }})
	defer m.Close()
	p, err := page.Open(ctx, m, filepath.Join(a.home, pageDir))
	if err != nil {
		return err
	}
	if a.json {
		a.print(map[string]string{"event": "settings", "url": p.URL(), "file": p.File()})
	} else {
		a.out("%s", p.File())
		a.say("Open this file in a browser; it works once. The page ends with Ctrl-C, or after ten minutes without use.")
	}
	if !noOpen {
		a.openFile(ctx, p.File())
	}
	return errors.Join(p.Serve(ctx))
}

// openFile hands a file to the desktop, where there is one. The file's path is
// no secret; what is in it never stands in an argument.
func (a *app) openFile(ctx context.Context, path string) {
	cmd := opener(ctx, a.Getenv, path)
	if cmd == nil {
		return
	}
	if err := cmd.Start(); err != nil {
		a.say("%s no browser could be opened: %s", a.term.paint(yellow, "warning:"), err)
		return
	}
	go func() { _ = cmd.Wait() }() // whether the desktop was pleased is not ours to know
}
