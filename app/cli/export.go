package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"osaurus/engine"
	"osaurus/engine/control"
	"osaurus/engine/storage"
	"osaurus/engine/storage/archive"
)

func (a *app) exportStorage() *cobra.Command {
	order := control.StorageOrder{What: "export"}
	c := command("", "export FOLDER", "Write all that is stored to a folder outside the home", "  osaurus storage export ~/Documents\n  osaurus storage export /media/usb --archive\n  osaurus storage export . --recipient age1...", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		dest, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		order.Dest = dest
		if len(order.Recipients) == 0 {
			if err := a.confirm("The export is not encrypted: whoever reads it reads your chats. --recipient encrypts it."); err != nil {
				return err
			}
		}
		return a.operate(ctx, order)
	})
	c.Flags().BoolVar(&order.Tar, "archive", false, "write one tar instead of a folder")
	c.Flags().StringArrayVar(&order.Recipients, "recipient", nil, "encrypt the archive to this age recipient (may be given more than once)")
	return c
}

func (a *app) importStorage() *cobra.Command {
	var identity string
	var partial bool
	c := command("", "import PATH", "Put an export in place of what is here; what is replaced is set aside", "  osaurus storage import ~/Documents/osaurus-export-20261124T050607Z\n  osaurus storage import backup.tar.age --identity key.txt", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		ids, err := readIdentities(identity)
		if err != nil {
			return err
		}
		src, err := archive.Open(args[0], ids...)
		if err != nil {
			return err
		}
		if err := a.confirm("What the export holds takes the place of what is here; what it replaces is set aside under quarantine/."); err != nil {
			return err
		}
		return a.runImport(ctx, storage.ImportOptions{Source: src, Partial: partial})
	})
	c.Flags().StringVar(&identity, "identity", "", "file with the age identity that opens an encrypted archive")
	c.Flags().BoolVar(&partial, "partial", false, "take an export that says something is missing from it")
	return c
}

func (a *app) runImport(ctx context.Context, o storage.ImportOptions) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	bar := a.bar()
	o.Progress = bar.show
	var done storage.Imported
	err := a.unlocking(a.untilFree(), func(p engine.Ports, c engine.Config) (err error) {
		done, err = engine.ImportStorage(ctx, p, c, o)
		return err
	})
	bar.end()
	if errors.Is(err, engine.ErrInUse) {
		return &control.Error{Code: "host_running", Message: "an import needs the home to itself, and a host is running or its settings page is open", Exit: exitUnreachable}
	}
	if err != nil {
		return err
	}
	result := control.StorageDone{Stores: len(done.Stores), Files: done.Files, Attachments: done.Blobs, Replaced: done.Replaced, Missing: control.Missing(done.Missing)}
	return a.result(result, func() {
		a.out("%d databases, %d attachments, %d settings and records", result.Stores, result.Attachments, result.Files)
		for _, folder := range result.Replaced {
			a.out("set aside: %s", folder)
		}
		for _, m := range result.Missing {
			a.out("missing: %s", m)
		}
	})
}

// readIdentities reads an age identity file; "" is none.
func readIdentities(path string) ([]age.Identity, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	ids, err := age.ParseIdentities(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, usage("age-keygen -o key.txt", "%s is no file of age identities", path)
	}
	return ids, nil
}

// classifyExport tells what is the matter with an export that is read.
func classifyExport(err error) (exit int, code, next string) {
	switch {
	case errors.Is(err, archive.ErrIncomplete):
		return exitIntegrity, "export_incomplete", "the same command with --partial takes what there is"
	case errors.Is(err, archive.ErrIdentity):
		return exitLocked, "export_encrypted", "the same command with --identity FILE"
	case errors.Is(err, archive.ErrDiffers):
		return exitIntegrity, "export_differs", "another copy of the export"
	case errors.Is(err, archive.ErrNotExport):
		return exitIntegrity, "no_export", "osaurus storage import --help"
	}
	return exitOK, "", ""
}
