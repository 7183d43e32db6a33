package secretservice

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	service "github.com/keybase/go-keychain/secretservice"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/keystore/keystoretest"
	"osaurus/engine/secret"
)

// inside says that this process was started in a session of its own.
var inside = flag.Bool("secretservice.inside", false, "this process has a session bus and a keyring of its own")

// session runs the named test once more, in a process with a session bus, a
// home and a keyring of its own.
func session(t *testing.T) {
	t.Helper()
	for program, pkg := range map[string]string{"gnome-keyring-daemon": "gnome-keyring", "dbus-daemon": "dbus", "dbus-run-session": "dbus-daemon"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s (Debian package %s)", program, pkg)
		}
	}
	home, runtime := t.TempDir(), t.TempDir()
	if err := os.Chmod(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "dbus-run-session", "--", os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$", "-secretservice.inside")
	cmd.Env = []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + runtime, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// keyring starts a daemon with this password and waits until it serves; the
// bus would start a second one for whoever asks too early.
func keyring(t *testing.T, password string) (stop func()) {
	t.Helper()
	cmd := exec.Command("gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
	cmd.Stdin = strings.NewReader(password)
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	conn, err := dbus.ConnectSessionBus()
	if err != nil {
		t.Fatal(err)
	}
	changes := make(chan *dbus.Signal, 16)
	conn.Signal(changes)
	if err := conn.AddMatchSignal(dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, service.SecretServiceInterface)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, changes, true)
	return func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was ended
		await(t, changes, false)
		_ = conn.Close()
	}
}

// await waits until the service has an owner, or none.
func await(t *testing.T, changes <-chan *dbus.Signal, owned bool) {
	t.Helper()
	late := time.After(time.Minute)
	for {
		select {
		case s := <-changes:
			if s.Name == "org.freedesktop.DBus.NameOwnerChanged" && (s.Body[2] != "") == owned {
				return
			}
		case <-late:
			t.Fatalf("the keyring does not come or go; wanted: %v", owned)
		}
	}
}

func open(t *testing.T, home string) *Store {
	t.Helper()
	s, err := Open(t.Context(), home)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestKeyring runs the suite against a real gnome-keyring.
func TestKeyring(t *testing.T) {
	if !*inside {
		t.Parallel()
		session(t)
		return
	}
	defer keyring(t, "login password")()
	n := 0
	keystoretest.Run(t, func(t *testing.T) (keystore.Store, func() keystore.Store) {
		n++
		home := fmt.Sprint("home-", n)
		again := func() keystore.Store { return open(t, home) }
		return again(), again
	})
}

// TestSessions: what a session stored, the next one finds, with the same
// password only; and one home does not see another one's items.
func TestSessions(t *testing.T) {
	if !*inside {
		t.Parallel()
		session(t)
		return
	}
	ctx := t.Context()
	stop := keyring(t, "right")
	one, two := open(t, "one"), open(t, "two")
	if err := one.Put(ctx, "s", "a", secret.New([]byte("kept"))); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Get(ctx, "s", "a"); !errors.Is(err, fault.KeyNotFound) {
		t.Errorf("another home's item: %v", err)
	}
	if list, err := two.List(ctx, "s"); err != nil || len(list) != 0 {
		t.Errorf("another home lists %q, %v", list, err)
	}
	stop()
	if _, err := one.Get(ctx, "s", "a"); !errors.Is(err, fault.KeystoreLocked) {
		t.Errorf("without a service: %v", err)
	}

	stop = keyring(t, "right")
	got, err := one.Get(ctx, "s", "a")
	if err != nil || string(got.Expose()) != "kept" {
		t.Errorf("in the next session: %d bytes, %v", got.Len(), err)
	}
	stop()

	stop = keyring(t, "wrong")
	defer stop()
	if err := Available(ctx); !errors.Is(err, fault.KeystoreLocked) {
		t.Errorf("with a wrong password: %v", err)
	}
	for what, err := range map[string]error{"Put": one.Put(ctx, "s", "a", secret.New([]byte("x"))), "Delete": one.Delete(ctx, "s", "a"), "List": second(one.List(ctx, "s")), "Get": second(one.Get(ctx, "s", "a"))} {
		if !errors.Is(err, fault.KeystoreLocked) {
			t.Errorf("%s with a locked keyring: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestLocking: a keyring that is locked while we run is locked, not empty, and
// opens again without us.
func TestLocking(t *testing.T) {
	if !*inside {
		t.Parallel()
		session(t)
		return
	}
	defer keyring(t, "p")()
	ctx, s := t.Context(), open(t, "one")
	if err := s.Put(ctx, "s", "a", secret.New([]byte("kept"))); err != nil {
		t.Fatal(err)
	}
	lib, err := service.NewService()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := lib.SearchCollection(service.DefaultCollection, s.item("s", "a"))
	if err != nil {
		t.Fatal(err)
	}
	if err := lib.LockItems(append(paths[:0], service.DefaultCollection)); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"Get": second(s.Get(ctx, "s", "a")), "List": second(s.List(ctx, "s")), "Available": Available(ctx), "missing": second(s.Get(ctx, "s", "none"))} {
		if !errors.Is(err, fault.KeystoreLocked) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestBrokenSessions: one session in 128 garbles, and none of them is used.
func TestBrokenSessions(t *testing.T) {
	if !*inside {
		t.Parallel()
		session(t)
		return
	}
	defer keyring(t, "p")()
	ctx, s := t.Context(), open(t, "one")
	for n := range 200 {
		connection.mu.Lock()
		connection.session = nil
		connection.mu.Unlock()
		want := fmt.Sprint("value ", n)
		if err := s.Put(ctx, "s", "a", secret.New([]byte(want))); err != nil {
			t.Fatalf("session %d: %v", n, err)
		}
		if got, err := s.Get(ctx, "s", "a"); err != nil || string(got.Expose()) != want {
			t.Fatalf("session %d: %v", n, err)
		}
	}
}

// TestForeignItem: an item that is not as we wrote it is told as damaged.
func TestForeignItem(t *testing.T) {
	if !*inside {
		t.Parallel()
		session(t)
		return
	}
	defer keyring(t, "p")()
	ctx, s := t.Context(), open(t, "one")
	for _, raw := range []string{"", "osk", "osk2value"} {
		err := s.call(ctx, func(c *service.SecretService, session *service.Session) error {
			sealed, err := session.NewSecret([]byte(raw))
			if err != nil {
				return err
			}
			_, err = c.CreateItem(service.DefaultCollection, service.NewSecretProperties("x", s.item("s", "a")), sealed, service.ReplaceBehaviorReplace)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(ctx, "s", "a"); !errors.Is(err, fault.KeystoreCorrupt) {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

// TestNoSession: without a bus, or with one where nobody serves, it says so.
func TestNoSession(t *testing.T) {
	for what, address := range map[string]string{"none": "", "autolaunch": "autolaunch:", "a socket that is not there": "unix:path=" + filepath.Join(t.TempDir(), "x"), "nonsense": "nonsense"} {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
		t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
		if _, err := Open(context.Background(), "one"); !errors.Is(err, fault.KeystoreLocked) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
