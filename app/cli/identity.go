package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"osaurus/engine/control"
	"osaurus/engine/secret"
)

func (a *app) identityCommands(root *cobra.Command) {
	root.AddCommand(parent("who", "identity", "Your identity and its recovery",
		a.identityShow(), a.identityCreate(), a.identityPhrase(), a.identityAcknowledge(), a.identityRestore(), a.identityConfirm(), a.identityUndo(), a.identityDrift(), a.identityRepair(), a.identityReset(), a.identityToken(), a.passphraseCommand()))
}

// host is a command that needs no more than a client.
func (a *app) host(use, short string, run func(ctx context.Context, c *control.Client) error) *cobra.Command {
	return command("", use, short, "", cobra.NoArgs, func(ctx context.Context, _ []string) error { return a.withHost(ctx, run) })
}

func (a *app) identityShow() *cobra.Command {
	return a.host("show", "Show the identity and this host's address as a connector", func(ctx context.Context, c *control.Client) error {
		id, err := c.Identity(ctx, false)
		if err != nil {
			return err
		}
		if id.State == "ready" {
			if id, err = c.Identity(ctx, true); err != nil {
				return err
			}
		}
		return a.result(id, func() {
			a.out("state            %s", id.State)
			if !id.Address.IsZero() {
				a.out("address          %s", id.Address)
				a.out("created          %s", id.Created.Local().Format(time.DateTime))
			}
			if !id.Pairing.IsZero() {
				a.out("as a connector   %s", id.Pairing)
			}
			a.out("phrase saved     %v", id.Acknowledged)
			a.out("device           %s (%s)", id.DeviceID, id.DeviceName)
			if id.State == "none" {
				a.say("Create one:  osaurus identity create")
			}
		})
	})
}

// secretOut shows a phrase: on a terminal, or as JSON when that was asked for.
func (a *app) secretOut(n control.NewIdentity) error {
	if a.json {
		a.print(n)
		return nil
	}
	phrase, code := secret.New([]byte(n.Phrase)), secret.New([]byte(n.RecoveryCode))
	defer phrase.Destroy()
	defer code.Destroy()
	a.showPhrase(phrase, code)
	return nil
}

// mayShowSecrets refuses to send a phrase into a pipe or a log unasked.
func (a *app) mayShowSecrets() error {
	if a.json || a.term.interactive {
		return nil
	}
	return usage("the same command at a terminal, or with --json", "the phrase is shown on a terminal only")
}

func (a *app) identityCreate() *cobra.Command {
	return a.host("create", "Create your identity and show its phrase once", func(ctx context.Context, c *control.Client) error {
		n, err := c.CreateIdentity(ctx)
		if err != nil {
			return err
		}
		shown := a.mayShowSecrets() == nil
		if !a.json || !shown {
			a.out("%s", n.Address)
		}
		if shown {
			return a.secretOut(n)
		}
		a.say("Created. See its recovery phrase once, at a terminal:\n  osaurus identity phrase")
		return nil
	})
}

func (a *app) identityPhrase() *cobra.Command {
	return a.host("phrase", "Show the recovery phrase, until it was acknowledged as saved", func(ctx context.Context, c *control.Client) error {
		if err := a.mayShowSecrets(); err != nil {
			return err
		}
		n, err := c.Phrase(ctx)
		if err != nil {
			return err
		}
		return a.secretOut(n)
	})
}

func (a *app) identityAcknowledge() *cobra.Command {
	return a.host("acknowledge", "Say that the phrase is saved; it is not shown again", func(ctx context.Context, c *control.Client) error {
		return c.Acknowledge(ctx)
	})
}

func (a *app) identityRestore() *cobra.Command {
	var anyway bool
	c := command("", "restore", "Restore the identity from its 24 words (typed, or on stdin)", "  osaurus identity restore\n  osaurus identity restore < phrase.txt", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		phrase, err := a.readSecret("The 24 words: ")
		if err != nil {
			return err
		}
		defer phrase.Destroy()
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			id, err := c.RestoreIdentity(ctx, control.Restore{Phrase: string(phrase.Expose()), Anyway: anyway})
			if err != nil {
				return err
			}
			if id.Replaced {
				a.say("The replaced identity is kept in the keystore until:  osaurus identity confirm")
			}
			if id.Forgetful {
				a.say("%s no revocations are known here: keys of this identity that were revoked elsewhere would work again.\nRefuse every key issued until now:  osaurus keys refuse-before now", a.term.paint(yellow, "warning:"))
			}
			return a.result(id, func() { a.out("%s", id.Address) })
		})
	})
	c.Flags().BoolVar(&anyway, "anyway", false, "replace the identity even by a phrase of another one")
	return c
}

func (a *app) identityConfirm() *cobra.Command {
	return a.host("confirm", "Drop the kept copy of a replaced identity", func(ctx context.Context, c *control.Client) error {
		if err := a.confirm("The replaced identity cannot be brought back afterwards."); err != nil {
			return err
		}
		return c.ConfirmReplacement(ctx)
	})
}

func (a *app) identityUndo() *cobra.Command {
	return a.host("undo", "Bring the replaced identity back", func(ctx context.Context, c *control.Client) error {
		if err := a.confirm("The present identity is not kept: its phrase must be known."); err != nil {
			return err
		}
		id, err := c.UndoReplacement(ctx)
		if err != nil {
			return err
		}
		return a.result(id, func() { a.out("%s", id.Address) })
	})
}

func (a *app) identityDrift() *cobra.Command {
	return a.host("drift", "Check that agents and keys belong to the identity", func(ctx context.Context, c *control.Client) error {
		d, err := c.Drift(ctx)
		if err != nil {
			return err
		}
		return a.result(d, func() {
			if d.ScopesRestored > 0 {
				a.out("The device scope was restored for %d agents; no keys changed.", d.ScopesRestored)
			}
			if len(d.Mismatched)+len(d.StaleKeys) == 0 {
				a.out("Everything belongs to the identity.")
				return
			}
			a.out("%d agents and %d keys do not belong to the identity.", len(d.Mismatched), len(d.StaleKeys))
			for _, m := range d.Mismatched {
				a.out("  agent %s", m.Name)
			}
			a.say("Three ways on:\n  osaurus identity restore   (the phrase they belong to)\n  osaurus identity repair    (new addresses; their pairings stop)\n  osaurus identity reset     (start over)")
		})
	})
}

func (a *app) identityRepair() *cobra.Command {
	return a.host("repair", "Give mismatched agents new addresses and revoke stale keys", func(ctx context.Context, c *control.Client) error {
		d, err := c.Drift(ctx)
		if err != nil {
			return err
		}
		if len(d.Mismatched)+len(d.StaleKeys) == 0 {
			a.say("Nothing to repair.")
			return nil
		}
		a.say("%d agents get new addresses and %d keys are revoked; their pairings stop.", len(d.Mismatched), len(d.StaleKeys))
		if err := a.confirm("This cannot be undone."); err != nil {
			return err
		}
		done, err := c.Repair(ctx, d)
		if err != nil {
			return err
		}
		return a.result(done, func() {
			a.out("%d agents moved, %d keys revoked.", len(done.Moved), done.KeysRevoked)
			for _, f := range done.Failed {
				a.out("failed: %s", f)
			}
		})
	})
}

func (a *app) identityReset() *cobra.Command {
	return a.host("reset", "Delete the identity, the agents' addresses and all access keys", func(ctx context.Context, c *control.Client) error {
		if err := a.confirm("The identity, its backups, every agent's address and every access key are deleted. Only the phrase brings the identity back."); err != nil {
			return err
		}
		return c.ResetIdentity(ctx)
	})
}

// newPassphrase is the first line of stdin, as --passphrase-fd will read it, or
// what is typed.
func (a *app) newPassphrase() (secret.Bytes, error) {
	if a.term.interactive {
		return a.term.askSecret("New passphrase: ")
	}
	return readSecretFD(0, a.Stdin)
}

func (a *app) passphraseCommand() *cobra.Command {
	set := a.host("set", "Seal the keystore with a passphrase", func(ctx context.Context, c *control.Client) error {
		p, err := a.newPassphrase()
		if err != nil {
			return err
		}
		defer p.Destroy()
		if p.IsZero() {
			return usage("osaurus identity passphrase remove", "an empty passphrase seals nothing")
		}
		if a.term.interactive {
			again, err := a.term.askSecret("Again: ")
			if err != nil {
				return err
			}
			defer again.Destroy()
			if !p.Equal(again) {
				return usage("osaurus identity passphrase set", "the two passphrases differ; nothing was changed")
			}
		}
		return c.SetPassphrase(ctx, string(p.Expose()))
	})
	remove := a.host("remove", "Leave the keystore unsealed", func(ctx context.Context, c *control.Client) error {
		if err := a.confirm("Whoever copies the home can read the keys then."); err != nil {
			return err
		}
		return c.SetPassphrase(ctx, "")
	})
	return parent("", "passphrase", "The passphrase of the keystore", set, remove)
}
