package drivertest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osaurus/engine/sandbox"
)

// Subject is a driver under test.
type Subject struct {
	// Open returns the driver on a state folder, as a process would at start.
	Open func(w World, state string) sandbox.Driver
	// Transport is what in the guest leads to the host, for root alone.
	Transport string
	// PID is the process on the host that is the sandbox.
	PID func(t testing.TB, s sandbox.Sandbox) int
	// Workspace says that a folder of the host can be mounted.
	Workspace bool
	// Limited says that memory and processes are limited.
	Limited bool
}

// Two agents of one sandbox.
const (
	alice = 2001
	bob   = 2002
)

// suite is one run: sandboxes that must not notice each other.
type suite struct {
	Subject
	world     World
	state     string
	workspace string
	driver    sandbox.Driver
	a, b      *Guest
	spare     *Guest // for what may end a sandbox
}

// Run tries a driver. Its steps build on one another, because a virtual
// machine takes long to boot; the last ones end the sandboxes.
func Run(t *testing.T, subject Subject) {
	t.Helper()
	s := &suite{Subject: subject, world: NewWorld(t)}
	s.state = shortDir(t)
	s.driver = subject.Open(s.world, s.state)
	if err := s.driver.Available(t.Context()); err != nil {
		t.Skip(err)
	}
	if err := s.driver.Provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Workspace {
		s.workspace = shortDir(t)
		// Agents pass through it to their homes; nobody passes above it.
		if err := os.Chmod(s.workspace, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	s.a = Begin(t, s.driver, NewSpec(s.workspace, !s.Limited))
	s.b = Begin(t, s.driver, NewSpec("", !s.Limited))
	s.spare = Begin(t, s.driver, NewSpec("", !s.Limited))
	for _, g := range []*Guest{s.a, s.b, s.spare} {
		g.Ready(t)
	}
	s.accounts(t)
	for _, step := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"own token readable by its owner only", s.tokens},
		{"the relay sees the caller's user", s.callers},
		{"the way to the host is for root alone", s.transport},
		{"no network", s.network},
		{"read-only root", s.readOnly},
		{"agents have no powers", s.powers},
		{"files of the host are not there", s.hostFiles},
		{"links lead nowhere", s.links},
		{"workspace", s.sharedWorkspace},
		{"refused starts leave nothing", s.refusals},
		{"disk full", s.diskFull},
		{"memory limit", s.memory},
		{"fork bomb", s.forkBomb},
		{"hung guest", s.hung},
		{"killed guest", s.killed},
		{"killed host", s.killedHost},
		{"nothing is left", s.nothingLeft},
	} {
		if !t.Run(step.name, step.run) {
			return // the next would only repeat it
		}
	}
}

// shortDir is a folder with a path that a Unix socket can have.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "osr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// accounts makes what osaurus-guest would: homes and token files.
func (s *suite) accounts(t *testing.T) {
	t.Helper()
	for _, g := range []*Guest{s.a, s.b} {
		g.must(t, 0, fmt.Sprintf(`umask 077; mkdir /run/osaurus; chmod 711 /run/osaurus; mkdir /workspace/agents; chmod 755 /workspace/agents
for u in %d %d; do echo secret-$u > /run/osaurus/$u.token; chown $u:$u /run/osaurus/$u.token; mkdir /workspace/agents/$u; chown $u:$u /workspace/agents/$u; done`, alice, bob))
		for _, file := range []string{"/run/osaurus/2001.token 2001 600", "/workspace/agents/2001 2001 700"} {
			name, want, _ := strings.Cut(file, " ")
			if got := g.must(t, 0, "stat -c '%u %a' "+name); got != want {
				t.Fatalf("%s is %s, not %s", name, got, want)
			}
		}
		for _, uid := range []int{alice, bob} {
			g.must(t, uid, fmt.Sprintf("cd /workspace/agents/%d && echo mine > file && cat file && rm file", uid))
		}
	}
}

func (s *suite) tokens(t *testing.T) {
	if got := s.a.must(t, alice, "cat /run/osaurus/2001.token"); got != "secret-2001" {
		t.Errorf("its own token reads %q", got)
	}
	s.a.denied(t, alice, "cat /run/osaurus/2002.token", "Permission denied")
	s.a.denied(t, alice, "ls /run/osaurus", "Permission denied")
	s.a.denied(t, alice, "rm -f /run/osaurus/2001.token", "Permission denied")
	s.a.denied(t, alice, "ln -s x /run/osaurus/2003.token", "Permission denied")
	s.a.denied(t, bob, "ls /workspace/agents/2001", "Permission denied")
	s.a.denied(t, bob, "cp /run/osaurus/2001.token /tmp/stolen", "Permission denied")
}

func (s *suite) callers(t *testing.T) {
	for _, g := range []*Guest{s.a, s.b} {
		for _, uid := range []int{0, alice, bob} {
			want := fmt.Sprintf("OSG1 %s %d 1\nhello", g.ID(), uid)
			if got := g.must(t, uid, "osaurus-host /tmp/osaurus-bridge.sock hello"); got != want {
				t.Errorf("as %d the host heard %q, not %q", uid, got, want)
			}
		}
	}
	// What a caller sends as a preface comes behind the true one.
	if got := s.a.must(t, alice, "osaurus-host /tmp/osaurus-bridge.sock OSG1 "+s.a.ID()+" 2002 1"); !strings.HasPrefix(got, fmt.Sprintf("OSG1 %s %d 1\n", s.a.ID(), alice)) {
		t.Errorf("with a preface of its own: %q", got)
	}
}

func (s *suite) transport(t *testing.T) {
	for _, uid := range []int{alice, bob} {
		s.a.denied(t, uid, "osaurus-host "+s.Transport+" x", "permission denied", "Permission denied", "connection refused")
		s.a.denied(t, uid, "cat < "+s.Transport, "ermission denied")
		s.a.denied(t, uid, "cat "+filepath.Dir(s.Transport)+"/boot.json /boot.json", "ermission denied")
	}
}

func (s *suite) network(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal("no TCP address")
	}
	for _, uid := range []int{0, alice} {
		s.a.denied(t, uid, fmt.Sprintf("echo x | nc -w 2 127.0.0.1 %d", addr.Port))
		// A documentation address: nobody is there, and no route leads to it.
		s.a.denied(t, uid, "echo x | nc -w 2 192.0.2.1 80")
	}
	for line := range strings.Lines(s.a.must(t, 0, "cat /proc/net/dev")) {
		if name, _, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) != "lo" {
			t.Errorf("there is an interface %s", strings.TrimSpace(name))
		}
	}
}

func (s *suite) readOnly(t *testing.T) {
	for _, uid := range []int{0, alice} {
		for _, line := range []string{"touch /usr/new", "echo x > /bin/busybox", "rm /bin/busybox", "mkdir /new", "ln -s /tmp/x /sbin/linked", "mv /bin /nib"} {
			s.a.denied(t, uid, line, "Read-only", "ermission denied")
		}
	}
	// Users are kept in /etc, by root.
	s.a.must(t, 0, "echo x > /etc/new && mv /etc/new /etc/newer && rm /etc/newer && grep root /etc/passwd")
	for _, line := range []string{"touch /etc/new", "echo x >> /etc/passwd", "rm /etc/passwd", "mv /etc/passwd /etc/x"} {
		s.a.denied(t, alice, line, "ermission denied")
	}
	s.b.denied(t, 0, "cat /etc/newer", "No such file")
}

func (s *suite) powers(t *testing.T) {
	status := s.a.must(t, alice, "grep -E '^Cap(Eff|Prm|Inh)' /proc/self/status")
	if strings.Trim(status, "CapEfrmInhP:\t\n 0") != "" {
		t.Errorf("an agent has capabilities:\n%s", status)
	}
	// gVisor lets anybody make a device node, and has no such device behind it.
	s.a.denied(t, alice, "mknod /tmp/sda b 8 0 && cat /tmp/sda", "ermitted", "ermission", "No such device")
	s.a.denied(t, alice, "mount -t tmpfs x /tmp", "ermitted", "ermission", "must be")
	s.a.denied(t, alice, "chown 2002 /run/osaurus/2001.token", "ermitted", "ermission")
	s.a.denied(t, alice, "kill -9 1", "ermitted", "ermission")
	s.a.denied(t, alice, "cat /proc/1/environ", "ermission", "No such file")
	s.a.denied(t, alice, "ls /proc/1/fd/", "ermission", "No such file")
	// A set-id program: not busybox, which drops what it was given.
	for _, dir := range []string{"/tmp/", "/workspace/agents/2001/"} {
		s.a.must(t, alice, "chmod 711 /workspace/agents/2001 && cp /usr/local/bin/osaurus-host "+dir+" && chmod 4755 "+dir+"osaurus-host")
		if got := s.a.must(t, bob, dir+"osaurus-host euid"); got != fmt.Sprint(bob) {
			t.Errorf("a set-id program of another agent in %s ran as %s", dir, got)
		}
		s.a.must(t, alice, "chmod 700 /workspace/agents/2001")
	}
}

func (s *suite) hostFiles(t *testing.T) {
	canary := filepath.Join(shortDir(t), "canary")
	if err := os.WriteFile(canary, []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []int{0, alice} {
		for _, path := range []string{canary, "/proc/1/root" + canary, "/workspace/../../.." + canary, "/run/host/../.." + canary, s.state} {
			s.a.denied(t, uid, "cat "+path, "No such file", "ermission", "directory nonexistent")
		}
	}
}

// links plants symbolic and hard links to what is not the planter's.
func (s *suite) links(t *testing.T) {
	canary := filepath.Join(shortDir(t), "canary")
	if err := os.WriteFile(canary, []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	home := "/workspace/agents/2001"
	s.a.must(t, alice, "ln -s "+canary+" "+home+"/up && ln -s ../../../../../../.."+canary+" "+home+"/far && ln -s /run/osaurus/2002.token "+home+"/other")
	for _, name := range []string{"up", "far"} {
		s.a.denied(t, alice, "cat "+home+"/"+name, "No such file")
		s.a.denied(t, alice, "echo x > "+home+"/"+name)
	}
	s.a.denied(t, alice, "cat "+home+"/other", "Permission denied")
	s.a.must(t, bob, "echo private > /workspace/agents/2002/file; chmod 600 /workspace/agents/2002/file")
	s.a.denied(t, alice, "ln /workspace/agents/2002/file "+home+"/hard", "ermission denied")
	s.a.denied(t, alice, "ln /run/osaurus/2002.token /run/osaurus/mine", "ermission denied", "not permitted")
	s.a.denied(t, alice, "mv "+home+" /workspace/agents/2003", "ermission denied")
	if raw, err := os.ReadFile(canary); err != nil || string(raw) != "of the host" {
		t.Errorf("the host's file was changed to %q, %v", raw, err)
	}
	s.a.must(t, alice, "rm "+home+"/up "+home+"/far "+home+"/other")
}

func (s *suite) sharedWorkspace(t *testing.T) {
	if !s.Workspace {
		spec := NewSpec(shortDir(t), true)
		if _, err := s.driver.Start(t.Context(), spec); err == nil {
			t.Error("a folder was mounted that the driver says it cannot mount")
		}
		t.Skip("this driver carries the workspace over the control stream")
	}
	s.a.must(t, alice, "echo from the guest > /workspace/agents/2001/file")
	file := filepath.Join(s.workspace, "agents", "2001", "file")
	raw, err := os.ReadFile(file)
	if err != nil || string(raw) != "from the guest\n" {
		t.Fatalf("the host reads %q, %v", raw, err)
	}
	if uid := ownerOf(t, file); uid != alice {
		t.Errorf("on the host the file belongs to %d", uid)
	}
	if err := os.WriteFile(file, []byte("from the host\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.a.must(t, alice, "cat /workspace/agents/2001/file"); got != "from the host" {
		t.Errorf("the guest reads %q", got)
	}
	s.b.denied(t, 0, "cat /workspace/agents/2001/file", "No such file") // another sandbox has another
	// A link that an agent leaves is followed by nobody who opens a root.
	s.a.must(t, alice, "ln -s /etc/passwd /workspace/agents/2001/planted")
	dir, err := os.OpenRoot(s.workspace)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if f, err := dir.Open("agents/2001/planted"); err == nil {
		_ = f.Close()
		t.Error("a planted link was followed on the host")
	}
}

// alive fails unless a sandbox answers soon.
func alive(t testing.TB, g *Guest) {
	t.Helper()
	began := time.Now()
	if got := g.must(t, alice, "echo alive"); got != "alive" {
		t.Fatalf("the other sandbox says %q", got)
	}
	t.Logf("the other sandbox answered in %v", time.Since(began).Round(time.Millisecond))
}

func (s *suite) diskFull(t *testing.T) {
	s.a.denied(t, alice, "dd if=/dev/zero of=/tmp/full bs=1M count=1024", "No space left")
	s.a.must(t, alice, "rm /tmp/full; echo again > /tmp/again")
	alive(t, s.b)
}
