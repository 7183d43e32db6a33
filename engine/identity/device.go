package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
)

// Device is what this machine is called in tokens and key paths. It is a fact
// of the machine: reset and restore keep it.
type Device struct {
	ID       string `json:"id"` // 8 hex digits: the first 4 bytes of SHA-256(key id)
	Name     string `json:"name"`
	Hardware bool   `json:"hardware"`
}

// ErrIndexesUsedUp says that this device has minted 2^32-1 agent keys.
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
	path string

	mu    sync.Mutex
	state deviceFile
}

// openDevice reads the device, or makes a software one: a random key id with
// the same id format as App Attest gives.
func openDevice(dir, name string, rand io.Reader) (*deviceStore, error) {
	d := &deviceStore{path: filepath.Join(dir, "device.json")}
	raw, err := os.ReadFile(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, d.create(name, rand)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &d.state); err != nil || d.state.Version != 1 || !validDeviceID(d.state.ID) {
		return nil, fault.New(fault.StateCorrupt, fmt.Errorf("%s does not parse; it holds the counters of this device, restore it from a backup", d.path))
	}
	return d, nil
}

func (d *deviceStore) create(name string, rand io.Reader) error {
	var keyID [32]byte
	if _, err := io.ReadFull(rand, keyID[:]); err != nil {
		return err
	}
	sum := sha256.Sum256(keyID[:])
	d.state = deviceFile{Version: 1, KeyID: hex.EncodeToString(keyID[:]), NextCount: 1,
		Device: Device{ID: hex.EncodeToString(sum[:4]), Name: name}}
	return d.save(d.state)
}

func (d *deviceStore) save(next deviceFile) error {
	raw, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(d.path, append(raw, '\n')); err != nil {
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

// nextCount returns the next request-token counter.
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

func validDeviceID(id string) bool {
	raw, err := hex.DecodeString(id)
	return err == nil && len(raw) == 4 && hex.EncodeToString(raw) == id
}
