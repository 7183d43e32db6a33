package storage

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sealed"
	"osaurus/engine/storage/sqlcipher"
)

// prune forgets retired keys that nothing needs any more. In doubt they stay.
// The caller holds s.mu.
func (s *Storage) prune(ctx context.Context) error {
	if len(s.keys) < 2 || !s.trusted {
		return nil
	}
	needed, sure, err := s.neededKeys()
	if err != nil || !sure {
		return err
	}
	kept := sealed.Keys{s.keys[0]}
	for _, k := range s.keys[1:] {
		if needed[k.ID()] {
			kept = append(kept, k)
			continue
		}
		if k.ID() != s.keys[0].ID() {
			if err := s.vault.Forget(ctx, k.ID()); err != nil {
				return err
			}
			s.log("storage.key_forgotten", slog.String("keyId", k.ID().String()))
		}
		k.Destroy()
	}
	s.keys = kept
	return nil
}

// neededKeys names the keys that a store, a sealed file or something set
// aside needs. It is not sure where a file does not say.
func (s *Storage) neededKeys() (needed map[dek.ID]bool, sure bool, err error) {
	needed = map[dek.ID]bool{}
	for _, r := range s.manifest.Stores {
		needed[r.KeyID] = true
	}
	ids, err := found(s.root)
	if err != nil {
		return nil, false, err
	}
	for _, id := range ids {
		if format := s.detect(id); format == sqlcipher.Plaintext || format == sqlcipher.Empty {
			continue
		}
		key := s.keyOf(id)
		if !s.isOpen(id) {
			key = s.provingKey(id)
		}
		if key.IsZero() {
			return nil, false, nil
		}
		needed[key.ID()] = true
	}
	aside, err := s.quarantined()
	if err != nil {
		return nil, false, err
	}
	for _, q := range aside {
		if q.KeyID.IsZero() && q.Format != sqlcipher.Plaintext.String() {
			return nil, false, nil
		}
		needed[q.KeyID] = true
	}
	files, err := s.sealedFiles()
	if err != nil {
		return nil, false, err
	}
	for _, f := range files {
		id, err := keyIDOf(s.file(f.rel))
		if err != nil {
			return nil, false, nil //nolint:nilerr // it may need any key
		}
		needed[id] = true
	}
	return needed, true, nil
}

// keyIDOf reads the key id in the header of a sealed file.
func keyIDOf(path string) (dek.ID, error) {
	f, _, err := disk.Open(path)
	if err != nil {
		return dek.ID{}, err
	}
	defer func() { _ = f.Close() }() // read only
	return sealed.KeyID(f)
}

// removeLeftovers removes every copy that has not taken its place. One of a
// file that is gone stays: it may be the only one.
func (s *Storage) removeLeftovers() error {
	leftovers, err := s.leftovers()
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range leftovers {
		if s.onlyCopy(path) {
			s.log("storage.copy_left", slog.String("file", filepath.Base(path)))
			continue
		}
		if info, err := os.Lstat(path); err == nil && !info.IsDir() {
			errs = append(errs, s.disk.Remove(path), s.disk.SyncDir(filepath.Dir(path)))
		}
	}
	return errors.Join(errs...)
}

// onlyCopy reports whether a copy under a new key is of a store or a sealed
// file that is not in its place.
func (s *Storage) onlyCopy(path string) bool {
	place, ok := strings.CutSuffix(path, rekeyed)
	if !ok || exists(place) {
		return false
	}
	rel, err := filepath.Rel(s.root, place)
	if err != nil {
		return false
	}
	rel = filepath.ToSlash(rel)
	_, isSealed := labelOf(rel)
	return isSealed || slices.ContainsFunc(slices.Collect(maps.Keys(s.manifest.Stores)), func(id ID) bool { return id.path() == rel })
}
