//go:build linux

package qemu

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
	"osaurus/engine/sandbox/drivertest"
)

// virtio lists Debian's modules for the serial port, each after what it needs.
var virtio = []string{
	"drivers/virtio/virtio.ko", "drivers/virtio/virtio_ring.ko", "drivers/virtio/virtio_pci_modern_dev.ko",
	"drivers/virtio/virtio_pci_legacy_dev.ko", "drivers/virtio/virtio_pci.ko", "drivers/char/virtio_console.ko",
}

// debian finds the kernel that the suites unpacked. Its hashes are those of
// what apt verified.
func debian() (*Kernel, error) {
	dir := os.Getenv("OSAURUS_TEST_KERNEL")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "build", "kernel")
	}
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, errors.New("no kernel in build/kernel: go run ./scripts/suites -only kernel fetches it")
	}
	abs, err := filepath.Abs(images[0])
	if err != nil {
		return nil, err
	}
	version := filepath.Base(abs)[len("vmlinuz-"):]
	k := &Kernel{}
	if k.Image, err = hashed(abs); err != nil {
		return nil, err
	}
	for _, m := range virtio {
		p, err := hashed(filepath.Join(filepath.Dir(abs), "..", "lib", "modules", version, "kernel", m))
		if err != nil {
			return nil, err
		}
		k.Modules = append(k.Modules, p)
	}
	return k, nil
}

func hashed(path string) (Pinned, error) {
	raw, err := os.ReadFile(path)
	sum := sha256.Sum256(raw)
	return Pinned{path, hex.EncodeToString(sum[:])}, err
}

func with(k *Kernel) func(drivertest.World, string) sandbox.Driver {
	return func(w drivertest.World, state string) sandbox.Driver {
		return New(Options{Program: "qemu-system-x86_64", Artifacts: w.Store(), Platform: drivertest.Platform, Kernel: k, State: state})
	}
}

// open is with Debian's kernel; without one nothing is available.
func open(w drivertest.World, state string) sandbox.Driver {
	k, err := debian()
	if err != nil {
		k = nil
	}
	return with(k)(w, state)
}

func TestMain(m *testing.M) { drivertest.Main(m, open) }

func pid(t testing.TB, s sandbox.Sandbox) int {
	t.Helper()
	vm, ok := s.(*Sandbox)
	if !ok {
		t.Fatal("not ours")
	}
	return vm.cmd.Process.Pid
}

func kernelOrSkip(t *testing.T) *Kernel {
	t.Helper()
	if drivertest.Platform != "linux/amd64" {
		t.Skip("the machine of these tests is amd64")
	}
	k, err := debian()
	if err != nil {
		t.Skip(err)
	}
	return k
}

func TestEmulated(t *testing.T) {
	t.Parallel()
	kernelOrSkip(t)
	drivertest.Run(t, drivertest.Subject{Open: open, Transport: portDevice, PID: pid, Limited: true})
}

// TestService is the bridge from inside an emulated machine, as far as its
// speed allows.
func TestService(t *testing.T) {
	t.Parallel()
	kernelOrSkip(t)
	drivertest.RunService(t, drivertest.Subject{Open: open, Limited: true}, true, true)
}

// TestDamagedKernelDoesNotBoot changes kernel and modules by a bit: nothing is
// started, and the file stays.
func TestDamagedKernelDoesNotBoot(t *testing.T) {
	t.Parallel()
	good := kernelOrSkip(t)
	w := drivertest.NewWorld(t)
	damage := func(p Pinned) Pinned {
		raw, err := os.ReadFile(p.Path)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 1
		path := filepath.Join(t.TempDir(), filepath.Base(p.Path))
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return Pinned{path, p.SHA256}
	}
	for name, k := range map[string]*Kernel{
		"kernel":         {damage(good.Image), good.Modules},
		"module":         {good.Image, []Pinned{good.Modules[0], damage(good.Modules[1])}},
		"malformed hash": {Pinned{good.Image.Path, "abc"}, nil},
	} {
		state := t.TempDir()
		d := with(k)(w, state)
		if err := d.Available(t.Context()); !errors.Is(err, artifact.ErrIntegrity) || errors.Is(err, sandbox.ErrUnavailable) {
			t.Errorf("%s: available: %v", name, err)
		}
		if _, err := d.Start(t.Context(), drivertest.NewSpec("", false)); !errors.Is(err, artifact.ErrIntegrity) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(filepath.Join(state, "qemu")); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
		if _, err := os.Stat(k.Image.Path); err != nil {
			t.Errorf("%s: the file was deleted", name)
		}
	}
}

// TestPinnedKernel takes kernel and modules from the store, as a host does.
func TestPinnedKernel(t *testing.T) {
	t.Parallel()
	libexec := t.TempDir()
	var modules bytes.Buffer
	w := tar.NewWriter(&modules)
	for _, name := range []string{"virtio/b.ko", "char/a.ko"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: 1, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	store := &artifact.Store{Libexec: libexec}
	for name, content := range map[string][]byte{artifact.Kernel: []byte("kernel"), artifact.Modules: modules.Bytes()} {
		path := filepath.Join(libexec, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := hashed(path)
		if err != nil {
			t.Fatal(err)
		}
		store.Pins = append(store.Pins, artifact.Pin{Name: name, Platform: drivertest.Platform, Kind: artifact.File, URLs: []string{"libexec/" + name}, SHA256: p.SHA256, MaxBytes: 1 << 20})
	}
	d := New(Options{Program: "true", Artifacts: store, Platform: drivertest.Platform})
	if err := d.Available(t.Context()); err != nil {
		t.Fatal(err)
	}
	k, err := d.kernel()
	if err != nil || string(k.image) != "kernel" || len(k.modules) != 2 || k.modules[0].Name != "b.ko" || k.modules[1].Name != "a.ko" {
		t.Errorf("%q %v %v", k.image, k.modules, err)
	}
	if err := os.WriteFile(filepath.Join(libexec, artifact.Modules), []byte("evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Available(t.Context()); !errors.Is(err, artifact.ErrIntegrity) {
		t.Errorf("damaged modules: %v", err)
	}
}

func TestUnavailableSaysWhy(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"no program": {Program: "no-such-qemu"},
		"no kernel":  {Program: "true", Artifacts: &artifact.Store{}},
		"fails":      {Program: "false", Artifacts: &artifact.Store{}},
	} {
		if err := New(o).Available(t.Context()); !errors.Is(err, sandbox.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
