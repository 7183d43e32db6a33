package sandbox

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// namespaces is a Driver of Linux namespaces: enough isolation to run the
// real guest with real users in a test, and no more than that.
type namespaces struct {
	t      *testing.T
	dir    string
	broken error
	// starting, if set, is called before a guest starts.
	starting func()
	// apk, if any, is a program of the guests.
	apk string

	mu      sync.Mutex
	starts  int
	sweeps  int
	running map[string]*cage
}

type cage struct {
	id   string
	l    net.Listener
	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan struct{}
	err  error
	stop sync.Once
}

func newNamespaces(t *testing.T) *namespaces {
	t.Helper()
	requireNamespaces(t)
	dir, err := os.MkdirTemp("", "osrns")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &namespaces{t: t, dir: dir, running: map[string]*cage{}}
}

func (n *namespaces) Name() string                    { return "namespaces" }
func (n *namespaces) Available(context.Context) error { return n.broken }
func (n *namespaces) Provision(context.Context) error { return nil }
func (n *namespaces) Sweep(context.Context) error     { n.sweeps++; return nil }

func (n *namespaces) Start(ctx context.Context, spec Spec) (Sandbox, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	if n.starting != nil {
		n.starting()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.starts++
	root := filepath.Join(n.dir, spec.ID)
	populate(n.t, root, bin)
	if n.apk != "" {
		if err := os.WriteFile(filepath.Join(root, "bin", "apk"), []byte(n.apk), 0o755); err != nil {
			return nil, err
		}
	}
	spec.Boot.Transport = "unix:/host/host.sock"
	raw, err := spec.Boot.Encode()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(root, "boot.json"), raw, 0o600); err != nil {
		return nil, err
	}
	c := &cage{id: spec.ID, done: make(chan struct{})}
	if c.l, err = net.Listen("unix", filepath.Join(root, "host", "host.sock")); err != nil {
		return nil, err
	}
	c.cmd = exec.Command("unshare", "-m", "-p", "-f", "-n", "--kill-child", "sh", "-c", enterRoot, root)
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(err, c.l.Close())
	}
	go func() { c.err = c.cmd.Wait(); _ = c.l.Close(); close(c.done) }()
	n.running[spec.ID] = c
	return c, nil
}

func (c *cage) ID() string                   { return c.id }
func (c *cage) BridgeListener() net.Listener { return c.l }
func (c *cage) Done() <-chan struct{}        { return c.done }
func (c *cage) Err() error                   { return c.err }

func (c *cage) Stop(context.Context) error {
	c.stop.Do(func() { _ = c.cmd.Process.Kill() })
	<-c.done
	return nil
}

func newService(t *testing.T, change func(*Settings)) (*Service, *namespaces, *world) {
	t.Helper()
	n, w := newNamespaces(t), newWorld(t)
	home := filepath.Join(w.dir, "home")
	if err := os.MkdirAll(filepath.Join(home, "config"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(ServiceConfig{
		Home: home, Version: "1", Drivers: []Driver{n}, Vault: w.vault, Inference: w, Dispatcher: w, Memory: memoryOf{w}, Events: w, Log: w.bridge.c.Log,
		Lookup: func(context.Context, string) ([]string, error) { return []string{"93.184.216.34"}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.change(func(set *Settings) {
		set.Network = "none"
		if change != nil {
			change(set)
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		for id, c := range n.running {
			select {
			case <-c.done:
			default:
				t.Errorf("%s still runs", id)
			}
		}
	})
	return s, n, w
}

func mustExec(t *testing.T, s *Service, agentID, line string) Result {
	t.Helper()
	r, err := s.Exec(t.Context(), Run{AgentID: agentID, Line: line})
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return r
}

func TestServicePerAgent(t *testing.T) {
	t.Parallel()
	s, n, w := newService(t, nil)
	ctx := t.Context()
	var group sync.WaitGroup
	for range 4 { // callers of one agent share an attempt
		group.Go(func() {
			if err := s.Provision(ctx, agentA); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n.starts != 1 || n.sweeps != 1 {
		t.Errorf("%d starts, %d sweeps", n.starts, n.sweeps)
	}
	if err := errors.Join(s.Secrets.Set(ctx, agentA, "", "API_KEY", secret.New([]byte("s3cr3t-value"))), s.Secrets.Set(ctx, agentA, "", "LD_PRELOAD", secret.New([]byte("/evil.so")))); err != nil {
		t.Fatal(err)
	}
	r := mustExec(t, s, agentA, "id -u; env; echo $API_KEY >&2; cat SOUL.md")
	if r.ExitCode != 0 || !strings.HasPrefix(r.Stdout, "2000\n") || !strings.Contains(r.Stdout, "API_KEY=[REDACTED:API_KEY]") || r.Stderr != "[REDACTED:API_KEY]\n" || strings.Contains(r.Stdout, "evil") || !strings.Contains(r.Stdout, "# SOUL") {
		t.Errorf("%+v", r)
	}
	mustExec(t, s, agentA, "echo mine > SOUL.md; osaurus-host log hello")
	if err := s.Provision(ctx, agentA); err != nil {
		t.Fatal(err)
	}
	if r := mustExec(t, s, agentA, "cat SOUL.md"); r.Stdout != "mine\n" {
		t.Errorf("SOUL.md was written again: %q", r.Stdout)
	}
	if e := s.Logs.Entries(); len(e) != 1 || e[0].Source != LinuxName(agentA) {
		t.Error(e)
	}
	mustExec(t, s, agentB, "true")
	if n.starts != 2 || len(s.Status(ctx).Environments) != 2 {
		t.Errorf("%d starts: %+v", n.starts, s.Status(ctx))
	}
	if _, err := s.Exec(ctx, Run{AgentID: agentA, Line: "true", Dir: "/etc"}); !errors.Is(err, fault.Usage) {
		t.Errorf("a bad cwd: %v", err)
	}
	// A restart invalidates the token that a process kept.
	mustExec(t, s, agentA, "true")
	kept := mustExec(t, s, agentA, "cat /run/osaurus/"+LinuxName(agentA)+".token").Stdout
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if s.tokens.Len() != 0 || s.Running(agentA) {
		t.Error("tokens or sandboxes are left")
	}
	fresh := mustExec(t, s, agentA, "umask 077; printf %s '"+kept+"' > old; osaurus-host-test --token-file old log x; osaurus-host log x")
	if !strings.Contains(fresh.Stderr, "error 401") || fresh.ExitCode != 0 {
		t.Errorf("%+v", fresh)
	}
	if !strings.Contains(strings.Join(w.audit, "\n"), "reason=unknown token") {
		t.Errorf("audit %q", w.audit)
	}
}

func TestServiceShared(t *testing.T) {
	t.Parallel()
	s, n, _ := newService(t, func(set *Settings) { set.PerAgent = false })
	mustExec(t, s, agentA, "echo x > ~/secret")
	r := mustExec(t, s, agentB, "cat "+Home(LinuxName(agentA))+"/secret /run/osaurus/"+LinuxName(agentA)+".token; osaurus-host log x")
	if n.starts != 1 || r.ExitCode != 0 || strings.Count(r.Stderr, "Permission denied") != 2 {
		t.Errorf("%d starts, %+v", n.starts, r)
	}
	if err := s.Unprovision(t.Context(), agentA); err != nil {
		t.Fatal(err)
	}
	if r := mustExec(t, s, agentB, "ls "+HomesDir+"; osaurus-host log x"); strings.Contains(r.Stdout, AgentName(agentA)) || r.ExitCode != 0 {
		t.Errorf("%+v", r)
	}
	if _, uid, err := s.users.Assign(agentA); err != nil || uid != 2002 {
		t.Errorf("uid %d was given out again, %v", uid, err)
	}
}

// TestServiceSwitch: a model's commands run only when the owner said so, and
// only so many in a turn.
func TestServiceSwitch(t *testing.T) {
	t.Parallel()
	s, n, _ := newService(t, nil)
	ctx := t.Context()
	call := func() string { return s.CallTool(ctx, agentA, ToolExec, []byte(`{"command":"true"}`)) }
	if got := call(); got != `{"kind":"rejected","message":"Running commands is switched off for this agent.","ok":false,"retryable":false,"tool":"sandbox_exec"}` || n.starts != 0 || s.Tools(ctx, agentA) != nil {
		t.Errorf("%s, %d starts", got, n.starts)
	}
	on := DefaultAutonomousExec()
	on.Enabled, on.MaxCommands = true, 2
	if err := s.SetSwitch(strings.ToLower(agentA), on); err != nil {
		t.Fatal(err)
	}
	mustExec(t, s, agentA, "true") // the start must not outlast a turn; the owner's commands do not count
	for range 2 {
		if got := call(); got != `{"ok":true,"result":{"exit_code":0,"stderr":"","stdout":""},"tool":"sandbox_exec"}` {
			t.Fatal(got)
		}
	}
	if got := call(); !strings.Contains(got, `"kind":"rejected"`) || !strings.Contains(got, `"retryable":false`) {
		t.Error(got)
	}
	again, err := openSwitches(s.path(switchesFile))
	if err != nil || again.by[agentA] != on {
		t.Errorf("%+v %v", again, err)
	}
	for _, bad := range []int{0, MaxCommandsLimit + 1} {
		on.MaxCommands = bad
		if err := s.SetSwitch(agentA, on); err == nil {
			t.Errorf("%d commands in a turn", bad)
		}
	}
}

// TestServiceEviction: as many environments as allowed, the oldest idle one
// goes, a busy one stays.
func TestServiceEviction(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, func(set *Settings) { set.MaxEnvironments = 1 })
	ctx := t.Context()
	mustExec(t, s, agentA, "true")
	mustExec(t, s, agentB, "true")
	if s.Running(agentA) || !s.Running(agentB) {
		t.Error("the idle one was not stopped")
	}
	started, release := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(release)
		_, _ = s.Exec(ctx, Run{AgentID: agentB, Line: "touch busy; sleep 1000"})
	}()
	go func() {
		for mustExec(t, s, agentB, "test -e busy").ExitCode != 0 {
		}
		close(started)
	}()
	<-started
	if err := s.Provision(ctx, agentA); !errors.Is(err, fault.ServerOverloaded) {
		t.Errorf("with all busy: %v", err)
	}
	if err := s.StopAgent(ctx, agentB); err != nil {
		t.Fatal(err)
	}
	<-release
}

// TestServiceGuestDies: a guest that is killed takes its tokens along, and the
// next command has a new one.
func TestServiceGuestDies(t *testing.T) {
	t.Parallel()
	s, n, w := newService(t, nil)
	mustExec(t, s, agentA, "true")
	s.mu.Lock()
	e := s.running[agentA]
	s.mu.Unlock()
	for _, c := range n.running {
		_ = c.cmd.Process.Kill()
		<-c.done
	}
	<-e.ended
	if s.Running(agentA) || s.tokens.Len() != 0 {
		t.Error("its token still resolves")
	}
	if r := mustExec(t, s, agentA, "osaurus-host log back"); r.ExitCode != 0 || n.starts != 2 {
		t.Errorf("%+v, %d starts", r, n.starts)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if all := strings.Join(w.audit, "\n"); strings.Count(all, "sandbox_started") != 2 || strings.Count(all, "sandbox_stopped") != 1 {
		t.Errorf("%q", w.audit)
	}
}

// TestServiceFailures: no driver, a driver that cannot run, a guest that does
// not come up: a clear error, nothing left, nothing weaker in its place.
func TestServiceFailures(t *testing.T) {
	t.Parallel()
	s, n, _ := newService(t, nil)
	n.broken = ErrUnavailable
	if err := s.Provision(t.Context(), agentA); err == nil || n.starts != 0 || !strings.Contains(err.Error(), "not available") {
		t.Errorf("%v, %d starts", err, n.starts)
	}
	if st := s.Status(t.Context()); st.Problem == "" || st.Driver != "" {
		t.Errorf("%+v", st)
	}
	n.broken = nil
	if err := s.change(func(set *Settings) { set.Driver = "gvisor" }); err != nil {
		t.Fatal(err)
	}
	if err := s.Provision(t.Context(), agentA); err == nil || n.starts != 0 {
		t.Errorf("another driver than the one named: %v", err)
	}
	if err := s.change(func(set *Settings) { set.Driver = "" }); err != nil {
		t.Fatal(err)
	}
	s.c.Rand = bytes.NewReader(make([]byte, 20)) // enough for the names of the boot, not for a token
	s.tokens.rand = s.c.Rand
	if err := s.Provision(t.Context(), agentA); err == nil || s.tokens.Len() != 0 {
		t.Errorf("without randomness: %v", err)
	}
}

func TestServiceDiagnose(t *testing.T) {
	t.Parallel()
	s, _, w := newService(t, nil)
	checks, err := s.Diagnose(t.Context())
	if err != nil || len(checks) != 6 {
		t.Fatal(checks, err)
	}
	for _, c := range checks {
		if !c.OK {
			t.Errorf("%+v", c)
		}
	}
	if s.tokens.Len() != 0 || s.Running(DiagnosticAgent) {
		t.Error("the diagnostic agent is still there")
	}
	if left, err := os.ReadDir(s.path(workspacePath)); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	if len(w.jobs) != 0 {
		t.Error("it dispatched something")
	}
}

// TestServiceProxy: the network mode proxy through service, relay and egress,
// without a credential in the environment.
func TestServiceProxy(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, func(set *Settings) { set.Network, set.AllowedDomains = "proxy", []string{"example.com"} })
	s.c.Dial = func(context.Context, string) (net.Conn, error) {
		a, b := net.Pipe()
		go func() {
			buf := make([]byte, 1024)
			_, _ = b.Read(buf)
			_, _ = b.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage"))
			_ = b.Close()
		}()
		return a, nil
	}
	r := mustExec(t, s, agentA, "env; wget -q -O - http://example.com/; wget -q -O - http://example.org/")
	if !strings.Contains(r.Stdout, "http_proxy=http://127.0.0.1:3128\n") || !strings.HasSuffix(r.Stdout, "page") || !strings.Contains(r.Stderr, "403") || strings.Contains(r.Stdout, "@") {
		t.Errorf("%+v", r)
	}
	if got := s.Settings().Network; got != "proxy" {
		t.Error(got)
	}
}

// page is a Dial of a web server that has one page for everybody.
func page(context.Context, string) (net.Conn, error) {
	a, b := net.Pipe()
	go func() {
		_, _ = b.Read(make([]byte, 1024))
		_, _ = b.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage"))
		_ = b.Close()
	}()
	return a, nil
}

// TestServiceNetworkSwitch: what the owner says of the network holds at once
// for a sandbox that runs: requests, open streams, status, and back again.
func TestServiceNetworkSwitch(t *testing.T) {
	t.Parallel()
	for name, domains := range map[string][]string{"outbound": nil, "proxy": {"example.com"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, n, _ := newService(t, func(set *Settings) { set.Network, set.AllowedDomains = name, domains })
			s.c.Dial = page
			get := func() string {
				r := mustExec(t, s, agentA, "http_proxy=http://127.0.0.1:3128 wget -q -O - http://example.com/; env")
				return r.Stdout + r.Stderr
			}
			network := func(on bool, want string) {
				t.Helper()
				switchedOn(t, s, agentA, func(a *AutonomousExec) { a.Network = on })
				if got := s.Status(t.Context()).Environments[0].Network; got != want {
					t.Errorf("status says %s, not %s", got, want)
				}
			}
			if got := get(); !strings.HasPrefix(got, "page") || !strings.Contains(got, "https_proxy=") {
				t.Fatal(got)
			}
			network(false, "none")
			if got := get(); strings.Contains(got, "page") || !strings.Contains(got, "403") || strings.Contains(got, "https_proxy=") {
				t.Error(got)
			}
			if err := s.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := get(); !strings.Contains(got, "403") { // in a sandbox that began without
				t.Error(got)
			}
			network(true, name)
			if got := get(); !strings.HasPrefix(got, "page") || n.starts != 2 {
				t.Errorf("%s, %d starts", got, n.starts)
			}
		})
	}
}

// TestServiceLogs: what guests log can be read, by agent, without secrets,
// one line each, and never too much.
func TestServiceLogs(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, nil)
	if err := s.Secrets.Set(t.Context(), agentA, "", "API_KEY", secret.New([]byte("s3cr3t-value"))); err != nil {
		t.Fatal(err)
	}
	mustExec(t, s, agentA, `osaurus-host log warn "key $API_KEY
[Sandbox:x] [error] forged"`)
	mustExec(t, s, agentB, "osaurus-host log other")
	own := s.Lines(strings.ToLower(agentA))
	if len(own) != 1 || own[0].Level != "warn" || own[0].String() != "[Sandbox:"+LinuxName(agentA)+"] [warn] key [REDACTED:API_KEY] [Sandbox:x] [error] forged" {
		t.Errorf("%q", own)
	}
	if all := s.Lines(""); len(all) != 2 || all[1].Message != "other" || len(s.Lines(agentC)) != 0 {
		t.Errorf("%q", all)
	}
	for range Shown/MaxLogLine + 2 {
		s.Logs.Log(LogEntry{Source: LinuxName(agentA), Message: strings.Repeat("x", MaxLogLine)})
	}
	if n := len(s.Lines("")); n != Shown/MaxLogLine {
		t.Errorf("%d lines", n)
	}
}

// TestServicePrune: an agent that is no more leaves nothing on the host, also
// one that had a switch and never a sandbox; others keep theirs.
func TestServicePrune(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, nil)
	for _, id := range []string{agentA, agentB} {
		mustExec(t, s, id, "OSAURUS_PLUGIN=weather osaurus-host config set unit c")
		switchedOn(t, s, id, nil)
	}
	switchedOn(t, s, agentC, nil)
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Prune(func(id string) bool { return id == agentB })
	s.group.Wait()
	var left []string
	err := filepath.WalkDir(s.c.Home, func(path string, d os.DirEntry, err error) error {
		raw := []byte(nil)
		if err == nil && d.Type().IsRegular() {
			raw, err = os.ReadFile(path)
		}
		for _, id := range []string{agentA, agentC} {
			if all := strings.ToUpper(path + string(raw)); strings.Contains(all, id) {
				left = append(left, path)
			}
		}
		return err
	})
	if err != nil || len(left) != 0 {
		t.Errorf("left: %q %v", left, err)
	}
	if r := mustExec(t, s, agentB, "OSAURUS_PLUGIN=weather osaurus-host config get unit"); r.Stdout != "c\n" || !s.Switch(agentB).Enabled {
		t.Errorf("%+v", r)
	}
}

// TestServiceDeny: nothing of a denied agent runs on, and its home is kept.
func TestServiceDeny(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, nil)
	switchedOn(t, s, agentA, nil)
	mustExec(t, s, agentA, "echo x > file")
	ended := make(chan string)
	go func() {
		ended <- s.CallTool(t.Context(), agentA, ToolExec, []byte(`{"command":"touch up; sleep 1000"}`))
	}()
	eventually(t, s, agentA, "test -e up")
	if err := s.Deny(t.Context(), agentA); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; strings.Contains(got, `"ok":true`) && !strings.Contains(got, "killed_by") || s.Running(agentA) {
		t.Error(got)
	}
	if got := s.CallTool(t.Context(), agentA, ToolExec, []byte(`{"command":"true"}`)); !strings.Contains(got, "rejected") || s.Switch(agentA).Enabled {
		t.Error(got)
	}
	if r := mustExec(t, s, agentA, "cat file"); r.Stdout != "x\n" {
		t.Errorf("%+v", r)
	}
}

// TestServicePluginDomains: a plugin's domains count while it is installed and
// its agent may have plugins.
func TestServicePluginDomains(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, func(set *Settings) { set.Network, set.AllowedDomains = "proxy", []string{"example.com"} })
	s.c.Dial = page
	switchedOn(t, s, agentA, nil)
	if got := plugin(t, s, agentA, Recipe{ID: "w", Name: "W", AllowedDomains: []string{"example.org"}}); !strings.Contains(got, "installed") {
		t.Fatal(got)
	}
	want := func(when, text string) {
		t.Helper()
		if r := mustExec(t, s, agentA, "wget -q -O - http://example.org/"); !strings.Contains(r.Stdout+r.Stderr, text) {
			t.Errorf("%s: %+v", when, r)
		}
	}
	want("installed", "page")
	switchedOn(t, s, agentA, func(a *AutonomousExec) { a.PluginCreate = false })
	want("without plugins", "403")
	switchedOn(t, s, agentA, nil)
	want("with plugins again", "page")
	if err := s.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.path(recipesDir)); err != nil || len(left) != 0 || len(s.Plugins.List(agentA)) != 0 {
		t.Errorf("recipes are left: %v %v", left, err)
	}
	want("reset", "403")
}

// TestServicePlugin: a recipe of an agent reaches its home, through the bridge.
func TestServicePlugin(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, nil)
	on := DefaultAutonomousExec()
	on.Enabled = true
	create := `echo '{"name":"Greeter","files":{"bin/hi":"echo hi"},"setup":"sh bin/hi > out","tools":[{"id":"hi","run":"sh bin/hi"}]}' | osaurus-host plugin create; cat plugins/greeter/out`
	if r := mustExec(t, s, agentA, create); !strings.Contains(r.Stderr, "403") {
		t.Errorf("%+v", r)
	}
	if err := s.SetSwitch(agentA, on); err != nil {
		t.Fatal(err)
	}
	if r := mustExec(t, s, agentA, create); !strings.HasSuffix(r.Stdout, "hi\n") || !strings.Contains(r.Stdout, `"status":"installed"`) {
		t.Errorf("%+v", r)
	}
}

func TestHint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		r    Result
		want string
	}{
		{Result{Stderr: "error 401"}, ""}, {Result{ExitCode: 1, Stderr: "osaurus-host: error 401: x"}, "authentication failed"}, {Result{ExitCode: 3, Stderr: "osaurus-host: bridge token for x missing (…)"}, "not provisioned"},
		{Result{ExitCode: 4, Stderr: "osaurus-host: bridge unreachable: x"}, "unreachable"}, {Result{ExitCode: 127}, "missing"}, {Result{ExitCode: 1, Stderr: "wget: bad address 'x'"}, "no network"}, {Result{ExitCode: 1, Stderr: "x"}, ""},
	} {
		if got := Hint(c.r); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q", c.r, got)
		}
	}
}
