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
	"osaurus/engine/sandbox/wire"
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
	if r := mustExec(t, s, agentA, "cat file; stat -c '%a %u' file; ls -a; test -h d/link"); n.starts != 2 || r.ExitCode != 0 || !strings.HasPrefix(r.Stdout, "kept\n640 2000\n") || strings.Contains(r.Stdout, wire.PackedHome) {
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
	// A packer that fails leaves the last archive, and says so.
	breakPacker(t, n, s.running[agentA])
	mustExec(t, s, agentA, "echo lost > third")
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

// breakPacker leaves a guest that runs without the program that packs homes.
func breakPacker(t *testing.T, n *namespaces, e *environment) {
	t.Helper()
	program := filepath.Join(n.dir, e.sandbox.ID(), wire.GuestPath)
	if err := errors.Join(os.Remove(program), os.WriteFile(program, []byte("#!/bin/sh\nexit 1\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
}

// TestServiceOddHomes: whatever an agent makes of its home comes back as it
// was, and costs it no sandbox; what is not its own stays behind.
func TestServiceOddHomes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ make, show, want string }{
		"SOUL.md moved":          {"mkdir notes; mv SOUL.md notes; echo mine > notes/SOUL.md; ln -s notes/SOUL.md SOUL.md", "cat SOUL.md; stat -c %N SOUL.md", "mine\n'SOUL.md' -> 'notes/SOUL.md'\n"},
		"SOUL.md leads nowhere":  {"rm SOUL.md; ln -s /nonexistent SOUL.md", "stat -c %N SOUL.md", "'SOUL.md' -> '/nonexistent'\n"},
		"SOUL.md is a directory": {"rm SOUL.md; mkdir SOUL.md", "stat -c %F SOUL.md", "directory\n"},
		"SOUL.md is a pipe":      {"rm SOUL.md; mkfifo SOUL.md; chmod 620 SOUL.md", "stat -c '%F %a %u' SOUL.md", "fifo 620 2000\n"},
		"SOUL.md is large":       {"head -c 70000000 /dev/zero > SOUL.md; echo end >> SOUL.md", "stat -c %s SOUL.md; tail -n 1 SOUL.md | tr -d '\\0'", "70000004\nend\n"},
		"SOUL.md is gone":        {"rm SOUL.md", "head -n 1 SOUL.md; stat -c %a SOUL.md", "# SOUL\n600\n"},
		"plugins is a link":      {"mv plugins p2; echo x > p2/x; ln -s /nonexistent plugins", "stat -c %N plugins; cat p2/x", "'plugins' -> '/nonexistent'\nx\n"},
		"plugins is a file":      {"rm -r plugins; echo x > plugins", "cat plugins", "x\n"},
		"locked":                 {"mkdir shut; echo x > shut/f; chmod 0 shut/f; chmod 500 shut", "stat -c '%a %u' shut shut/f; chmod 700 shut/f; cat shut/f", "500 2000\n0 2000\nx\n"},
		"two names":              {"echo x > a; ln a b", "echo y >> b; cat a; stat -c %h a", "x\ny\n2\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, w := newService(t, nil)
			if r := mustExec(t, s, agentA, c.make); r.ExitCode != 0 {
				t.Fatalf("%+v", r)
			}
			for range 2 { // with its sandbox running, and in the next
				if err := s.Provision(t.Context(), agentA); err != nil {
					t.Fatal(err)
				}
				if err := s.Stop(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if r := mustExec(t, s, agentA, c.show); r.Stdout != c.want || r.ExitCode != 0 {
				t.Errorf("%+v", r)
			}
			if all := strings.Join(w.audit, "\n"); strings.Contains(all, "sandbox_home_") {
				t.Error(all)
			}
		})
	}
}

// TestServiceForeignFiles: what others own in a home stays behind, and is no
// reason to lose the rest.
func TestServiceForeignFiles(t *testing.T) {
	t.Parallel()
	s, _, w := newService(t, nil)
	mustExec(t, s, agentA, "echo x > mine; mkdir d; echo y > d/y")
	e := s.running[agentA]
	if done, err := execute(t.Context(), e.guest, Shell("", "cd "+Home(LinuxName(agentA))+"; echo root > theirs; mkdir their; echo z > their/z; chmod 600 theirs"), nil); err != nil || done.ExitCode > 1 {
		t.Fatal(done, err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := mustExec(t, s, agentA, "cat mine d/y; ls"); r.Stdout != "x\ny\nSOUL.md\nd\nmine\nplugins\n" {
		t.Errorf("%+v", r)
	}
	if all := strings.Join(w.audit, "\n"); !strings.Contains(all, "sandbox_home_in_part") || !strings.Contains(all, "left=2") || strings.Contains(all, "not_kept") {
		t.Error(all)
	}
}

// TestServiceEvictionKeeps: a sandbox whose home cannot be kept makes no room,
// and its trouble is nobody else's.
func TestServiceEvictionKeeps(t *testing.T) {
	t.Parallel()
	s, n, _ := newService(t, func(set *Settings) { set.MaxEnvironments = 1 })
	mustExec(t, s, agentA, "echo x > file")
	breakPacker(t, n, s.running[agentA])
	if err := s.Provision(t.Context(), agentB); !errors.Is(err, fault.ServerOverloaded) || !s.Running(agentA) {
		t.Errorf("%v, running %v", err, s.Running(agentA))
	}
	if r := mustExec(t, s, agentA, "cat file"); r.Stdout != "x\n" {
		t.Errorf("%+v", r)
	}
	if err := s.change(func(set *Settings) { set.MaxEnvironments = 2 }); err != nil {
		t.Fatal(err)
	}
	mustExec(t, s, agentB, "true")
	mustExec(t, s, agentC, "true") // in the place of the younger one
	if !s.Running(agentA) || s.Running(agentB) {
		t.Error("the wrong one made room")
	}
	_ = s.Stop(t.Context()) // says that the home was not kept
}

const agentC = "33333333-3333-3333-3333-33333333333C"

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
	if s.networkOf(e) != NetworkOutbound {
		t.Error("nothing is allowed")
	}
	off := DefaultAutonomousExec()
	off.Network = false
	if err := s.SetSwitch(agentB, off); err != nil {
		t.Fatal(err)
	}
	if s.networkOf(e) != NetworkNone {
		t.Error("an agent without network shares one that has it")
	}
	e.network = NetworkProxy
	delete(e.users, LinuxName(agentB))
	if s.networkOf(e) != NetworkProxy || s.domains(e) != nil {
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
