//go:build linux

package gvisor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
	"osaurus/engine/sandbox/drivertest"
)

// copied is a world of its own, to damage.
func copied(t *testing.T) drivertest.World {
	t.Helper()
	w := drivertest.NewWorld(t)
	dir := filepath.Join(t.TempDir(), "world")
	if err := os.CopyFS(dir, os.DirFS(w.Dir)); err != nil {
		t.Fatal(err)
	}
	return drivertest.World{Dir: dir, Pins: w.Pins}
}

func flipBit(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(path, raw, 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedArtifactsDoNotBoot changes runsc, the index, the manifest and the
// layer by a bit. Nothing is started, and nothing is deleted.
func TestDamagedArtifactsDoNotBoot(t *testing.T) {
	t.Parallel()
	w := copied(t)
	if _, err := w.Store().File(artifact.Runsc, drivertest.Platform); err != nil {
		t.Skip("no runsc: make sandbox builds it: ", err)
	}
	blobs, err := filepath.Glob(filepath.Join(w.Dir, "artifacts", "images", "blobs", "sha256", "*"))
	if err != nil || len(blobs) != 4 {
		t.Fatalf("%d blobs, want index, manifest, configuration and layer: %v", len(blobs), err)
	}
	for _, path := range append(blobs, filepath.Join(w.Dir, "libexec", "osaurus-runsc")) {
		state := t.TempDir()
		d := open(w, state)
		flipBit(t, path)
		if _, err := d.Start(t.Context(), drivertest.NewSpec("", true)); !errors.Is(err, artifact.ErrIntegrity) {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
		for _, dir := range []string{"run", "runsc"} {
			if left, _ := os.ReadDir(filepath.Join(state, dir)); len(left) != 0 {
				t.Errorf("%s: left %v", filepath.Base(path), left)
			}
		}
		flipBit(t, path) // back again: it is still there
	}
	// A runsc that differs is no reason to take another sandbox.
	flipBit(t, filepath.Join(w.Dir, "libexec", "osaurus-runsc"))
	if err := open(w, t.TempDir()).Available(t.Context()); !errors.Is(err, artifact.ErrIntegrity) || errors.Is(err, sandbox.ErrUnavailable) {
		t.Errorf("available: %v", err)
	}
}

func TestUnavailableSaysWhy(t *testing.T) {
	t.Parallel()
	d := New(Options{Artifacts: &artifact.Store{}, Platform: drivertest.Platform, State: t.TempDir()})
	if err := d.Available(t.Context()); !errors.Is(err, sandbox.ErrUnavailable) {
		t.Errorf("no runsc: %v", err)
	}
	for name, c := range map[string]struct {
		driver  Driver
		limited bool
		change  func(*sandbox.Spec)
		text    string
	}{
		"outbound":         {Driver{}, true, func(s *sandbox.Spec) { s.Network = sandbox.NetworkOutbound }, "outbound"},
		"rootless, folder": {Driver{rootless: true}, false, func(s *sandbox.Spec) { s.Workspace = "/x"; s.BestEffortLimits = true }, "workspace"},
		"no limits":        {Driver{}, false, func(*sandbox.Spec) {}, "best-effort"},
	} {
		spec := drivertest.NewSpec("", false)
		c.change(&spec)
		if err := c.driver.check(spec, c.limited); !errors.Is(err, sandbox.ErrUnavailable) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	spec := drivertest.NewSpec("", true)
	spec.Network = sandbox.NetworkProxy
	if err := (&Driver{rootless: true}).check(spec, false); err != nil {
		t.Errorf("a sandbox with best-effort limits: %v", err)
	}
}

func TestLongSocketPathIsRefused(t *testing.T) {
	t.Parallel()
	w := drivertest.NewWorld(t)
	d := open(w, filepath.Join(t.TempDir(), strings.Repeat("long", 25)))
	if d.Available(t.Context()) != nil {
		t.Skip("no runsc: make sandbox builds it")
	}
	if _, err := d.Start(t.Context(), drivertest.NewSpec("", true)); err == nil || !strings.Contains(err.Error(), "choose a shorter home") {
		t.Errorf("got %v", err)
	}
}

func TestMemoryGroup(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		group string
		v2    bool
	}{
		"9:name=systemd:/\n4:memory:/osaurus/a\n0::/\n": {"/osaurus/a", false},
		"0::/osaurus/a\n":                   {"/osaurus/a", true},
		"0::/x\n3:cpu,cpuacct:/osaurus/a\n": {"/x", true},
		"":                                  {"", false},
		"nonsense\n1:cpu:/a\n":              {"", false},
	} {
		group, v2, err := memoryGroup(text)
		if group != want.group || v2 != want.v2 || (err == nil) != (want.group != "") {
			t.Errorf("%q: %q %v %v", text, group, v2, err)
		}
	}
}

func TestLeftNamesOnlyOurs(t *testing.T) {
	t.Parallel()
	bundles, state := t.TempDir(), t.TempDir()
	for _, name := range []string{"osr-a", "other", "osr-B", "osr-"} {
		if err := os.Mkdir(filepath.Join(bundles, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"osr-b_sandbox:osr-b.state", "osr-b_sandbox:osr-b.lock", "runsc-osr-b.sock", "runsc-osr-c.sock", "x_sandbox:x.state", "runsc-x.sock"} {
		if err := os.WriteFile(filepath.Join(state, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ids, err := left(bundles, state)
	if err != nil || strings.Join(ids, " ") != "osr- osr-a osr-b osr-c" {
		t.Errorf("%q, %v", ids, err)
	}
	if err := removeState(state, "osr-b"); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(state); len(names) != 3 {
		t.Errorf("left %v", names)
	}
	if ids, err := left(filepath.Join(bundles, "none"), filepath.Join(state, "none")); err != nil || len(ids) != 0 {
		t.Errorf("no folders: %q, %v", ids, err)
	}
}
