package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"osaurus/engine/control"
	"osaurus/engine/storage"
)

func (a *app) storageCommands(root *cobra.Command) {
	status := command("", "status", "Show each store: where, how large, how it is kept", "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return a.withLook(ctx, func(ctx context.Context, c *control.Client) error {
			s, err := c.Storage(ctx)
			if err != nil {
				return err
			}
			return a.result(s, func() { a.showStorage(s) })
		})
	})
	quarantine := a.host("quarantine", "List what was set aside; nothing there is ever deleted", func(ctx context.Context, c *control.Client) error {
		all, err := c.Quarantine(ctx)
		if err != nil {
			return err
		}
		return a.result(all, func() {
			for _, q := range all {
				a.out("%s  %s  %s  %s", q.MovedAt.Local().Format(time.DateTime), or(string(q.Store), q.Path), q.Folder, q.Reason)
			}
			if len(all) == 0 {
				a.say("Nothing was set aside.")
			}
		})
	})
	root.AddCommand(parent("host", "storage", "What is kept on disk, and its key", status, a.rotateStorage(),
		a.operation("encrypt", "Keep databases encrypted, and encrypt those that are not", ""),
		a.operation("decrypt", "Keep databases in plaintext, and decrypt those there are", "Whoever copies the home can read chats and memory afterwards."),
		a.operation("verify", "Read everything and tell what does not open", ""),
		a.operation("maintain", "Tidy up the databases now", ""),
		a.exportStorage(), a.importStorage(), a.recoverStore(), quarantine, a.remains()))
}

func (a *app) operation(name, short, question string) *cobra.Command {
	return command("", name, short, "", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		if question != "" {
			if err := a.confirm(question); err != nil {
				return err
			}
		}
		return a.operate(ctx, control.StorageOrder{What: name})
	})
}

func (a *app) rotateStorage() *cobra.Command {
	var fromIdentity bool
	c := command("", "rotate", "Give everything on disk a new key", "  osaurus storage rotate\n  osaurus storage rotate --from-identity", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		if err := a.confirm("Everything is copied, verified and put in place under a new key. An export beforehand costs little."); err != nil {
			return err
		}
		return a.operate(ctx, control.StorageOrder{What: "rotate", FromMaster: fromIdentity})
	})
	c.Flags().BoolVar(&fromIdentity, "from-identity", false, "derive the key from the identity, so that the 24 words and the salt bring it back")
	return c
}

// operate runs an operation with a bar on a terminal. Ctrl-C undoes it, or lets
// it go on at the next start where it cannot be undone any more.
func (a *app) operate(ctx context.Context, order control.StorageOrder) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
		bar := a.bar()
		done, err := c.OperateStorage(ctx, order, bar.show)
		bar.end()
		if err != nil {
			return err
		}
		if err := a.result(done, func() { a.showDone(order.What, done) }); err != nil {
			return err
		}
		switch {
		case len(done.Issues)+len(done.Unread) > 0 && order.What == "verify":
			return &control.Error{Code: "store_corrupt", Message: "not everything opens", Exit: exitIntegrity}
		case len(done.Missing) > 0:
			return &control.Error{Code: "store_corrupt", Message: "the export is not complete", Exit: exitIntegrity}
		}
		return nil
	})
}

func (a *app) showDone(what string, d control.StorageDone) {
	switch what {
	case "rotate":
		a.out("new key %s: %d databases, %d files", d.NewKeyID, d.Stores, d.Files)
	case "verify":
		if len(d.Issues)+len(d.Unread) == 0 {
			a.out("everything opens")
		}
	case "maintain":
		a.out("done")
	case "export":
		a.out("%s\n%d databases, %d attachments, %d settings and records, %s", d.Path, d.Stores, d.Attachments, d.Files, size(d.Bytes))
	default:
		a.out("%d databases converted", len(d.Converted))
	}
	for _, i := range d.Issues {
		a.out("%s: %s. %s", i.Store, i.Issue, i.Issue.Explain())
	}
	for _, m := range d.Missing {
		a.out("missing: %s", m)
	}
	for _, f := range d.Unread {
		a.out("%s does not open, or is gone; nothing was changed there", f)
	}
}

func (a *app) remains() *cobra.Command {
	var remove, keep string
	c := command("", "remains", "What an older host left unencrypted, and what becomes of it", "  osaurus storage remains\n  osaurus storage remains --delete memory/vectura", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		if remove != "" && keep != "" {
			return usage("osaurus storage remains", "one of --delete and --keep")
		}
		if remove != "" {
			if err := a.confirm(remove + " is deleted for good."); err != nil {
				return err
			}
		}
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			if remove+keep != "" {
				return c.SettleRemains(ctx, control.SettleRemains{Path: remove + keep, Keep: keep != ""})
			}
			return a.listRemains(ctx, c)
		})
	})
	c.Flags().StringVar(&remove, "delete", "", "delete this one")
	c.Flags().StringVar(&keep, "keep", "", "keep this one, and do not mention it again")
	return c
}

func (a *app) listRemains(ctx context.Context, c *control.Client) error {
	list, err := c.Remains(ctx)
	if err != nil {
		return err
	}
	return a.result(list, func() {
		for _, r := range list {
			state := "--delete or --keep"
			if r.Kept {
				state = "kept"
			}
			a.out("%-24s %10s  %s", r.Path, size(r.Bytes), state)
		}
		if len(list) == 0 {
			a.say("Nothing was left.")
		}
	})
}

func (a *app) showStorage(s storage.Status) {
	a.out("databases   %s", s.Posture)
	switch s.Key.State {
	case storage.KeyReady:
		a.out("key         %s, in a keystore sealed by: %s", s.Key.ID, s.Key.Keystore)
		if s.Key.Keystore == "unwrapped" {
			a.say("%s encrypted, but the key lies beside the data. Seal it:  osaurus identity passphrase set", a.term.paint(yellow, "warning:"))
		}
	case storage.KeyFresh:
		a.out("key         made when something is stored")
	case storage.KeyLocked, storage.KeyMissing:
		a.out("key         %s", a.term.paint(red, string(s.Key.State)))
		a.out("    %s\n    next: %s", s.Key.State.Explain(), a.typed(s.Key.Next))
	}
	if s.Operation != "" {
		a.out("running     %s", s.Operation)
	}
	for _, st := range s.Stores {
		state := st.State
		if st.State == storage.StateRefused {
			state = a.term.paint(red, string(st.Issue))
		}
		a.out("%-24s %10s  %-10s %s", st.ID, size(st.Bytes), st.Format, state)
		switch {
		case st.State != storage.StateRefused && st.State != storage.StateConverts:
		case st.Next == s.Key.Next: // said once
			a.out("    %s", st.Explain())
		default:
			a.out("    %s\n    next: %s", st.Explain(), a.typed(st.Next))
		}
	}
}

// progress is a bar on a terminal that asks for more than a second, and
// nothing anywhere else.
type progress struct{ bar *progressbar.ProgressBar }

func (a *app) bar() *progress {
	w := io.Discard
	if a.term.interactive && !a.quiet && !a.json {
		w = a.Stderr
	}
	return newProgress(w, 100*time.Millisecond)
}

func newProgress(w io.Writer, throttle time.Duration) *progress {
	return &progress{progressbar.NewOptions64(-1, progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true), progressbar.OptionShowCount(), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(throttle), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish(),
		// The spinner of an unknown length draws from a goroutine that outlives
		// a bar nobody ends.
		progressbar.OptionSetSpinnerChangeInterval(0))}
}

func (p *progress) show(at storage.Progress) {
	if p.bar.GetMax64() != at.Total && at.Total > 0 {
		p.bar.ChangeMax64(at.Total)
	}
	p.bar.Describe(at.Label)
	_ = p.bar.Set64(at.Done) // only tells people
}

func (p *progress) end() { _ = p.bar.Finish() }

// size is a number of bytes as people read it, in powers of 1000.
func size(bytes int64) string {
	const units = "kMGTPE"
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes)/1000, 0
	for value >= 999.95 && unit < len(units)-1 {
		value, unit = value/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", value, units[unit])
}
