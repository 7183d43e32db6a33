package engine

import (
	"context"
	"log/slog"
	"time"

	"osaurus/engine/storage"
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

func (e *Engine) storageFindings() []Finding {
	s, err := e.Storage.Status()
	if err != nil {
		return []Finding{{"storage", "error", "The stores cannot be listed", err.Error(), "osaurus storage status"}}
	}
	var f []Finding
	switch s.Key.State {
	case storage.KeyMissing:
		f = append(f, Finding{"storage-key", "error", "The storage key is missing", "Encrypted data is here, but the keystore has no key for it. Nothing is written, so that nothing is lost. Bring back the keystore this home was made with.", "osaurus storage status"})
	case storage.KeyLocked:
		f = append(f, Finding{"storage-key", "error", "The storage key is not available", "What is stored stays closed until the keystore answers.", "osaurus storage recover chat-history --retry"})
	case storage.KeyReady, storage.KeyFresh:
	}
	for _, st := range s.Stores {
		if st.State == storage.StateRefused {
			f = append(f, Finding{"store", "error", "The store " + string(st.ID) + " stays closed: " + string(st.Issue), st.Issue.Explain(), st.Next})
		}
	}
	switch {
	case len(f) > 0:
	case s.Posture == storage.PosturePlaintext:
		f = append(f, Finding{"storage", "warning", "Databases are kept in plaintext, as you chose", "Whoever copies the home can read chats and memory.", "osaurus storage encrypt"})
	default:
		f = append(f, Finding{ID: "storage", Level: "ok", Title: "What is stored is encrypted"})
	}
	return f
}
