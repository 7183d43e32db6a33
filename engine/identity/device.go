package identity

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"sync"

	"osaurus/engine/fault"
)

// Device is what this machine is called in tokens and key paths. It is a fact
// of the machine: reset and restore keep it.
type Device struct {
	ID       string `json:"id"` // 8 hex digits: the first 4 bytes of SHA-256(key id)
	Name     string `json:"name"`
	Hardware bool   `json:"hardware"`
}

// Hardware is a key in the machine's secure element (App Attest).
type Hardware interface {
	// KeyID returns the id of the key, made on first use. An error that is
	// fault.Unsupported means that this machine has no such key.
	KeyID() (string, error)
	// Assert signs the SHA-256 of a request-token payload.
	Assert(payloadHash [sha256.Size]byte) ([]byte, error)
}

// ErrIndexesUsedUp says that this device has used all 2^32 agent indexes.
var ErrIndexesUsedUp = errors.New("identity: every agent index of this device is used")

// deviceFile is identity/device.json: the device and the counters that must
// never run backwards.
type deviceFile struct {
	Version   int    `json:"version"`
	KeyID     string `json:"key_id"`
	NextIndex uint64 `json:"next_index"`
	NextCount uint64 `json:"next_count"`
	Device
}

// deviceStore guards device.json. Every counter is on disk before it is used.
type deviceStore struct {
	files files
	path  string

	mu    sync.Mutex
	state deviceFile
}

// openDevice reads the device, or makes one on first use.
func openDevice(f files, c AccountConfig) (*deviceStore, error) {
	d := &deviceStore{files: f, path: filepath.Join(c.Dir, "device.json")}
	err := readJSON(d.path, &d.state)
	if errors.Is(err, fs.ErrNotExist) {
		return d, d.create(c)
	}
	if err == nil && (d.state.Version != fileVersion || d.state.ID != deviceID(d.state.KeyID)) {
		err = errCorrupt(d.path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; it holds the counters of this device: restore it from a backup, or move it away to become a new device", err)
	}
	return d, nil
}

func (d *deviceStore) create(c AccountConfig) error {
	keyID, hardware, err := newKeyID(c)
	if err != nil {
		return err
	}
	return d.save(deviceFile{Version: fileVersion, KeyID: keyID, NextCount: 1,
		Device: Device{ID: deviceID(keyID), Name: c.DeviceName, Hardware: hardware}})
}

// newKeyID asks the hardware; without any it draws 32 random bytes in the same
// form, base64 as App Attest gives it.
func newKeyID(c AccountConfig) (keyID string, hardware bool, err error) {
	if c.Hardware != nil {
		keyID, err = c.Hardware.KeyID()
		if !errors.Is(err, fault.Unsupported) {
			return keyID, true, err
		}
	}
	var random [32]byte
	if _, err := io.ReadFull(c.Rand, random[:]); err != nil {
		return "", false, fmt.Errorf("identity: reading randomness: %w", err)
	}
	return base64.StdEncoding.EncodeToString(random[:]), false, nil
}

func deviceID(keyID string) string {
	sum := sha256.Sum256([]byte(keyID))
	return hex.EncodeToString(sum[:deviceIDBytes])
}

func validDeviceID(id string) bool {
	raw, err := hex.DecodeString(id)
	return err == nil && len(raw) == deviceIDBytes && hex.EncodeToString(raw) == id
}

func (d *deviceStore) current() Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.Device
}

func (d *deviceStore) save(next deviceFile) error {
	if err := writeJSON(d.files, d.path, next); err != nil {
		return err
	}
	d.state = next
	return nil
}

// nextIndex returns an index never returned before and not below atLeast.
func (d *deviceStore) nextIndex(atLeast uint64) (uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	index := max(d.state.NextIndex, atLeast)
	if index > math.MaxUint32 {
		return 0, ErrIndexesUsedUp
	}
	next := d.state
	next.NextIndex = index + 1
	if err := d.save(next); err != nil {
		return 0, err
	}
	return uint32(index), nil
}

// nextCount returns the next request-token counter, from 1.
func (d *deviceStore) nextCount() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := d.state
	count := next.NextCount
	next.NextCount++
	if err := d.save(next); err != nil {
		return 0, err
	}
	return count, nil
}
