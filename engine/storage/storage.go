// Package storage keeps chats, memory and credentials encrypted on disk. It
// is the one place that opens a store: by what lies on disk, with the key
// from the keystore, recorded in a manifest, and behind a gate that
// operations over all stores close. It never loses data to a missing key: a
// store that cannot be opened stays as it is and says why.
//
// The caller holds the process lock on the root (.storage.lock).
package storage

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/storage/blob"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sealed"
	"osaurus/engine/storage/sqlcipher"
)

// Config says where the stores are and what they need. Only Root and Keystore
// must be set.
type Config struct {
	Root     string
	Keystore keystore.Store
	Engine   sqlcipher.Engine // go-sqlcipher when nil
	Disk     disk.Disk
	Now      func() time.Time
	Rand     io.Reader
	Log      func(event string, attrs ...slog.Attr) // security events
}

// Storage is all stores under one root. It is safe for concurrent use.
type Storage struct {
	root   string
	vault  dek.Vault
	engine sqlcipher.Engine
	disk   disk.Disk
	now    func() time.Time
	rand   io.Reader
	log    func(string, ...slog.Attr)
	gate   *gate

	mu       sync.Mutex // guards what follows; never held while a store is used
	keyState KeyState
	keyErr   error       // why the key is locked
	keys     sealed.Keys // the current one first, then those older files need
	posture  Posture
	manifest manifest
	trusted  bool // see situation.trusted
	stores   map[ID]*Store
	issues   map[ID]Issue
	records  map[string]recordIssue // the records that cannot be read
	closed   bool

	inUse sync.Map // ID to sqlcipher.Format: the databases this process has open

	// running is what there was before the operation that runs now, which
	// may hold mu for long.
	running atomic.Pointer[Status]
}

// Open finds out what there is: the key, the posture and the manifest. It
// succeeds without a key: stores that need it are refused one by one.
func Open(ctx context.Context, c Config) (*Storage, error) {
	s := &Storage{
		root: c.Root, vault: dek.Vault{Store: c.Keystore}, engine: c.Engine, disk: c.Disk, now: c.Now, rand: c.Rand, log: c.Log,
		gate: newGate(), posture: PostureEncrypted, manifest: newManifest(), stores: map[ID]*Store{}, issues: map[ID]Issue{}, records: map[string]recordIssue{},
	}
	if s.engine == nil {
		s.engine = sqlcipher.Driver{Disk: c.Disk}
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = func(string, ...slog.Attr) {}
	}
	if err := s.prepareRoot(); err != nil {
		return nil, err
	}
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	return s, s.sweepExport()
}

// prepareRoot makes the root or repairs its mode; a link is refused.
func (s *Storage) prepareRoot() error {
	if err := s.disk.MkdirAll(s.root); err != nil {
		return err
	}
	info, err := os.Lstat(s.root)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fault.StoreUnsafePath
	}
	if info.Mode().Perm() != atomicfile.DirMode {
		return os.Chmod(s.root, atomicfile.DirMode)
	}
	return nil
}

func (s *Storage) file(rel string) string { return filepath.Join(s.root, filepath.FromSlash(rel)) }

// Close closes every store and forgets the keys.
func (s *Storage) Close() error {
	err := s.closeStores()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.dropKeys()
	s.keyState, s.keyErr = KeyLocked, fault.KeystoreLocked
	return err
}

func (s *Storage) dropKeys() {
	for _, k := range s.keys {
		k.Destroy()
	}
	s.keys = nil
}

// closeStores closes all databases; each opens again at its next use.
func (s *Storage) closeStores() error {
	s.mu.Lock()
	stores := make([]*Store, 0, len(s.stores))
	for _, st := range s.stores {
		stores = append(stores, st)
	}
	s.mu.Unlock()
	var errs []error
	for _, st := range stores {
		errs = append(errs, st.close())
	}
	return errors.Join(errs...)
}

// Blobs is the folder of attachments.
func (s *Storage) Blobs() *blob.Store {
	return &blob.Store{Dir: s.file(blobsDir), Keys: s.Keys, Disk: s.disk}
}
