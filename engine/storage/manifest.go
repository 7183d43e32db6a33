package storage

import (
	"crypto/hmac"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"time"

	"osaurus/engine/internal/canonjson"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sealed"
	"osaurus/engine/storage/sqlcipher"
)

// The states of a row. A row is written as creating before its file exists
// and as ready after it does.
const (
	rowCreating = "creating"
	rowReady    = "ready"
	rowLost     = "lost" // the owner chose to start empty
)

// row is what is on record about one store.
type row struct {
	Path      string  `json:"path"`
	Format    Posture `json:"format"`
	KeyID     dek.ID  `json:"key_id"`
	State     string  `json:"state"`
	FirstSeen int64   `json:"first_seen"`
}

// manifest is the record of all stores (decisions D5). It holds no secret;
// its MAC keeps others from adding a plaintext store to it.
type manifest struct {
	V      int        `json:"v"`
	KeyID  dek.ID     `json:"key_id"`
	Stores map[ID]row `json:"stores"`
	MAC    string     `json:"mac,omitempty"`
}

func newRow(id ID, now time.Time) row { return row{Path: id.path(), FirstSeen: now.Unix()} }

const manifestVersion = 1

// maxState bounds the small state files read from the root.
const maxState = 4 << 20

// errManifest says that the manifest is there and does not verify.
var errManifest = errors.New("storage: the manifest does not verify")

func newManifest() manifest { return manifest{V: manifestVersion, Stores: map[ID]row{}} }

func (m manifest) mac(key dek.Key) (string, error) {
	text, err := canonjson.Marshal(m)
	if err != nil {
		return "", err
	}
	return manifestMAC(text, key)
}

func manifestMAC(text []byte, key dek.Key) (string, error) {
	macKey := key.Manifest()
	defer macKey.Destroy()
	return macOf(text, macKey, "mac")
}

// write seals m under key and replaces the file.
func (m manifest) write(d disk.Disk, path string, key dek.Key) error {
	m.KeyID = key.ID()
	var err error
	if m.MAC, err = m.mac(key); err != nil {
		return err
	}
	text, err := canonjson.Marshal(m)
	if err != nil {
		return err
	}
	return d.ReplaceBytes(path, text)
}

// readManifest reads the rows and says whether one of keys proves them. The
// rows of a manifest that does not verify are returned with errManifest: they
// may only be used to refuse. A missing one is fs.ErrNotExist.
func readManifest(path string, keys sealed.Keys) (manifest, error) {
	text, err := readState(path)
	if err != nil {
		return newManifest(), err
	}
	m := newManifest()
	if err := canonjson.Unmarshal(text, &m); err != nil || m.V != manifestVersion || m.Stores == nil {
		return newManifest(), errManifest
	}
	for _, key := range keys {
		if want, err := manifestMAC(text, key); err == nil && hmac.Equal([]byte(want), []byte(m.MAC)) {
			return m, nil
		}
	}
	return m, errManifest
}

// readState reads a small file of ours, never through a link.
func readState(path string) ([]byte, error) { return readBounded(path, maxState) }

func readBounded(path string, limit int64) ([]byte, error) {
	f, info, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	if info.Size() > limit {
		return nil, fmt.Errorf("storage: %s is too large", filepath.Base(path))
	}
	text := make([]byte, info.Size())
	if _, err := f.ReadAt(text, 0); err != nil && info.Size() > 0 {
		return nil, err
	}
	return text, nil
}

// record changes one row and writes the manifest. The caller holds s.mu.
func (s *Storage) record(id ID, change func(*row)) error {
	proved := s.trusted
	if err := s.distrust(); err != nil {
		return err
	}
	r, known := s.manifest.Stores[id]
	if !known {
		r = newRow(id, s.now())
	}
	change(&r)
	if known && proved && r == s.manifest.Stores[id] {
		return nil
	}
	s.manifest.Stores[id] = r
	return s.writeManifest()
}

// writeManifest needs a key: without one nothing is encrypted and there is
// nothing to prove.
func (s *Storage) writeManifest() error {
	if s.keyState != KeyReady {
		return nil
	}
	if err := s.distrust(); err != nil {
		return err
	}
	return s.manifest.write(s.disk, s.file(manifestFile), s.keys[0])
}

// rebuild writes a manifest anew that is gone or was changed, once. One that
// names a key nobody has here may be right, and stays. The caller holds s.mu.
func (s *Storage) rebuild() error {
	id := s.manifest.KeyID
	if s.trusted || s.keyState != KeyReady || !id.IsZero() && s.keyByID(id).IsZero() {
		return nil
	}
	s.log("storage.manifest_rebuilt")
	return s.writeManifest()
}

// distrust goes before the first write of a manifest that proved nothing
// (decisions D5). Each store that opens with a key at hand is put on record.
// Each plaintext one that lies here now is put on record as one that was
// encrypted, so that only the owner's word lets it in, also after the next
// start. What else it said of stores here still serves to refuse them. The
// caller holds s.mu.
func (s *Storage) distrust() error {
	if s.trusted || s.keyState != KeyReady {
		return nil
	}
	ids, err := found(s.root)
	if err != nil {
		return err
	}
	maps.DeleteFunc(s.manifest.Stores, func(id ID, _ row) bool { return id.path() == "" })
	for _, id := range ids {
		var key dek.Key
		switch format := s.detect(id); {
		case format == sqlcipher.Plaintext && s.posture == PostureEncrypted:
			key = s.keys[0]
		case format == sqlcipher.Encrypted && !s.isOpen(id):
			key = s.provingKey(id)
		}
		if !key.IsZero() {
			s.manifest.Stores[id] = row{Path: id.path(), Format: PostureEncrypted, KeyID: key.ID(), State: rowReady, FirstSeen: s.now().Unix()}
		}
	}
	s.trusted = true
	return nil
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
