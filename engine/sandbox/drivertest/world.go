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
	Dir  string
	Pins artifact.Pins
}

// Platform is that of guests that this machine runs.
const Platform = "linux/" + runtime.GOARCH

// Store opens the artifacts of a world.
func (w World) Store() *artifact.Store {
	return &artifact.Store{Dir: filepath.Join(w.Dir, "artifacts"), Libexec: filepath.Join(w.Dir, "libexec"), Pins: w.Pins}
}

var world = sync.OnceValues(makeWorld)

// NewWorld returns the world of this test binary.
func NewWorld(t testing.TB) World {
	t.Helper()
	w, err := world()
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
		raw, err := os.ReadFile(filepath.Join(w.Dir, "pins.json"))
		if err != nil {
			return w, err
		}
		return w, json.Unmarshal(raw, &w.Pins)
	}
	busybox, err := os.ReadFile(Busybox)
	if err != nil {
		return w, missing("no " + Busybox + ": install busybox-static")
	}
	if w.Dir, err = os.MkdirTemp("", "osrw"); err != nil {
		return w, err
	}
	made = w.Dir
	standin, err := buildStandin(w.Dir)
	if err != nil {
		return w, err
	}
	ix, err := image.Build(Platform, image.Rootfs(image.Parts{Busybox: busybox, Applets: Applets, Guest: standin, Host: standin}))
	if err != nil {
		return w, err
	}
	if err := ix.Write(filepath.Join(w.Dir, "built")); err != nil {
		return w, err
	}
	if err := w.pull(ix.Digest); err != nil {
		return w, err
	}
	return w, w.addRunsc()
}

// Applets are the commands of the image the suite uses.
var Applets = strings.Fields("[ cat chmod chown cp dd echo false grep head id ip kill ln ls mkdir mknod mount mv nc ps rm sh sleep stat test touch true wc")

// buildStandin compiles the first process of the image.
func buildStandin(dir string) ([]byte, error) {
	out := filepath.Join(dir, "standin")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, "osaurus/engine/sandbox/drivertest/standin")
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
	raw, jsonErr := json.Marshal(w.Pins)
	return errors.Join(err, jsonErr, os.WriteFile(filepath.Join(w.Dir, "pins.json"), raw, 0o600))
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
