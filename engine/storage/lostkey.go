package storage

import (
	"context"
	"errors"
	"io"
	"slices"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/sealed"
	"osaurus/engine/storage/sqlcipher"
)

var (
	errNotLost = fault.WithText(fault.Usage, "the storage key is not missing")
	errNoSalt  = fault.WithText(fault.Usage, "the storage key was not derived from the identity: no salt lies beside the data")
	errNotKey  = fault.WithText(fault.StorageKeyMissing, "this identity does not give the key of what is stored here")
)

// RestoreKey brings back a key that was derived from the identity, for a root
// whose keystore lost it: master and the salt beside the data give it again
// (storage.md section 4). It is taken only if it proves to be the key of what
// is here.
func (s *Storage) RestoreKey(ctx context.Context, master secret.Bytes) error {
	return s.exclusive(ctx, "restore-key", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.keyState != KeyMissing {
			return errNotLost
		}
		salt, err := readState(s.file(saltFile))
		if err != nil || len(salt) != dek.SaltSize {
			return errNoSalt
		}
		key, err := dek.Derive(master, salt)
		if err != nil {
			return err
		}
		defer key.Destroy()
		if !s.proves(ctx, key) {
			return errNotKey
		}
		if err := errors.Join(s.vault.PutSalt(ctx, secret.New(slices.Clone(salt))), s.vault.Install(ctx, key)); err != nil {
			return err
		}
		clear(s.issues)
		s.log("storage.key_restored")
		return s.reload(ctx)
	})
}

// proves reports whether key is that of the manifest, a sealed file or a
// database. The caller holds s.mu, and no database is open.
func (s *Storage) proves(ctx context.Context, key dek.Key) bool {
	if _, err := readManifest(s.file(manifestFile), sealed.Keys{key}); err == nil {
		return true
	}
	files, _ := s.sealedFiles() //nolint:errcheck // those that were found may prove it
	for _, f := range files {
		if _, _, err := sealed.CopyFile(io.Discard, s.file(f.rel), sealed.Keys{key}, f.label); err == nil {
			return true
		}
	}
	ids, _ := found(s.root) //nolint:errcheck // the same
	for _, id := range ids {
		if s.detect(id) != sqlcipher.Encrypted {
			continue
		}
		f := sqlcipher.File{Path: s.file(id.path()), Key: key}
		if s.shed(f) != nil {
			continue
		}
		if db, err := s.engine.Open(ctx, f, sqlcipher.Options{}); err == nil {
			return db.Abandon() == nil
		}
	}
	return false
}

// StartOver is the way on when a key is lost for good: by the owner's word
// alone, everything it was needed for is set aside, and a new key is made. The
// key comes last, so a start over that was cut off is asked for again. Nothing
// is deleted: with its keystore, what was set aside opens again. It returns
// how many files were set aside.
func (s *Storage) StartOver(ctx context.Context) (moved int, err error) {
	err = s.exclusive(ctx, "start-over", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.keyState != KeyMissing {
			return errNotLost
		}
		if moved, err = s.setAllAside(ctx); err != nil {
			return err
		}
		key, err := s.vault.Create(ctx, s.rand)
		if err != nil {
			return err
		}
		s.keys, s.keyState, s.manifest, s.trusted = sealed.Keys{key}, KeyReady, newManifest(), false
		clear(s.issues)
		s.log("storage.started_over")
		return errors.Join(s.writeManifest(), s.putPosture(ctx, s.posture))
	})
	return moved, err
}

// setAllAside moves away every file that may need the lost key, and the
// records that speak of it. The caller holds s.mu.
func (s *Storage) setAllAside(ctx context.Context) (moved int, err error) {
	const reason = "its key is lost; the owner started over"
	move := func(id ID, rel string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		folder, err := s.moveAside(id, rel, reason)
		if err == nil && folder != "" {
			moved++
		}
		return err
	}
	ids, err := found(s.root)
	if err != nil {
		return moved, err
	}
	for _, id := range ids {
		if s.detect(id) == sqlcipher.Plaintext {
			continue
		}
		if err := move(id, id.path()); err != nil {
			return moved, err
		}
	}
	files, err := s.sealedFiles()
	if err != nil {
		return moved, err
	}
	for _, f := range files {
		if err := move("", f.rel); err != nil {
			return moved, err
		}
	}
	for _, rel := range []string{journalFile, saltFile, provisioned, manifestFile} {
		if err := move("", rel); err != nil {
			return moved, err
		}
	}
	return moved, nil
}
