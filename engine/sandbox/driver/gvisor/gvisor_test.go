//go:build linux

package gvisor

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/drivertest"
)

func open(w drivertest.World, state string) sandbox.Driver {
	return New(Options{Artifacts: w.Store(), Platform: drivertest.Platform, State: state})
}

func TestMain(m *testing.M) { drivertest.Main(m, open) }

func pid(t testing.TB, s sandbox.Sandbox) int {
	t.Helper()
	g, ok := s.(*Sandbox)
	if !ok {
		t.Fatal("not ours")
	}
	return g.process.PID
}

const transport = guestDir + "/" + socketName

func TestRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: cgroups and mounted workspaces")
	}
	drivertest.Run(t, drivertest.Subject{Open: open, Transport: transport, PID: pid, Workspace: true, Limited: cgroupsUsable()})
}

// TestService is the bridge from inside, through the programs that ship, with a
// sandbox for each agent and with one for all.
func TestService(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: cgroups and mounted workspaces")
	}
	service(t, drivertest.Subject{Open: open, Workspace: true, Limited: cgroupsUsable()})
}

func service(t *testing.T, subject drivertest.Subject) {
	t.Helper()
	for name, perAgent := range map[string]bool{"per agent": true, "shared": false} {
		t.Run(name, func(t *testing.T) { drivertest.RunService(t, subject, perAgent, false) })
	}
}

// TestRootless runs the suite as an ordinary user.
func TestRootless(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		asNobody(t)
		return
	}
	drivertest.Run(t, drivertest.Subject{Open: open, Transport: transport, PID: pid})
}

// TestServiceRootless is TestService as an ordinary user, who has no workspace
// on the host: homes are carried.
func TestServiceRootless(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		drivertest.NewRealWorld(t)
		asNobody(t)
		return
	}
	service(t, drivertest.Subject{Open: open})
}

const nobody = 65534

// asNobody runs the test in a process of another user.
func asNobody(t *testing.T) {
	t.Helper()
	w := drivertest.NewWorld(t)
	dir, err := os.MkdirTemp("", "osrn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program := filepath.Join(dir, "test")
	copyFile(t, os.Args[0], program)
	copied := filepath.Join(dir, "world")
	if err := os.CopyFS(copied, os.DirFS(w.Dir)); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=10m", "-"+drivertest.WorldFlag+"="+copied)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=/tmp"}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	t.Logf("as user %d:\n%s", nobody, out)
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
