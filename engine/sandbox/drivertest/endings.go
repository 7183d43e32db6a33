package drivertest

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"osaurus/engine/sandbox"
)

// What another process of a test is told. WorldFlag is exported for tests that
// run themselves again as another user.
const (
	WorldFlag = "drivertest.world"
	hostFlag  = "drivertest.host"
	agentFlag = "drivertest.agent"
)

var (
	worldDir = flag.String(WorldFlag, "", "the world that another process made")
	hostDir  = flag.String(hostFlag, "", "be a host with this state, until killed")
	agentID  = flag.String(agentFlag, "", "the agent that sandboxes are for")
)

// Main runs a driver's tests. In a process that killedHost started it is a
// host instead, which starts a sandbox and waits to be killed.
func Main(m *testing.M, open func(w World, state string) sandbox.Driver) {
	flag.Parse()
	if *hostDir != "" {
		hostUntilKilled(open, *hostDir)
	}
	// net/http lingers half a second over a connection that it refused.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"), goleak.Cleanup(func(code int) {
		if made != "" {
			_ = os.RemoveAll(made)
		}
		os.Exit(code)
	}))
}

func hostUntilKilled(open func(w World, state string) sandbox.Driver, state string) {
	w, err := world()
	if err == nil {
		var s sandbox.Sandbox
		if s, err = open(w, state).Start(context.Background(), NewSpec("", true)); err == nil {
			fmt.Println("started", s.ID())
			select {} // until killed
		}
	}
	fmt.Println("failed", err)
	os.Exit(1)
}

func (s *suite) refusals(t *testing.T) {
	before := s.leftovers(t)
	for name, change := range map[string]func(*sandbox.Spec){
		"an id with a slash":    func(p *sandbox.Spec) { p.ID = "osr-../../x" },
		"an id that is not our": func(p *sandbox.Spec) { p.ID = "other-1" },
		"no processors":         func(p *sandbox.Spec) { p.CPUs = 0 },
		"no memory":             func(p *sandbox.Spec) { p.MemoryMB = 1 },
		"no processes":          func(p *sandbox.Spec) { p.PIDs = 0 },
		"no network named":      func(p *sandbox.Spec) { p.Network = 0 },
		"a running one's id":    func(p *sandbox.Spec) { p.ID = s.a.ID() },
		"no nonce":              func(p *sandbox.Spec) { p.Boot.Nonce = "" },
	} {
		spec := NewSpec("", true)
		change(&spec)
		if _, err := s.driver.Start(t.Context(), spec); err == nil {
			t.Errorf("%s: it started", name)
		}
	}
	if !s.Limited {
		if _, err := s.driver.Start(t.Context(), NewSpec("", false)); !errors.Is(err, sandbox.ErrUnavailable) {
			t.Errorf("limits that cannot be kept: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.driver.Start(ctx, NewSpec("", true)); err == nil {
		t.Error("a cancelled start went on")
	}
	alive(t, s.a)
	if after := s.leftovers(t); len(after) != len(before) {
		t.Errorf("before: %d, after: %d: %q", len(before), len(after), after)
	}
}

// leftovers lists processes and names on disk that belong to sandboxes of this
// state folder.
func (s *suite) leftovers(t testing.TB) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(s.state, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), "osr-") {
			found = append(found, path)
			if d.IsDir() {
				return filepath.SkipDir
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		// The state folder is on the command line of all a driver starts.
		if raw, err := os.ReadFile(p); err == nil && strings.Contains(string(raw), s.state) {
			found = append(found, p+" "+strings.ReplaceAll(string(raw), "\x00", " "))
		}
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/osaurus/osr-" + agent() + "-*")
	if err != nil {
		t.Fatal(err)
	}
	return append(found, groups...)
}

func (s *suite) memory(t *testing.T) {
	if !s.Limited {
		t.Skip("this user cannot limit memory")
	}
	g := s.spare
	select {
	case r := <-g.Launch(t, alice, "/bin/sh", "-c", "dd if=/dev/zero of=/dev/null bs=1024M count=1"):
		if r.Exit == 0 {
			t.Error("an agent used four times the memory of its sandbox")
		}
		t.Logf("the process ended: %s", r.Output)
	case <-g.Done():
		t.Logf("the sandbox ended: %v", g.Err())
	case <-time.After(patience):
		t.Error("nothing stopped it")
	}
	alive(t, s.b)
}

func (s *suite) forkBomb(t *testing.T) {
	if !s.Limited {
		t.Skip("this user cannot limit processes, and the bomb would hit the machine")
	}
	s.a.Launch(t, alice, "/bin/sh", "-c", "b() { b | b & }; b; sleep 60")
	for range 5 {
		alive(t, s.b)
	}
	s.stop(t, s.a)
	alive(t, s.b)
}

// stop fails unless a sandbox stops soon, whatever it is doing.
func (s *suite) stop(t testing.TB, g *Guest) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	if err := g.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped in %v", time.Since(began).Round(time.Millisecond))
	if err := g.Err(); err != nil {
		t.Errorf("a stopped sandbox says %v", err)
	}
	select {
	case <-g.Done():
	default:
		t.Error("a stopped sandbox is not done")
	}
	if _, err := g.BridgeListener().Accept(); err == nil {
		t.Error("the listener of a stopped sandbox accepts")
	}
	for _, l := range s.leftovers(t) {
		if strings.Contains(l, g.ID()) {
			t.Errorf("left: %s", l)
		}
	}
	if err := g.Stop(ctx); err != nil {
		t.Errorf("a second stop: %v", err)
	}
}

// hung stops every thread of a sandbox's process, which then answers nothing.
func (s *suite) hung(t *testing.T) {
	g := s.spare
	select {
	case <-g.Done(): // of the step before
		g = Start(t, s.driver, NewSpec("", !s.Limited))
	default:
	}
	if err := syscall.Kill(s.PID(t, g.Sandbox), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	g.Launch(t, alice, "/bin/true")
	s.stop(t, g)
	alive(t, s.b)
}

func (s *suite) killed(t *testing.T) {
	if err := syscall.Kill(s.PID(t, s.b.Sandbox), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.b.Done():
	case <-time.After(patience):
		t.Fatal("nobody noticed")
	}
	if s.b.Err() == nil {
		t.Error("a killed sandbox has no error")
	}
	if _, err := s.b.BridgeListener().Accept(); err == nil {
		t.Error("the listener of a killed sandbox accepts")
	}
	if err := s.b.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if s.b.Err() == nil {
		t.Error("after a stop nobody knows any more that it ended by itself")
	}
}

// killedHost kills a process that runs a sandbox. The next start finds what it
// left, and removes it.
func (s *suite) killedHost(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-"+hostFlag+"="+s.state, "-"+WorldFlag+"="+s.world.Dir, "-"+agentFlag+"="+agent())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "started ") {
		_ = cmd.Wait()
		t.Fatalf("the host says %q, %v", line, err)
	}
	// A guest ends when its host does. One that hangs does not.
	frozen := 0
	for _, l := range s.leftovers(t) {
		var pid int
		if _, err := fmt.Sscanf(l, "/proc/%d/cmdline", &pid); err == nil && pid != cmd.Process.Pid && syscall.Kill(pid, syscall.SIGSTOP) == nil {
			frozen++
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if frozen == 0 || len(s.leftovers(t)) < frozen {
		t.Error("the killed host left nothing, so this test shows nothing")
	}
	if err := s.Open(s.world, s.state).Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := s.leftovers(t); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func (s *suite) nothingLeft(t *testing.T) {
	if left := s.leftovers(t); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if err := s.driver.Sweep(t.Context()); err != nil {
		t.Errorf("a sweep of nothing: %v", err)
	}
}

func ownerOf(t testing.TB, path string) int {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no owner")
	}
	return int(st.Uid)
}
