package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/fault"
)

// TestServiceHomes: a home that is carried outlives its sandbox, is kept while
// it runs, and goes with its agent.
func TestServiceHomes(t *testing.T) {
	t.Parallel()
	s, n, w := newService(t, nil)
	ctx := t.Context()
	mustExec(t, s, agentA, "echo kept > file; chmod 640 file; mkdir d; ln -s /etc/passwd d/link")
	archive := filepath.Join(s.path(workspacePath), agentA, LinuxName(agentA)+".tar.gz")
	if _, err := os.Stat(archive); err == nil {
		t.Error("a home was carried out at once")
	}
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	if r := mustExec(t, s, agentA, "cat file; stat -c '%a %u' file; ls -a; test -h d/link"); n.starts != 2 || r.ExitCode != 0 || !strings.HasPrefix(r.Stdout, "kept\n640 2000\n") || strings.Contains(r.Stdout, packed) {
		t.Errorf("%d starts, %+v", n.starts, r)
	}
	// A minute later a command's home is carried out without a stop.
	s.mu.Lock()
	s.running[agentA].kept = s.c.Now().Add(-KeepEvery)
	s.mu.Unlock()
	mustExec(t, s, agentA, "echo more > second")
	again, err := os.ReadFile(archive)
	if err != nil || bytes.Equal(first, again) {
		t.Errorf("the same archive, %v", err)
	}
	// One that does not come whole leaves the last that did, and says so.
	mustExec(t, s, agentA, "mkdir shut; chmod 0 shut")
	if err := s.Stop(ctx); err == nil || !strings.Contains(err.Error(), "was not kept") {
		t.Errorf("stop: %v", err)
	}
	if now, err := os.ReadFile(archive); err != nil || !bytes.Equal(now, again) {
		t.Errorf("a broken archive took the place of a good one, %v", err)
	}
	if !strings.Contains(strings.Join(w.audit, "\n"), "sandbox_home_not_kept") {
		t.Errorf("audit %q", w.audit)
	}
	if err := s.Unprovision(ctx, agentA); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(archive)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the home of an agent that is no more: %v", err)
	}
}

// TestServiceOutbound: the network a host has by default is every public host,
// through the proxy, and the agent's switch rules the next request.
func TestServiceOutbound(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, func(set *Settings) { set.Network, set.PerAgent = "outbound", false })
	e := &environment{network: NetworkOutbound, users: map[string]bool{}}
	for _, id := range []string{agentA, agentB} {
		name, _, err := s.users.Assign(id)
		if err != nil {
			t.Fatal(err)
		}
		e.users[name] = true
	}
	if !s.public(e) {
		t.Error("nothing is allowed")
	}
	off := DefaultAutonomousExec()
	off.Network = false
	if err := s.SetSwitch(agentB, off); err != nil {
		t.Fatal(err)
	}
	if s.public(e) {
		t.Error("an agent without network shares one that has it")
	}
	e.network = NetworkProxy
	delete(e.users, LinuxName(agentB))
	if s.public(e) {
		t.Error("a proxy with domains is open")
	}
	spec, mode, err := s.spec("")
	if err != nil || mode != NetworkOutbound || spec.Network != NetworkProxy || !spec.Boot.Proxy || spec.Workspace != "" {
		t.Errorf("%+v %v %v", spec, mode, err)
	}
}

// TestUnavailable: what is missing and what is damaged are not the same.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	if err := driverUnavailable("x", fault.New(fault.ArtifactDamaged, nil)); !errors.Is(err, fault.ArtifactDamaged) {
		t.Error(err)
	}
	err := driverUnavailable("x", fmt.Errorf("%w: no runsc (make sandbox builds it)", ErrUnavailable))
	if !errors.Is(err, fault.SandboxUnavailable) || err.Error() != "The sandbox driver x is not available: no runsc (make sandbox builds it)" {
		t.Error(err)
	}
}
