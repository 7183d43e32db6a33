package accesskey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/google/uuid"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
)

// MaxTemporary bounds the session-only keys of one session.
const MaxTemporary = 1000

// temporaryKeys tracks session-only keys in identity/temporary-keys.json. An
// id is on disk before its key exists, so a crash leaves only ids to sweep.
type temporaryKeys struct {
	IDs    []string `json:"ids"`
	closed bool
}

var errTemporary = errors.New("session-only keys cannot be minted")

// sweepTemporaryLocked revokes and forgets what the last session left. A
// tracking file that does not parse deletes nothing: the keys on record are
// revoked and no new ones are minted (decisions C13).
func (k *Keys) sweepTemporaryLocked(ctx context.Context) {
	k.noTemporary = nil
	if k.c.TemporaryPath == "" {
		k.noTemporary = errTemporary
		return
	}
	tracked, err := readTemporary(k.c.TemporaryPath)
	if err != nil {
		k.noTemporary = fmt.Errorf("%w: %w", errTemporary, err)
		if err := k.revokeLocked(ctx, func(m Metadata) bool { return m.Temporary && !m.Revoked }); err != nil {
			k.unreadable = err
			k.republishLocked()
		}
		return
	}
	k.temporary = temporaryKeys{IDs: tracked}
	for _, m := range slices.Clone(k.metadata) {
		if m.Temporary && !slices.Contains(k.temporary.IDs, m.ID) {
			k.temporary.IDs = append(k.temporary.IDs, m.ID)
		}
	}
	if err := k.endTemporaryLocked(ctx); err != nil {
		k.noTemporary = fmt.Errorf("%w: %w", errTemporary, err)
	}
}

func readTemporary(path string) ([]string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var t temporaryKeys
	if err := json.Unmarshal(raw, &t); err != nil || t.IDs == nil {
		return nil, fault.New(fault.StateCorrupt, fmt.Errorf("%s does not parse", path))
	}
	for i, id := range t.IDs {
		if uuid.Validate(id) != nil {
			return nil, fault.New(fault.StateCorrupt, fmt.Errorf("%s: entry %d is not a UUID", path, i+1))
		}
	}
	return t.IDs, nil
}

// trackLocked puts an id on disk before its key is minted.
func (k *Keys) trackLocked(id string) error {
	switch {
	case k.noTemporary != nil:
		return k.noTemporary
	case k.temporary.closed:
		return fmt.Errorf("%w: the engine is stopping", errTemporary)
	case len(k.temporary.IDs) >= MaxTemporary:
		return fmt.Errorf("%w: there are %d of them", errTemporary, MaxTemporary)
	}
	return k.saveTemporaryLocked(append(slices.Clone(k.temporary.IDs), id))
}

func (k *Keys) saveTemporaryLocked(ids []string) error {
	if ids == nil {
		ids = []string{}
	}
	raw, err := json.Marshal(temporaryKeys{IDs: ids})
	if err != nil {
		return err
	}
	if err := atomicfile.Write(k.c.TemporaryPath, raw); err != nil {
		return err
	}
	k.temporary.IDs = ids
	return nil
}

// endTemporaryLocked deletes the tracked keys; those that fail stay tracked.
func (k *Keys) endTemporaryLocked(ctx context.Context) error {
	var left []string
	var failed error
	for _, id := range k.temporary.IDs {
		if k.indexLocked(id) < 0 {
			continue
		}
		if err := k.deleteLocked(ctx, id); err != nil {
			left, failed = append(left, id), errors.Join(failed, err)
		}
	}
	if len(left) == len(k.temporary.IDs) {
		return failed
	}
	return errors.Join(failed, k.saveTemporaryLocked(left))
}

// EndSession revokes every session-only key and refuses new ones. Keys whose
// deletion failed stay tracked; calling again, or the next start, retries.
func (k *Keys) EndSession(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.temporary.closed = true
	n := len(k.temporary.IDs)
	if n == 0 {
		return nil
	}
	err := k.endTemporaryLocked(ctx)
	k.c.Log("session_keys_ended", slog.Int("count", n-len(k.temporary.IDs)))
	return err
}
