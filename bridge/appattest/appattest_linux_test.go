package appattest

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/keystore"
)

// The fake is one for the process, so these tests take turns.

func TestKey(t *testing.T) {
	fake(true, 0)
	defer fake(false, 0)
	path := filepath.Join(t.TempDir(), "key")
	d := New(path)
	if _, err := d.Assert([32]byte{}); err == nil {
		t.Error("asserted without a key")
	}
	id, err := d.KeyID()
	if err != nil || !strings.HasPrefix(id, "key-") {
		t.Fatalf("%q, %v", id, err)
	}
	again, err := New(path).KeyID()
	if err != nil || again != id {
		t.Errorf("the next time it is %q, %v", again, err)
	}
	hash := sha256.Sum256([]byte("payload"))
	if got, err := New(path).Assert(hash); err != nil || string(got) != id+":"+string(hash[:]) {
		t.Errorf("asserts %q, %v", got, err)
	}
	fake(true, 3)
	if _, err := d.Assert(hash); err == nil {
		t.Error("a failure was an assertion")
	}
	if _, err := New(filepath.Join(t.TempDir(), "key")).KeyID(); err == nil {
		t.Error("a failure was a key")
	}
}

func TestDamagedID(t *testing.T) {
	fake(true, 0)
	defer fake(false, 0)
	for _, content := range []string{"", "\n", strings.Repeat("x", maxKeyID+1)} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := New(path).KeyID(); err == nil {
			t.Errorf("%d bytes were read as %q", len(content), id)
		}
		if raw, err := os.ReadFile(path); err != nil || string(raw) != content {
			t.Error("a damaged id was replaced")
		}
	}
}

// TestSoftwareFallback: where App Attest is not offered the account's device
// is a software one; where it is, a hardware one.
func TestSoftwareFallback(t *testing.T) {
	defer fake(false, 0)
	for _, supported := range []bool{false, true} {
		fake(supported, 0)
		dir := t.TempDir()
		d := New(filepath.Join(dir, "key"))
		if _, err := d.KeyID(); errors.Is(err, fault.Unsupported) == supported {
			t.Errorf("supported %v: %v", supported, err)
		}
		a, err := identity.OpenAccount(identity.AccountConfig{Vault: keystore.NewMemory(), Dir: dir, Hardware: d})
		if err != nil {
			t.Fatal(err)
		}
		if a.Device().Hardware != supported || len(a.Device().ID) != 8 {
			t.Errorf("supported %v: the device is %+v", supported, a.Device())
		}
	}
}
