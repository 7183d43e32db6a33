package identity

import (
	"crypto/sha256"
	"errors"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"osaurus/engine/fault"
)

func TestTheDeviceIsMadeOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.config()
	c.DeviceName = "desk"
	a, err := OpenAccount(c)
	if err != nil {
		t.Fatal(err)
	}
	d := a.Device()
	if !regexp.MustCompile(`^[0-9a-f]{8}$`).MatchString(d.ID) || d.Name != "desk" || d.Hardware {
		t.Errorf("%+v", d)
	}
	if again := w.open(t).Device(); again != d {
		t.Errorf("reopened as %+v", again)
	}
	if other := newWorld(t); other.open(t).Device() != (Device{ID: d.ID}) {
		t.Error("the same randomness gives another id") // the script is deterministic
	}
	info, err := os.Stat(filepath.Join(w.dir, "device.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// fakeHardware stands for App Attest.
type fakeHardware struct {
	id  string
	err error
}

func (h fakeHardware) KeyID() (string, error) { return h.id, h.err }

func (h fakeHardware) Assert(hash [sha256.Size]byte) ([]byte, error) {
	return append([]byte("assertion of "), hash[:]...), h.err
}

func TestHardwareNamesTheDevice(t *testing.T) {
	t.Parallel()
	c := newWorld(t).config()
	c.Hardware = fakeHardware{id: "key-1"}
	a, err := OpenAccount(c)
	if err != nil {
		t.Fatal(err)
	}
	// SHA-256("key-1") begins with these bytes (sha256sum).
	if d := a.Device(); d.ID != "be297454" || !d.Hardware {
		t.Errorf("%+v", d)
	}
}

func TestHardwareThatFails(t *testing.T) {
	t.Parallel()
	c := newWorld(t).config()
	c.Hardware = fakeHardware{err: fault.Unsupported}
	if a, err := OpenAccount(c); err != nil || a.Device().Hardware {
		t.Errorf("without hardware: %v", err)
	}
	c = newWorld(t).config()
	broken := errors.New("enclave is busy")
	c.Hardware = fakeHardware{err: broken}
	if _, err := OpenAccount(c); !errors.Is(err, broken) {
		t.Errorf("got %v: a passing failure must not make a software device for ever", err)
	}
	if _, err := os.Stat(filepath.Join(c.Dir, "device.json")); err == nil {
		t.Error("a device was written")
	}
}

func TestADamagedDeviceFileIsNotReplaced(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "{}", `{"version":1,"id":"a1b2c3d4"}`, `{"version":1,"key_id":"x","id":"A1B2C3D4"}`, `{"version":2,"key_id":"key-1","id":"be297454"}`,
		`{"version":1,"key_id":"key-1","id":"be297454","next_index":-1}`} {
		w := newWorld(t)
		path := filepath.Join(w.dir, "device.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAccount(w.config()); !errors.Is(err, fault.StateCorrupt) {
			t.Errorf("%q: %v", content, err)
		}
		if after, _ := os.ReadFile(path); string(after) != content {
			t.Errorf("%q was overwritten", content)
		}
	}
}

func TestIndexesNeverRepeat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	for _, step := range []struct{ atLeast, want uint64 }{{0, 0}, {0, 1}, {1, 2}, {10, 10}, {3, 11}} {
		if got, err := a.AllocateIndex(step.atLeast); err != nil || uint64(got) != step.want {
			t.Errorf("at least %d: %d, %v; want %d", step.atLeast, got, err, step.want)
		}
		a = w.open(t)
	}
	for _, last := range []uint64{math.MaxUint32 - 1, math.MaxUint32} {
		if got, err := a.AllocateIndex(last); err != nil || uint64(got) != last {
			t.Errorf("index %d: %d, %v", last, got, err)
		}
	}
	if _, err := w.open(t).AllocateIndex(0); !errors.Is(err, ErrIndexesUsedUp) {
		t.Errorf("beyond the last: %v", err)
	}
	if _, err := newWorld(t).open(t).AllocateIndex(math.MaxUint32 + 1); !errors.Is(err, ErrIndexesUsedUp) {
		t.Errorf("asked beyond the last: %v", err)
	}
}

func TestConcurrentAllocation(t *testing.T) {
	t.Parallel()
	a := newWorld(t).open(t)
	var mu sync.Mutex
	seen := map[uint32]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 4 {
				index, err := a.AllocateIndex(0)
				mu.Lock()
				if err != nil || seen[index] {
					t.Errorf("index %d twice, or %v", index, err)
				}
				seen[index] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 32 {
		t.Errorf("%d indexes", len(seen))
	}
}
