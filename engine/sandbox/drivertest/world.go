// Package drivertest is the conformance suite of sandbox drivers: what has to
// hold whatever runs the sandbox. A driver's tests call Run, and Main from
// TestMain.
package drivertest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"osaurus/engine/sandbox/artifact"
	"osaurus/engine/sandbox/image"
)

// World is a folder with everything drivers need, made once for a test binary:
// a small image, pushed to a registry in this process and pulled by digest.
type World struct {
	Dir     string
	Pins    artifact.Pins
	libexec string // "" is below Dir
}

// Platform is that of guests that this machine runs.
const Platform = "linux/" + runtime.GOARCH

// Store opens the artifacts of a world.
func (w World) Store() *artifact.Store {
	libexec := w.libexec
	if libexec == "" {
		libexec = filepath.Join(w.Dir, "libexec")
	}
	return &artifact.Store{Dir: filepath.Join(w.Dir, "artifacts"), Libexec: libexec, Pins: w.Pins}
}

var (
	world     = sync.OnceValues(makeWorld)
	realWorld = sync.OnceValues(makeRealWorld)
)

// NewWorld returns the world of this test binary.
func NewWorld(t testing.TB) World {
	t.Helper()
	return orSkip(t, world)
}

// NewRealWorld returns one whose image has the programs that ship, beside the
// stand-in's world.
func NewRealWorld(t testing.TB) World {
	t.Helper()
	return orSkip(t, realWorld)
}

func orSkip(t testing.TB, of func() (World, error)) World {
	t.Helper()
	w, err := of()
	if skip, ok := errors.AsType[missing](err); ok {
		t.Skip(string(skip))
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// missing is what the machine lacks, as the reason of a skip.
type missing string

func (m missing) Error() string { return string(m) }

// Busybox is where Debian's busybox-static puts it.
const Busybox = "/bin/busybox"

func makeWorld() (w World, err error) {
	if *worldDir != "" { // another process of this test made it
		w.Dir = *worldDir
		return w, w.readPins()
	}
	busybox, err := os.ReadFile(Busybox)
	if err != nil {
		return w, missing("no " + Busybox + ": install busybox-static")
	}
	if w.Dir, err = os.MkdirTemp("", "osrw"); err != nil {
		return w, err
	}
	made = w.Dir
	standin, err := buildGuest(w.Dir, "osaurus/engine/sandbox/drivertest/standin")
	if err != nil {
		return w, err
	}
	if err := w.put(image.Rootfs(image.Parts{Busybox: busybox, Applets: Applets, Guest: standin, Host: standin})); err != nil {
		return w, err
	}
	return w, w.addRunsc()
}

// realDir is the real world's folder in the stand-in's.
const realDir = "real"

func makeRealWorld() (w World, err error) {
	below, err := world()
	if err != nil {
		return w, err
	}
	w.Dir, w.libexec = filepath.Join(below.Dir, realDir), filepath.Join(below.Dir, "libexec")
	if *worldDir != "" {
		return w, w.readPins()
	}
	if err := os.Mkdir(w.Dir, 0o700); err != nil {
		return w, err
	}
	p := image.Parts{Applets: append(strings.Fields("env gzip sed seq setsid tar tr wget"), Applets...)}
	if p.Busybox, err = os.ReadFile(Busybox); err != nil {
		return w, err
	}
	if p.Guest, err = buildGuest(w.Dir, "osaurus/app/osaurus-guest"); err != nil {
		return w, err
	}
	if p.Host, err = buildGuest(w.Dir, "osaurus/app/osaurus-host"); err != nil {
		return w, err
	}
	probe, err := buildGuest(w.Dir, "osaurus/engine/sandbox/drivertest/probe")
	if err != nil {
		return w, err
	}
	if err := w.put(append(image.Rootfs(p), image.Entry{Name: "usr/local/bin/probe", Mode: 0o755, Body: probe})); err != nil {
		return w, err
	}
	for _, pin := range below.Pins {
		if pin.Name != artifact.SandboxImage {
			w.Pins = append(w.Pins, pin)
		}
	}
	return w, w.writePins()
}

func (w *World) readPins() error {
	raw, err := os.ReadFile(filepath.Join(w.Dir, "pins.json"))
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, &w.Pins)
}

func (w *World) writePins() error {
	raw, err := json.Marshal(w.Pins)
	return errors.Join(err, os.WriteFile(filepath.Join(w.Dir, "pins.json"), raw, 0o600))
}

// put builds an image and has it pulled.
func (w *World) put(root []image.Entry) error {
	ix, err := image.Build(Platform, root)
	if err != nil {
		return err
	}
	if err := ix.Write(filepath.Join(w.Dir, "built")); err != nil {
		return err
	}
	return w.pull(ix.Digest)
}

// Applets are the commands of the image the suite uses.
var Applets = strings.Fields("[ cat chmod chown cp dd echo false grep head id ip kill ln ls mkdir mknod mount mv nc ps rm sh sleep stat test touch true wc")

// buildGuest compiles a program of the image.
func buildGuest(dir, program string) ([]byte, error) {
	out := filepath.Join(dir, filepath.Base(program))
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.New(string(text))
	}
	return os.ReadFile(out)
}

// pull takes the built image through a registry and back by its digest.
func (w *World) pull(digest string) error {
	p, err := layout.FromPath(filepath.Join(w.Dir, "built"))
	if err != nil {
		return err
	}
	root, err := p.ImageIndex()
	if err != nil {
		return err
	}
	ix, err := root.ImageIndex(v1.Hash{Algorithm: "sha256", Hex: digest})
	if err != nil {
		return err
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	repository := strings.TrimPrefix(server.URL, "http://") + "/sandbox"
	tag, err := name.NewTag(repository+":test", name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.WriteIndex(tag, ix, remote.WithTransport(transport)); err != nil {
		return err
	}
	pin := artifact.Pin{
		Name: artifact.SandboxImage, Platform: Platform, Kind: artifact.Index,
		Reference: repository + "@sha256:" + digest, SHA256: digest, MaxBytes: 64 << 20, Note: "test",
	}
	w.Pins = append(w.Pins, pin)
	store := w.Store()
	store.Network = artifact.Network{Transport: transport, Insecure: true}
	return store.Pull(context.Background(), pin)
}

// addRunsc copies the runsc of this tree, if it was built, so that any user
// may run it. Whether it is the pinned one is for the driver to find out.
func (w *World) addRunsc() error {
	pins, err := artifact.Embedded()
	if err != nil {
		return err
	}
	if pin, err := pins.Find(artifact.Runsc, Platform); err == nil {
		w.Pins = append(w.Pins, pin)
	}
	libexec := filepath.Join(w.Dir, "libexec")
	if err := os.MkdirAll(libexec, 0o700); err != nil {
		return err
	}
	program, err := os.ReadFile(filepath.Join(root(), "build", "libexec", "osaurus-runsc"))
	if err == nil {
		err = os.WriteFile(filepath.Join(libexec, "osaurus-runsc"), program, 0o700)
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, w.writePins())
}

// root is the top of the module.
func root() string {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

// made is what Main removes.
var made string
