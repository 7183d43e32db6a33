package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"

	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/keystore"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/sealed"
	"osaurus/engine/storage/sqlcipher"
)

// KeyItem names where the storage key lies in the keystore.
const KeyItem = dek.Service + " / " + dek.Account

// Key is what people may know of the storage key.
type Key struct {
	State    KeyState
	ID       dek.ID
	Keystore keystore.Strength // decisions D10
}

// Key returns the state of the storage key.
func (s *Storage) Key() Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := Key{State: s.keyState, Keystore: s.vault.Store.Strength()}
	if s.keyState == KeyReady {
		k.ID = s.keys[0].ID()
	}
	return k
}

// Posture returns how new databases are kept.
func (s *Storage) Posture() Posture {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posture
}

// Prewarm asks the keystore again if it did not answer before, so that the
// first write does not have to. It never asks the owner anything.
func (s *Storage) Prewarm(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keyState == KeyReady || s.closed {
		return s.keyError()
	}
	if err := s.loadKeys(ctx); err != nil {
		return err
	}
	s.loadRecords(ctx)
	if err := s.resume(ctx); err != nil {
		return err
	}
	if err := s.rebuild(); err != nil {
		return err
	}
	return s.keyError()
}

// Keys returns the keys at hand, the current one first, creating the first
// key of a root that never had one. Without a key it fails with
// fault.StorageLocked or fault.StorageKeyMissing and nothing is written. The
// keys belong to Storage.
func (s *Storage) Keys() (sealed.Keys, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ensureKey(context.Background()); err != nil {
		return nil, err
	}
	return s.keys, nil
}

// keyError says why there is no key. The caller holds s.mu.
func (s *Storage) keyError() error {
	switch s.keyState {
	case KeyReady, KeyFresh:
		return nil
	case KeyMissing:
		return fault.StorageKeyMissing
	case KeyLocked:
	}
	return fault.New(fault.StorageLocked, s.keyErr)
}

// load reads the key, the posture and the manifest.
func (s *Storage) load(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reload(ctx)
}

// reload is load for a caller that holds s.mu.
func (s *Storage) reload(ctx context.Context) error {
	if err := s.loadKeys(ctx); err != nil {
		return err
	}
	s.loadRecords(ctx)
	if err := s.resume(ctx); err != nil {
		return err
	}
	return errors.Join(s.adopt(ctx), s.rebuild())
}

// loadKeys asks the keystore. A keystore that has no key is believed only if
// nothing encrypted exists: otherwise the key is missing, and no other is
// ever made. The caller holds s.mu.
func (s *Storage) loadKeys(ctx context.Context) error {
	s.dropKeys()
	current, err := s.vault.Current(ctx)
	if errors.Is(err, fault.KeyNotFound) {
		return s.noKey()
	}
	var others []dek.Key
	if err == nil {
		others, err = s.vault.Others(ctx)
	}
	s.keyState, s.keyErr = KeyReady, err
	if err != nil {
		current.Destroy()
		s.keyState = KeyLocked
		return nil //nolint:nilerr // the state tells it, store by store
	}
	s.keys = append(sealed.Keys{current}, others...)
	return nil
}

// noKey tells a root that never had a key from one whose key is gone. The
// caller holds s.mu.
func (s *Storage) noKey() error {
	encrypted, err := s.encryptedDataExists()
	if err != nil {
		return err
	}
	s.keyState, s.keyErr = KeyFresh, nil
	if encrypted {
		s.keyState = KeyMissing
		s.log("storage.key_missing")
	}
	return nil
}

// ensureKey creates the first key. The caller holds s.mu.
func (s *Storage) ensureKey(ctx context.Context) error {
	if s.keyState != KeyFresh {
		return s.keyError()
	}
	key, err := s.vault.Create(ctx, s.rand)
	if err != nil {
		return fault.New(fault.StorageLocked, err)
	}
	s.keys, s.keyState = sealed.Keys{key}, KeyReady
	s.log("storage.key_created", slog.String("keyId", key.ID().String()))
	return s.adopt(ctx)
}

// postureRecord is the keystore item and its readable copy (decisions D4).
type postureRecord struct {
	Mode    Posture `json:"mode"`
	Version int     `json:"version"`
}

// loadRecords reads the posture and the manifest. The readable copy of the
// posture decides nothing: whoever can write the root must not be able to
// have it decrypted. The caller holds s.mu.
func (s *Storage) loadRecords(ctx context.Context) {
	s.posture = PostureEncrypted
	text, err := s.vault.Posture(ctx)
	var r postureRecord
	if err == nil && json.Unmarshal(text, &r) == nil && r.Mode == PosturePlaintext {
		s.posture = PosturePlaintext
	}
	if err == nil {
		s.mendPostureCopy(text)
	}
	older := errors.Is(err, fault.KeyNotFound) // no host of this kind was here
	s.manifest, err = readManifest(s.file(manifestFile), s.keys)
	s.trusted = err == nil || missing(err) && (s.keyState == KeyFresh || older)
}

// mendPostureCopy reports a readable copy that says something else than the
// record, and writes it again: the record is what counts.
func (s *Storage) mendPostureCopy(record []byte) {
	copied, err := readState(s.file(postureFile))
	if err == nil && bytes.Equal(copied, record) {
		return
	}
	if !missing(err) {
		s.log("storage.posture_copy_differs", slog.String("mode", string(s.posture)))
	}
	_ = s.disk.ReplaceBytes(s.file(postureFile), record) // the next start tries again
}

// adopt records what an older host left, once: with a key but no posture
// record, or with a key just made. From then on a plaintext store that is not
// on record was put there by somebody else. The caller holds s.mu.
func (s *Storage) adopt(ctx context.Context) error {
	if s.keyState != KeyReady {
		return nil
	}
	if _, err := s.vault.Posture(ctx); !errors.Is(err, fault.KeyNotFound) {
		return nil //nolint:nilerr // a keystore that fails now is asked again
	}
	ids, err := found(s.root)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, known := s.manifest.Stores[id]; known || !s.trusted {
			continue
		}
		if format := s.detect(id); format == sqlcipher.Plaintext {
			s.manifest.Stores[id] = row{Path: id.path(), Format: PosturePlaintext, State: rowReady, FirstSeen: s.now().Unix()}
		}
	}
	if err := s.writeManifest(); err != nil {
		return err
	}
	return s.putPosture(ctx, s.posture)
}

// putPosture writes the record, then its readable copy.
func (s *Storage) putPosture(ctx context.Context, p Posture) error {
	text, err := canonjson.Marshal(postureRecord{Mode: p, Version: 1})
	if err != nil {
		return err
	}
	if err := s.vault.PutPosture(ctx, text); err != nil {
		return err
	}
	s.posture = p
	return s.disk.ReplaceBytes(s.file(postureFile), text)
}
