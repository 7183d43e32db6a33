package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"osaurus/engine"
	"osaurus/engine/agents"
	"osaurus/engine/control"
	"osaurus/engine/keystore"
	"osaurus/engine/pairing"
	"osaurus/engine/secret"
	"osaurus/engine/settings"
)

// serve runs the host until it is interrupted or told to stop.
func (a *app) serve(ctx context.Context, port int) (err error) {
	ctx, stop := interruptible(ctx)
	defer stop()
	e, err := a.open(ctx, a.untilFree())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close(context.WithoutCancel(ctx))) }()
	if err := a.firstStart(ctx, e); err != nil {
		return err
	}
	if err := a.converge(ctx, e); err != nil {
		return err
	}
	if err := e.Unlock(ctx); err != nil {
		a.say("%s the agents' keys are not available: %s", a.term.paint(yellow, "warning:"), err)
	}
	if port >= 0 {
		e.OverridePort(port)
	}
	listeners, err := e.Listen(ctx)
	if err != nil {
		return err
	}
	socket, err := control.ListenSocket(ctx, a.socket())
	if err != nil {
		return err
	}
	var background sync.WaitGroup
	background.Go(func() {
		if err := control.NewServer(e, stop).Serve(ctx, socket); err != nil && ctx.Err() == nil {
			a.say("%s the control socket failed: %s", a.term.paint(red, "error:"), err)
			stop()
		}
	})
	e.Server.Announce(listeners[0])
	a.greet(e)
	if a.term.interactive {
		a.offerProvider(ctx, e)
		background.Go(func() { a.promptApprovals(ctx) })
	}
	if a.Approvals != nil {
		background.Go(func() { a.desktopApprovals(ctx) })
	}
	err = e.Run(ctx, listeners)
	stop()
	background.Wait()
	a.say("Stopped.")
	return err
}

// desktopApprovals asks on the desktop, where there is one; who wants to see a
// request gets the settings page.
func (a *app) desktopApprovals(ctx context.Context) {
	c := control.NewClient(a.socket())
	defer c.Close()
	var pages sync.WaitGroup
	defer pages.Wait()
	err := a.Approvals(ctx, c, func(pairing.Prompt) {
		pages.Go(func() {
			if err := a.servePage(ctx, c, false); err != nil && ctx.Err() == nil {
				a.say("%s the settings page failed: %s", a.term.paint(yellow, "warning:"), err)
			}
		})
	})
	if err != nil && ctx.Err() == nil {
		a.say("%s requests to pair are not shown on the desktop: %s", a.term.paint(yellow, "warning:"), err)
	}
}

// firstStart creates what is missing and shows the phrase once, on a terminal
// only: a log or a pipe must never hold it.
func (a *app) firstStart(ctx context.Context, e *engine.Engine) error {
	created, err := e.FirstStart(ctx)
	if err != nil || created == nil {
		return err
	}
	defer created.Phrase.Destroy()
	defer created.RecoveryCode.Destroy()
	a.say("Created your identity %s", a.term.paint(bold, created.Address.String()))
	if !a.term.interactive {
		a.say("Its recovery phrase is not shown here. See it once, at a terminal:\n  osaurus identity phrase")
		return nil
	}
	a.showPhrase(created.Phrase, created.RecoveryCode)
	return nil
}

// converge encrypts what an older host left in plaintext, with progress.
func (a *app) converge(ctx context.Context, e *engine.Engine) error {
	bar := a.bar()
	done, err := e.Storage.Converge(ctx, bar.show)
	bar.end()
	if len(done.Converted) > 0 {
		a.say("Encrypted %d databases that were in plaintext.", len(done.Converted))
	}
	for _, i := range done.Issues {
		a.say("%s %s stays as it is: %s", a.term.paint(yellow, "warning:"), i.Store, i.Kind.Explain())
	}
	return err
}

// showPhrase prints the words in four columns.
func (a *app) showPhrase(phrase, code secret.Bytes) {
	words := strings.Fields(string(phrase.Expose()))
	fmt.Fprintf(a.Stderr, "\n%s\n\n", a.term.paint(bold, "Your recovery phrase. Write it down; whoever has it is you."))
	const columns = 4
	rows := (len(words) + columns - 1) / columns
	for r := range rows {
		for c := range columns {
			if i := c*rows + r; i < len(words) {
				fmt.Fprintf(a.Stderr, "  %2d. %-10s", i+1, words[i])
			}
		}
		fmt.Fprintln(a.Stderr)
	}
	if !code.IsZero() {
		fmt.Fprintf(a.Stderr, "\nRecovery code %s: for a claim at a service. It cannot restore the key.\n", code.Expose())
	}
	fmt.Fprintln(a.Stderr, a.typed("\nWhen it is saved:  osaurus identity acknowledge\n"))
}

// greet says where the host is and what to do next.
func (a *app) greet(e *engine.Engine) {
	s := e.Settings()
	base := fmt.Sprintf("http://127.0.0.1:%d", e.Server.Port())
	where := "this machine only"
	if s.Expose {
		where = "every network of this machine"
	}
	if a.json {
		a.print(map[string]any{"event": "serving", "url": base, "home": a.home, "exposed": s.Expose, "identity": e.Account.Address()})
		return
	}
	a.say("%s at %s (%s)", a.term.paint(green, "Serving"), a.term.paint(bold, base), where)
	a.greetAgent(e, base)
	if a.term.interactive {
		a.say("Requests to pair are asked here, or:  osaurus approvals watch")
	} else {
		a.say("Requests to pair are refused until somebody can answer them:  osaurus approvals watch")
	}
	if e.Keystore().Strength() == keystore.Unwrapped {
		a.say("%s secrets are encrypted, but the key lies beside the data. Seal it:\n  osaurus identity passphrase set", a.term.paint(yellow, "warning:"))
	}
	if e.Provider().BaseURL == "" {
		a.say("No model provider is chosen yet:  osaurus provider probe")
	}
}

// greetAgent shows how another host pairs with an agent. Only one that is
// advertised can be paired over the network.
func (a *app) greetAgent(e *engine.Engine, base string) {
	all := slices.DeleteFunc(e.Agents.List(), func(g agents.Agent) bool { return g.BuiltIn || g.Address.IsZero() })
	if len(all) == 0 {
		return
	}
	i := slices.IndexFunc(all, func(g agents.Agent) bool { return g.BonjourEnabled })
	g := all[max(i, 0)]
	a.say("  agent %-16s %s\n        id %s", g.Name, g.Address, g.ID)
	if i < 0 {
		a.say("Nobody can pair with it on this network until it is advertised:\n  osaurus agents bonjour %s on", quoted(g.Name))
		return
	}
	a.say("\nFrom a second terminal, with a home of its own:")
	a.say("  osaurus --home /tmp/second identity create")
	a.say("  osaurus --home /tmp/second pair %s/%s@%s", base, g.ID, g.Address)
	a.say("  osaurus --home /tmp/second run %q \"Hello\" --model echo", g.Name)
}

// offerProvider asks whether the first provider found may be used (decisions
// C19).
func (a *app) offerProvider(ctx context.Context, e *engine.Engine) {
	if e.Provider().BaseURL != "" {
		return
	}
	found, models, err := e.ProbeProviders(ctx)
	if err != nil {
		return
	}
	answer, err := a.term.ask(fmt.Sprintf("A model provider answers at %s (%d models). Use it? Type yes: ", found.BaseURL, len(models)))
	if err != nil || answer != "yes" {
		return
	}
	if err := e.UseProvider(ctx, settings.Provider{BaseURL: found.BaseURL}, secret.Bytes{}); err != nil {
		a.say("%s %s", a.term.paint(red, "error:"), err)
	}
}
