package bridge_test

import (
	"errors"
	"testing"

	"osaurus/bridge"
	"osaurus/engine/sandbox"
)

// TestNoOtherDriverTakesItsPlace asks for drivers by name.
func TestNoOtherDriverTakesItsPlace(t *testing.T) {
	t.Parallel()
	own, err := bridge.SandboxDriver("", t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	same, err := bridge.SandboxDriver(own.Name(), t.TempDir(), t.TempDir())
	if err != nil || same.Name() != own.Name() {
		t.Errorf("asked for %s: %v, %v", own.Name(), same, err)
	}
	// Nothing was built or fetched here.
	if err := own.Available(t.Context()); !errors.Is(err, sandbox.ErrUnavailable) {
		t.Errorf("without its program: %v", err)
	}
	// A host has its system's own first, and knows nothing else than these.
	all := bridge.SandboxDrivers(t.TempDir(), t.TempDir())
	if len(all) == 0 || all[0].Name() != own.Name() {
		t.Errorf("%d drivers, the first is not %s", len(all), own.Name())
	}
	if bridge.Default().Sandbox == nil || bridge.Portable().Sandbox != nil {
		t.Error("sandboxes are of this system alone")
	}
	for _, name := range []string{"docker", "none", "GVISOR"} {
		if _, err := bridge.SandboxDriver(name, t.TempDir(), t.TempDir()); !errors.Is(err, sandbox.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
