package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"osaurus/engine/sandbox/wire"
	"osaurus/engine/secret"
)

// programs builds the guest's programs once, as they ship: static.
var programs = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "osrbin"); err != nil {
		return "", err
	}
	built = dir
	for _, p := range []string{"osaurus-guest", "osaurus-host", "osaurus-host-test"} {
		pkg, test := strings.CutSuffix(p, "-test")
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, p), "osaurus/app/"+pkg)
		if test { // takes --socket and --token-file
			cmd.Args = append(cmd.Args[:2:2], append([]string{"-tags", "osaurus_testpaths"}, cmd.Args[2:]...)...)
		}
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building %s: %w\n%s", p, err, out)
		}
	}
	return dir, nil
})

// box is osaurus-guest as first process of namespaces of its own, in a root
// directory of busybox and our programs.
type box struct {
	*world
	root  string
	guest *Guest
	ended chan error
	log   *bytes.Buffer
}

// newBox needs root and Linux namespaces; where they are missing the test is
// skipped by name.
func newBox(t *testing.T, proxy func(context.Context, net.Conn)) *box {
	t.Helper()
	requireNamespaces(t)
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	b := &box{world: w, root: filepath.Join(w.dir, "root"), ended: make(chan error, 1), log: &bytes.Buffer{}}
	populate(t, b.root, bin)
	nonce := strings.Repeat("0123456789abcdef", 2)
	boot := wire.Boot{Sandbox: "osr-33333333-00000003", Nonce: nonce, Transport: "unix:/host/host.sock", Proxy: proxy != nil}
	raw, err := boot.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.root, "boot.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(b.root, "host", "host.sock"))
	if err != nil {
		t.Fatal(err)
	}
	attached := make(chan *Guest, 1)
	ch := &Channel{Sandbox: boot.Sandbox, Nonce: nonce, Listener: l, Bridge: w.bridge, Proxy: proxy, Control: func(c net.Conn) { attached <- NewGuest(c) }}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { defer close(served); _ = ch.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-served })
	cmd := exec.Command("unshare", "-m", "-p", "-f", "-n", "--kill-child", "sh", "-c", enterRoot, b.root)
	cmd.Stdout, cmd.Stderr = b.log, b.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { b.ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if b.guest != nil {
			_ = b.guest.Close()
		}
		select {
		case <-b.ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			t.Error("the guest did not end when its host went away")
			<-b.ended
		}
	})
	select {
	case b.guest = <-attached:
	case err := <-b.ended:
		b.ended <- err
		t.Fatalf("the guest ended: %v\n%s", err, b.log)
	}
	return b
}

// enterRoot is the shell line that makes a directory the root of a guest.
const enterRoot = `ip link set lo up; mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" /sbin/osaurus-guest /boot.json`

// requireNamespaces skips by name what needs root and Linux namespaces.
func requireNamespaces(t *testing.T) {
	t.Helper()
	for _, p := range []string{"unshare", "ip", "chroot", "busybox"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("needs " + p)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, for namespaces and real users")
	}
	if out, err := exec.Command("unshare", "-m", "-p", "-f", "-n", "true").CombinedOutput(); err != nil {
		t.Skip("needs namespaces: " + string(out))
	}
}

// populate makes the root directory of a guest.
func populate(t *testing.T, root, bin string) {
	t.Helper()
	for _, d := range []string{"bin", "sbin", "usr/local/bin", "etc", "proc", "dev", "run", "tmp", "host"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{busybox: "bin/busybox", filepath.Join(bin, "osaurus-guest"): "sbin/osaurus-guest", filepath.Join(bin, "osaurus-host"): "usr/local/bin/osaurus-host", filepath.Join(bin, "osaurus-host-test"): "usr/local/bin/osaurus-host-test"} {
		raw, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, to), raw, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, applet := range []string{"sh", "cat", "ls", "id", "sleep", "stat", "ln", "ps", "head", "tr", "env", "touch", "kill", "nc", "mkdir", "chmod", "wget", "setsid", "tar", "gzip", "grep", "rm", "mv", "mkfifo", "tail"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(root, 0o755), os.Chmod(filepath.Dir(root), 0o755), os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky), os.Chmod(filepath.Join(root, "host"), 0o700),
		os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/:/bin/sh\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// provision makes an agent in the guest, with its token file.
func (b *box) provision(t *testing.T, agentID string, uid uint32) {
	t.Helper()
	name := LinuxName(agentID)
	if err := b.guest.AddUser(t.Context(), name, uid); err != nil {
		t.Fatalf("%v\n%s", err, b.log)
	}
	_, err := b.tokens.Register(Identity{agentID, name, uid, "osr-33333333-00000003"}, func(s secret.Bytes) error { return b.guest.PutToken(t.Context(), name, s) })
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a shell line and returns its output and exit code.
func (b *box) run(t *testing.T, user, line string) (string, string, Exit) {
	t.Helper()
	var out [3]bytes.Buffer
	exit, err := b.guest.Exec(t.Context(), Shell(user, line), func(stream int, data []byte) { out[stream].Write(data) })
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return out[1].String(), out[2].String(), exit
}

// TestGuestBoundaries: two agents in one guest, through the real programs,
// relay and users.
func TestGuestBoundaries(t *testing.T) {
	t.Parallel()
	b := newBox(t, nil)
	b.provision(t, agentA, uidA)
	b.provision(t, agentB, uidB)
	a, other := LinuxName(agentA), LinuxName(agentB)
	stolen := ""
	for _, c := range []struct {
		name, user, line string
		code             int
		out, errOut      string // contained; "=" before it means equal
	}{
		{"who", a, "id -u; id -g; pwd", 0, "=2000\n2000\n" + Home(a) + "\n", "="},
		{"no other groups", a, "id -G", 0, "=2000\n", "="},
		{"token file", a, "stat -c '%a %u %g %s %F' /run/osaurus/" + a + ".token", 0, "=600 2000 2000 43 regular file\n", "="},
		{"token directory", a, "stat -c '%a %u' /run/osaurus; ls /run/osaurus", 1, "=711 0\n", "Permission denied"},
		{"the other's token", a, "cat /run/osaurus/" + other + ".token", 1, "=", "Permission denied"},
		{"the other's home", a, "ls " + Home(other), 1, "=", "Permission denied"},
		{"home", a, "stat -c '%a %u %n' . plugins", 0, "=700 2000 .\n700 2000 plugins\n", "="},
		{"the host's socket", a, "osaurus-host-test --socket /host/host.sock log x", 4, "=", "=osaurus-host: bridge unreachable: dial unix /host/host.sock: connect: permission denied\n"},
		{"boot file", a, "cat /boot.json", 1, "=", "No such file"},
		{"no privileges to gain", a, "cat /proc/self/status", 0, "NoNewPrivs:\t1", "="},
		{"log", a, "osaurus-host log hello", 0, "=", "="},
		{"log of a level", a, "osaurus-host log warn 'it\"s\nodd'", 0, "=", "="},
		{"memory", a, "osaurus-host agent memory store walrus", 0, "={}\n", "="},
		{"own memory", a, "osaurus-host agent memory query walrus", 0, `{"results":[{"content":"walrus"`, "="},
		{"not the other's", other, "osaurus-host agent memory query walrus", 0, "={\"results\":[]}\n", "="},
		{"inference", a, "osaurus-host inference chat -x -m one -m two", 0, "=hello\n", "="},
		{"config set", a, "OSAURUS_PLUGIN=weather osaurus-host config set unit 'a \"b\" c'", 0, "=", "="},
		{"config get", a, "OSAURUS_PLUGIN=weather osaurus-host config get unit", 0, "=a \"b\" c\n", "="},
		{"plugin is the directory", a, "cd plugins && mkdir weather && cd weather && osaurus-host config get unit", 0, "=a \"b\" c\n", "="},
		{"config of the other", other, "OSAURUS_PLUGIN=weather osaurus-host config get unit", 1, "=", "=osaurus-host: error 404: Config key not found\n"},
		{"event with payload", a, `osaurus-host events emit done '{"a":[1,{"b":"}"}]}'`, 0, "=", "="},
		{"dispatch", a, "osaurus-host agent dispatch " + agentA + " 'look here'", 0, "={\"task_id\":\"0B8C6A0E-0000-4000-8000-000000000000\"}\n", "="},
		{"dispatch as another", a, "osaurus-host agent dispatch " + agentB + " x", 1, "=", "=osaurus-host: error 403: agent_id in body does not match token-bound identity\n"},
		{"create a plugin", a, `echo '{"name":"x"}' | osaurus-host plugin create`, 0, `"plugin_id":"x"`, "="},
		{"too long a recipe", a, "head -c 8500000 /dev/zero | osaurus-host plugin create", 1, "=", "=osaurus-host: error 413: Request body too large (8388609 > 8388608 bytes)\n"},
		{"terminated", a, "mkfifo in; sleep 1000 > in & osaurus-host plugin create < in & sleep 0.5; kill -TERM $!; wait $!", 1, "=", "=osaurus-host: interrupted\n"},
		{"usage", a, "osaurus-host secrets", 2, "=", "Usage: osaurus-host"},
		{"payload that is no JSON", a, "osaurus-host events emit done '{'", 2, "=", "Usage: osaurus-host events emit"},
		{"root has no token", "", "osaurus-host log x", 3, "=", "=osaurus-host: bridge token for root missing (host has not provisioned this agent yet)\n"},
		{"a token others can read", a, "chmod 644 /run/osaurus/" + a + ".token; osaurus-host log x; c=$?; chmod 600 /run/osaurus/" + a + ".token; exit $c", 3, "=", "not a file of its owner alone"},
		{"token is not in the command line", a, "osaurus-host log x & cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '; wait", 0, "", ""},
		{"the relay is the only socket", a, "stat -c '%a %u %F' /tmp/osaurus-bridge.sock", 0, "=666 0 socket\n", "="},
	} {
		out, errOut, exit := b.run(t, c.user, c.line)
		if exit.Code != c.code || !fits(out, c.out) || !fits(errOut, c.errOut) {
			t.Errorf("%s: exit %d\nout %q\nerr %q", c.name, exit.Code, out, errOut)
		}
		if c.name == "who" {
			stolen, _, _ = b.run(t, "", "cat /run/osaurus/"+a+".token")
		}
		if strings.Contains(out+errOut, stolen) && stolen != "" {
			t.Errorf("%s: the output shows the token", c.name)
		}
	}
	// The token in the hands of another user of the same guest, and of root.
	for _, user := range []string{other, ""} {
		before := len(b.audit)
		_, errOut, exit := b.run(t, user, "umask 077; echo "+stolen+" > /tmp/stolen-$(id -u); osaurus-host-test --token-file /tmp/stolen-$(id -u) log me")
		if exit.Code != 1 || errOut != "osaurus-host: error 401: Bridge token missing or unrecognised\n" || len(b.audit) != before+1 {
			t.Errorf("stolen by %q: %q, audit %q", user, errOut, b.audit[before:])
		}
	}
	if _, errOut, exit := b.run(t, a, "osaurus-host-test --socket /tmp/none log x"); exit.Code != 4 || !strings.HasPrefix(errOut, "osaurus-host: bridge unreachable: ") {
		t.Errorf("no bridge: exit %d, %q", exit.Code, errOut)
	}
	if _, errOut, exit := b.run(t, a, "umask 077; touch empty; osaurus-host-test --token-file empty log x"); exit.Code != 3 || errOut != "osaurus-host: bridge token for "+a+" is empty\n" {
		t.Errorf("empty token: exit %d, %q", exit.Code, errOut)
	}
	if _, _, exit := b.run(t, a, "ln -s /run/osaurus/"+a+".token l; osaurus-host-test --token-file l log x"); exit.Code != 3 {
		t.Errorf("a link as token file: exit %d", exit.Code)
	}
	for _, e := range b.logs.Entries() {
		if e.Source != a {
			t.Errorf("log line of %s", e.Source)
		}
	}
}

func fits(got, want string) bool {
	if exact, ok := strings.CutPrefix(want, "="); ok {
		return got == exact
	}
	return strings.Contains(got, want)
}

// TestGuestRevocation: the next call after revoking is refused, and a removed
// user leaves nothing.
func TestGuestRevocation(t *testing.T) {
	t.Parallel()
	b := newBox(t, nil)
	b.provision(t, agentA, uidA)
	a := LinuxName(agentA)
	if _, _, exit := b.run(t, a, "osaurus-host log x"); exit.Code != 0 {
		t.Fatal(exit)
	}
	b.tokens.Revoke(a)
	if _, errOut, exit := b.run(t, a, "osaurus-host log x"); exit.Code != 1 || errOut != "osaurus-host: error 401: Bridge token missing or unrecognised\n" {
		t.Errorf("%v %q", exit, errOut)
	}
	b.provision(t, agentA, uidA) // minted anew over the old file
	if _, errOut, exit := b.run(t, a, "osaurus-host log x"); exit.Code != 0 {
		t.Errorf("%v %q", exit, errOut)
	}
	b.run(t, a, "setsid sleep 1000 < /dev/null > /dev/null 2>&1 &")
	if err := b.guest.RemoveUser(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	out, _, _ := b.run(t, "", "ls -a /run/osaurus /workspace/agents; cat /etc/passwd /etc/group; ps -o pid,args")
	if strings.Contains(out, stemOf(a)) || strings.Contains(out, "sleep") {
		t.Errorf("left behind:\n%s", out)
	}
}

func stemOf(name string) string { return strings.TrimPrefix(name, userStem) }

// TestGuestPlanting: what an agent plants in its home leads nowhere.
func TestGuestPlanting(t *testing.T) {
	t.Parallel()
	b := newBox(t, nil)
	b.provision(t, agentA, uidA)
	a, ctx := LinuxName(agentA), t.Context()
	home := Home(a)
	b.run(t, a, "ln -s /etc/passwd passwd; ln -s /etc etc; ln -s ../.. up; mkdir d; ln -s /run/osaurus/x.token d/t")
	for _, p := range []string{"/etc/x", "/up/agents/y", "/d/../../z"} {
		if err := b.guest.Put(ctx, a, home+p, 0o600, []byte("x")); err == nil {
			t.Errorf("%s was written", p)
		}
	}
	if err := b.guest.Put(ctx, a, home+"/passwd", 0o600, []byte("evil")); err == nil {
		t.Error("a link was written through or replaced")
	}
	if _, _, err := b.guest.Get(ctx, a, home+"/passwd"); err == nil {
		t.Error("a link was read through")
	}
	if err := b.guest.Put(ctx, "", home+"/f", 0o600, nil); err == nil {
		t.Error("root wrote below the workspace")
	}
	if out, _, _ := b.run(t, "", "cat /etc/passwd; ls /etc"); strings.Contains(out, "evil") || strings.Contains(out, "\nx\n") {
		t.Error(out)
	}
	// A file of several pieces goes in and out, and belongs to the agent.
	big := bytes.Repeat([]byte("0123456789"), 100_000)
	if err := b.guest.Put(ctx, a, home+"/new/dir/big", 0o640, big); err != nil {
		t.Fatal(err)
	}
	got, mode, err := b.guest.Get(ctx, a, home+"/new/dir/big")
	if err != nil || mode != 0o640 || !bytes.Equal(got, big) {
		t.Errorf("%d bytes, %v, %v", len(got), mode, err)
	}
	if out, _, _ := b.run(t, a, "stat -c '%u %g' new new/dir new/dir/big"); out != "2000 2000\n2000 2000\n2000 2000\n" {
		t.Error(out)
	}
}

// TestGuestCommands: exit codes, streams, silence, termination, and that no
// process is left.
func TestGuestCommands(t *testing.T) {
	t.Parallel()
	b := newBox(t, nil)
	b.provision(t, agentA, uidA)
	a := LinuxName(agentA)
	if out, errOut, exit := b.run(t, a, "echo out; echo err >&2; exit 7"); out != "out\n" || errOut != "err\n" || exit.Code != 7 || exit.KilledBy != "" {
		t.Errorf("%q %q %v", out, errOut, exit)
	}
	if _, _, exit := b.run(t, a, "kill -9 $$"); exit.Code != 137 {
		t.Errorf("%v", exit)
	}
	if _, err := b.guest.Exec(t.Context(), Command{User: a, Argv: []string{"nothing-of-this-name"}}, nil); err == nil {
		t.Error("a program that is not there ran")
	}
	if _, err := b.guest.Exec(t.Context(), Command{User: "agent-nobody", Argv: []string{"id"}}, nil); err == nil {
		t.Error("a user that is not there ran a command")
	}
	idle, err := b.guest.Exec(t.Context(), Command{User: a, Argv: []string{"sh", "-c", "sleep 1000 & sleep 1000"}, Idle: 100 * time.Millisecond}, func(int, []byte) {})
	if err != nil || idle.KilledBy != "idle" || idle.Code != 143 {
		t.Errorf("%v %v", idle, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	killed, err := b.guest.Exec(ctx, Shell(a, "trap '' TERM; echo ready; while :; do sleep 1; done"), func(int, []byte) { cancel() })
	cancel()
	if err != nil || killed.KilledBy != "user" || killed.Code != 137 {
		t.Errorf("%v %v", killed, err)
	}
	var echo bytes.Buffer
	if _, err := b.guest.Exec(t.Context(), Command{User: a, Argv: []string{"cat"}, Stdin: []byte("in")}, func(_ int, p []byte) { echo.Write(p) }); err != nil || echo.String() != "in" {
		t.Errorf("%q %v", &echo, err)
	}
	// Orphans are collected by the first process.
	b.run(t, a, "for i in 1 2 3 4 5; do (setsid true &) ; done; sleep 0.3")
	if out, _, _ := b.run(t, "", "ps -o stat,args"); strings.Contains(out, "Z") || strings.Contains(out, "sleep") {
		t.Errorf("left:\n%s", out)
	}
}

// TestGuestProxy: what a program sends to the loopback port arrives at the
// host, and the environment carries no credential.
func TestGuestProxy(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }))
	defer web.Close()
	p := &Egress{
		Domains: func() []string { return []string{"example.com"} },
		Lookup:  func(context.Context, string) ([]string, error) { return []string{"93.184.216.34"}, nil },
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", web.Listener.Addr().String())
		},
	}
	b := newBox(t, p.Serve)
	b.provision(t, agentA, uidA)
	a := LinuxName(agentA)
	line := "http_proxy=http://127.0.0.1:3128 wget -q -O - http://example.com/"
	if out, errOut, _ := b.run(t, a, line); out != "page" {
		t.Errorf("%q %q\n%s", out, errOut, b.log)
	}
	if out, errOut, exit := b.run(t, a, strings.Replace(line, "example.com", "example.org", 1)); exit.Code == 0 || !strings.Contains(errOut, "403") {
		t.Errorf("%q %q", out, errOut)
	}
}
