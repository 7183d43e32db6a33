package engine

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"osaurus/engine/fault"
	"osaurus/engine/storage"
	"osaurus/engine/storage/migrate"
	"osaurus/engine/storage/migrations"
)

// RotateStorage gives everything on disk a new key: a drawn one, or one that
// is derived from the master, which may ask the owner.
func (e *Engine) RotateStorage(ctx context.Context, fromMaster bool, progress func(storage.Progress)) (storage.Rotation, error) {
	o := storage.RotateOptions{Progress: progress}
	if fromMaster {
		master, err := e.Account.Unlock(ctx, "derive the storage key")
		if err != nil {
			return storage.Rotation{}, err
		}
		defer master.Destroy()
		o.Master = master.StorageMaterial()
		defer o.Master.Destroy()
	}
	return e.Storage.Rotate(ctx, o)
}

// RestoreStorageKey brings back a storage key that was derived from the
// identity, which may ask the owner.
func (e *Engine) RestoreStorageKey(ctx context.Context) error {
	master, err := e.Account.Unlock(ctx, "restore the storage key")
	if err != nil {
		return err
	}
	defer master.Destroy()
	material := master.StorageMaterial()
	defer material.Destroy()
	return e.Storage.RestoreKey(ctx, material)
}

// ExportStorage writes everything that is stored to a folder outside the home:
// as files, as one tar, or as a tar encrypted to age recipients.
func (e *Engine) ExportStorage(ctx context.Context, dest string, tar bool, recipients []string, progress func(storage.Progress)) (storage.Exported, error) {
	o := storage.ExportOptions{Dest: dest, Tar: tar, AppVersion: e.config.Version, Progress: progress}
	for _, text := range recipients {
		r, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil || len(r) != 1 {
			return storage.Exported{}, fault.WithText(fault.Usage, fmt.Sprintf("%q is no age recipient", text))
		}
		o.Recipients = append(o.Recipients, r...)
	}
	return e.Storage.Export(ctx, o)
}

// ImportStorage puts an export in place of what a home has. No host may run
// there: what it holds in memory would be written over the import.
func ImportStorage(ctx context.Context, p Ports, c Config, o storage.ImportOptions) (done storage.Imported, err error) {
	e, err := open(ctx, p, c, func(e *Engine, ctx context.Context) (err error) {
		done, err = e.Storage.Import(ctx, o)
		return err
	})
	if err != nil {
		return done, err
	}
	return done, e.Close(context.WithoutCancel(ctx))
}

// declareStores says how the databases that nothing here writes yet are brought
// up to date, for those an older host left.
func (e *Engine) declareStores() error {
	for id, steps := range map[storage.ID]migrate.Steps{storage.Methods: migrations.Methods, storage.ToolIndex: migrations.ToolIndex, storage.Scheduler: migrations.Scheduler} {
		if _, err := e.Storage.Store(id, storage.Options{Setup: steps.Up}); err != nil {
			return err
		}
	}
	return nil
}

// orphanGrace is how old an attachment that no turn mentions must be to go.
const orphanGrace = 24 * time.Hour

// maintain looks after the databases while the host runs.
func (e *Engine) maintain(ctx context.Context) {
	next := time.NewTimer(storage.MaintainAfter)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		if err := e.Storage.Maintain(ctx, false); err != nil && ctx.Err() == nil {
			e.ports.Logger.Warn("a database was not maintained", slog.String("error", err.Error()))
		}
		if _, err := e.Chats.Sweep(ctx, orphanGrace); err != nil && ctx.Err() == nil {
			e.ports.Logger.Warn("attachments were not swept", slog.String("error", err.Error()))
		}
		next.Reset(storage.MaintainEvery)
	}
}

// StorageStatus looks at every store, and reads every record whose list nobody
// has needed yet.
func (e *Engine) StorageStatus(ctx context.Context) (storage.Status, error) {
	if err := e.Storage.Probe(ctx); err != nil {
		return storage.Status{}, err
	}
	if s, err := e.Storage.Status(); err != nil || s.Operation != "" {
		return s, err // reading would wait for its end
	}
	// Storage notes those that cannot be read.
	_, _ = e.Peers.List()
	_ = e.Runner.ReadTasks()
	_, _ = e.Invites.Devices()
	for _, a := range e.Agents.List() {
		_, _ = e.Invites.List(a.ID)
	}
	return e.Storage.Status()
}

// ResetStore sets a store, or a record that cannot be read, aside.
func (e *Engine) ResetStore(ctx context.Context, id storage.ID) error {
	if _, err := e.StorageStatus(ctx); err != nil {
		return err
	}
	return e.Storage.Reset(ctx, id)
}

func (e *Engine) storageFindings(ctx context.Context) []Finding {
	s, err := e.StorageStatus(ctx)
	if err != nil {
		return []Finding{{"storage", "error", "The stores cannot be listed", err.Error(), "osaurus storage status"}}
	}
	var f []Finding
	switch s.Key.State {
	case storage.KeyMissing:
		f = append(f, Finding{"storage-key", "error", "The storage key is missing", s.Key.State.Explain(), s.Key.Next})
	case storage.KeyLocked:
		f = append(f, Finding{"storage-key", "error", "The storage key is not available", s.Key.State.Explain(), s.Key.Next})
	case storage.KeyReady, storage.KeyFresh:
	}
	for _, st := range s.Stores {
		switch {
		case st.Record():
			f = append(f, Finding{"record", "error", st.Path + " cannot be read: " + string(st.Issue), st.Explain(), st.Next})
		case st.State == storage.StateRefused && !st.Waits():
			f = append(f, Finding{"store", "error", "The store " + string(st.ID) + " stays closed: " + string(st.Issue), st.Explain(), st.Next})
		case st.State == storage.StateConverts:
			f = append(f, Finding{"store", "warning", "The store " + string(st.ID) + " is not encrypted with the present key yet", st.Explain(), st.Next})
		}
	}
	f = append(f, e.remainsFindings()...)
	switch {
	case slices.ContainsFunc(f, func(x Finding) bool { return x.ID != "older-settings" }):
	case s.Posture == storage.PosturePlaintext:
		f = append(f, Finding{"storage", "warning", "Databases are kept in plaintext, as you chose", "Whoever copies the home can read chats and memory.", "osaurus storage encrypt"})
	default:
		f = append(f, Finding{ID: "storage", Level: "ok", Title: "What is stored is encrypted"})
	}
	return f
}

func (e *Engine) remainsFindings() []Finding {
	left, err := e.Storage.Remains()
	if err != nil {
		return []Finding{{"storage-remains", "warning", "What an older host left cannot be listed", err.Error(), "osaurus storage remains"}}
	}
	var f []Finding
	for _, r := range left {
		switch {
		case r.Kept:
		case strings.HasPrefix(r.Path, "config/"):
			f = append(f, Finding{"older-settings", "warning", "The settings of an older host were set aside: " + r.Path, "Its port and its exposure were taken over where it says them beyond doubt; all else has its default. Look at the settings, then keep the file or delete it.", "osaurus settings show, then: osaurus storage remains --keep " + r.Path})
		default:
			f = append(f, Finding{"storage-remains", "warning", "An older host left " + r.Path + " unencrypted", "Nothing here reads it. Delete it, or say that it stays: --keep.", "osaurus storage remains --delete " + r.Path})
		}
	}
	return f
}
