package sandbox

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// plugin has an agent write a recipe from inside and returns the answer.
func plugin(t *testing.T, s *Service, agentID string, r Recipe) string {
	t.Helper()
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	done := mustExec(t, s, agentID, "osaurus-host plugin create <<'END'\n"+string(raw)+"\nEND")
	return done.Stdout + done.Stderr
}

// eventually runs a line until it succeeds.
func eventually(t *testing.T, s *Service, agentID, line string) {
	t.Helper()
	for began := time.Now(); mustExec(t, s, agentID, line).ExitCode != 0; {
		if time.Since(began) > time.Minute {
			t.Fatalf("%s does not succeed", line)
		}
	}
}

func logged(s *Service, text string) bool {
	for _, e := range s.Logs.Entries() {
		if strings.Contains(e.String(), text) {
			return true
		}
	}
	return false
}

// TestServiceDaemon: a plugin's daemon runs as its agent, with its plugin's
// secrets, when the owner allows background processes; it comes back with its
// sandbox, and ends with the permission.
func TestServiceDaemon(t *testing.T) {
	t.Parallel()
	for _, perAgent := range []bool{true, false} {
		t.Run(map[bool]string{true: "per agent", false: "shared"}[perAgent], func(t *testing.T) {
			t.Parallel()
			s, _, _ := newService(t, func(set *Settings) { set.PerAgent = perAgent })
			ctx := t.Context()
			if err := s.Secrets.Set(ctx, agentA, "beat", "API_KEY", secret.New([]byte("hidden-value"))); err != nil {
				t.Fatal(err)
			}
			switchedOn(t, s, agentA, nil)
			beat := Recipe{ID: "beat", Name: "Beat", Daemon: &Daemon{Command: "trap 'echo end >> log; exit' TERM; echo $(id -u) ${#API_KEY} $OSAURUS_PLUGIN $(pwd) >> log; while :; do sleep 0.05; done"}}
			if got := plugin(t, s, agentA, beat); !strings.Contains(got, "installed") || !logged(s, "background processes are switched off") {
				t.Fatalf("%s %v", got, s.Logs.Entries())
			}
			switchedOn(t, s, agentA, func(a *AutonomousExec) { a.Background = true })
			eventually(t, s, agentA, "test -s plugins/beat/log")
			if r := mustExec(t, s, agentA, "cat plugins/beat/log"); r.Stdout != "2000 12 beat "+Home(LinuxName(agentA))+"/plugins/beat\n" {
				t.Errorf("%+v", r)
			}
			// Installed anew, the old one ends and the new one runs.
			beat.Daemon.Command = "echo second >> log; exec sleep 1000"
			if got := plugin(t, s, agentA, beat); !strings.Contains(got, "installed") {
				t.Fatal(got)
			}
			eventually(t, s, agentA, "grep -q end plugins/beat/log && grep -q second plugins/beat/log")
			if err := s.StopAgent(ctx, agentA); err != nil {
				t.Fatal(err)
			}
			eventually(t, s, agentA, "test $(grep -c second plugins/beat/log) = 2")
			for _, st := range s.Status(ctx).Environments {
				if st.Busy != 0 {
					t.Errorf("a daemon keeps the sandbox: %+v", st)
				}
			}
			switchedOn(t, s, agentA, func(a *AutonomousExec) { a.Background = false })
			s.mu.Lock()
			for _, e := range s.running {
				if len(e.daemons) != 0 {
					t.Error("it runs on without permission")
				}
			}
			s.mu.Unlock()
			if logged(s, "started again") || logged(s, "hidden-value") {
				t.Errorf("%v", s.Logs.Entries())
			}
		})
	}
}

// TestServiceDaemonThatEnds: a daemon that ends is started again, so often and
// not oftener, until its plugin is installed anew.
func TestServiceDaemonThatEnds(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, nil)
	s.pause = time.Millisecond
	switchedOn(t, s, agentA, func(a *AutonomousExec) { a.Background = true })
	short := Recipe{ID: "short", Name: "Short", Daemon: &Daemon{Command: "echo x >> log; exit 3"}}
	if got := plugin(t, s, agentA, short); !strings.Contains(got, "installed") {
		t.Fatal(got)
	}
	const starts = "test $(grep -c x plugins/short/log) = "
	eventually(t, s, agentA, starts+"6")
	for began := time.Now(); !logged(s, "exit code 3, too often"); {
		if mustExec(t, s, agentA, starts+"6").ExitCode != 0 || time.Since(began) > time.Minute {
			t.Fatalf("%v", s.Logs.Entries())
		}
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustExec(t, s, agentA, starts+"6") // blocked in a new guest as well
	if !logged(s, "restarted too often") {
		t.Errorf("%v", s.Logs.Entries())
	}
	if got := plugin(t, s, agentA, short); !strings.Contains(got, "installed") {
		t.Fatal(got)
	}
	eventually(t, s, agentA, starts+"12")
}

// TestServiceDependencies: packages come with apk, as root, before files and
// setup, and again in a new guest; not into a guest that is shared.
func TestServiceDependencies(t *testing.T) {
	t.Parallel()
	for _, perAgent := range []bool{true, false} {
		t.Run(map[bool]string{true: "per agent", false: "shared"}[perAgent], func(t *testing.T) {
			t.Parallel()
			s, n, _ := newService(t, func(set *Settings) { set.PerAgent = perAgent })
			switchedOn(t, s, agentA, nil)
			r := Recipe{ID: "needs", Name: "Needs", Dependencies: []string{"jq", "o'k>1"}, Setup: "cat /packages > seen"}
			if got := plugin(t, s, agentA, r); !strings.Contains(got, "500") || !strings.Contains(got, map[bool]string{true: "has no apk", false: "of its own"}[perAgent]) {
				t.Fatal(got)
			}
			if _, ok := s.Plugins.Installed(agentA, "needs"); ok {
				t.Error("it counts as installed")
			}
			n.apk = "#!/bin/sh\necho $(id -u) $# \"$@\" >> /packages\ntest \"$3\" != missing\n"
			if err := s.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !perAgent {
				return
			}
			if got := plugin(t, s, agentA, r); !strings.Contains(got, "installed") {
				t.Fatal(got)
			}
			const want = "0 4 add --no-cache jq o'k>1\n"
			if got := mustExec(t, s, agentA, "cat plugins/needs/seen").Stdout; got != want {
				t.Errorf("%q", got)
			}
			r.ID, r.Dependencies = "other", []string{"missing"}
			if got := plugin(t, s, agentA, r); !strings.Contains(got, "could not be installed") {
				t.Error(got)
			}
			if err := s.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := mustExec(t, s, agentA, "cat /packages").Stdout; got != want {
				t.Errorf("in a new guest: %q", got)
			}
		})
	}
}

// crashIn names the folder and the step of a process that TestPluginCrash kills.
const crashIn = "OSAURUS_TEST_PLUGIN_CRASH"

// TestPluginCrash: a host that is killed while a recipe is installed, or right
// after, leaves the earlier recipe or the new one, whole.
func TestPluginCrash(t *testing.T) {
	t.Parallel()
	if dir, step, ok := strings.Cut(os.Getenv(crashIn), "|"); ok {
		createAndDie(t, dir, step)
		return
	}
	for _, c := range []struct {
		step    string
		earlier bool
		want    string // version afterwards, "" is none
	}{{"install", false, ""}, {"install", true, "1"}, {"registered", false, "2"}, {"registered", true, "2"}} {
		t.Run(c.step+map[bool]string{true: " over an earlier one"}[c.earlier], func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			who := identityOf(agentA, uidA, boxA)
			if c.earlier {
				p := openRecipes(t, dir, nil, nil)
				if _, err := p.Create(t.Context(), who, Recipe{ID: "x", Name: "X", Version: "1"}); err != nil {
					t.Fatal(err)
				}
				_ = p.Close()
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestPluginCrash$")
			cmd.Env = append(os.Environ(), crashIn+"="+dir+"|"+c.step)
			out, err := cmd.CombinedOutput()
			if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || st.Signal() != syscall.SIGKILL {
				t.Fatalf("it was not killed: %v %s", err, out)
			}
			p := openRecipes(t, dir, nil, nil)
			defer p.Close()
			if r, ok := p.Installed(agentA, "x"); ok != (c.want != "") || r.Version != c.want {
				t.Errorf("%v %+v", ok, r)
			}
			if left, err := filepath.Glob(filepath.Join(dir, agentA, "*"+pendingEnd)); err != nil || len(left) > 0 {
				t.Errorf("%q is left", left)
			}
			if _, err := p.Create(t.Context(), who, Recipe{ID: "x", Name: "X", Version: "3"}); err != nil {
				t.Errorf("it cannot be created again: %v", err)
			}
			if err := p.Forget(strings.ToLower(agentA)); err != nil || len(p.List(agentA)) > 0 {
				t.Errorf("it is not forgotten: %v", err)
			}
		})
	}
}

func createAndDie(t *testing.T, dir, step string) {
	t.Helper()
	die := func(at string) {
		if at == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	p := openRecipes(t, dir, func() { die("install") }, func() { die("registered") })
	_, err := p.Create(t.Context(), identityOf(agentA, uidA, boxA), Recipe{ID: "x", Name: "X", Version: "2"})
	t.Fatalf("it lives: %v", err)
}

func openRecipes(t *testing.T, dir string, install, registered func()) *Plugins {
	t.Helper()
	c := PluginsConfig{Dir: dir, MayCreate: func(string) bool { return true }, Secrets: NewSecrets(keystore.NewMemory()), Running: func(string) bool { return true }}
	c.Install = func(context.Context, Identity, Recipe) error {
		if install != nil {
			install()
		}
		return nil
	}
	if registered != nil {
		c.Registered = func(Identity, Recipe) { registered() }
	}
	p, err := OpenPlugins(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPluginTools: what an agent's plugins offer is there for its runs alone,
// and runs in the plugin's place with its secrets and arguments.
func TestPluginTools(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, nil)
	ctx := t.Context()
	switchedOn(t, s, agentA, nil)
	if err := s.Secrets.Set(ctx, agentA, "we.ather", "API_KEY", secret.New([]byte("hidden-value"))); err != nil {
		t.Fatal(err)
	}
	r := Recipe{ID: "we.ather", Name: "Weather", Files: map[string]string{"greet": "echo hi \"$PARAM_WHO\""}, Tools: []Tool{
		{ID: "greet", Description: "Greets.", Parameters: []byte(`{"type":"object","properties":{"who":{"type":"string"}}}`), Run: `sh greet; echo "$PARAM_LIST" "$OSAURUS_PLUGIN" "$API_KEY" "$(id -u)"; exit 3`},
		{ID: "x" + strings.Repeat("y", 60), Run: "true"},
		{ID: "plain", Parameters: []byte(`{"type":"array"}`), Run: "true"},
	}}
	if got := plugin(t, s, agentA, r); !strings.Contains(got, "installed") {
		t.Fatal(got)
	}
	if got := plugin(t, s, agentA, Recipe{ID: "sandbox", Name: "x", Tools: []Tool{{ID: "exec", Run: "echo mine"}}}); !strings.Contains(got, "installed") {
		t.Fatal(got)
	}
	offered := map[string]BuiltinTool{}
	for _, one := range s.Tools(ctx, agentA) {
		offered[one.Name] = one
	}
	if len(offered) != len(tools)+2 || offered["we_ather_greet"].Description != "Greets." || !strings.Contains(string(offered["we_ather_greet"].Parameters), "who") || string(offered["we_ather_plain"].Parameters) != emptyArguments {
		t.Errorf("%v", offered)
	}
	call := func(agentID, name, args string) string { return s.CallTool(ctx, agentID, name, []byte(args)) }
	if got := call(agentA, "we_ather_greet", `{"who":"you; id","list":[1,"a"]}`); got != `{"ok":true,"result":{"exit_code":3,"stderr":"","stdout":"hi you; id\n[1,\"a\"] we.ather [REDACTED:API_KEY] 2000\n"},"tool":"we_ather_greet"}` {
		t.Error(got)
	}
	if got := call(agentA, ToolExec, `{"command":"echo builtin"}`); !strings.Contains(got, "builtin") {
		t.Error(got)
	}
	for args, kind := range map[string]string{
		`[]`: "invalid_args", `{"who":"a\u0000"}`: "invalid_args", `{"a b":1}`: "invalid_args", `{"who":1,"WHO":2}`: "invalid_args", `{"` + strings.Repeat("n", maxParamName+1) + `":1}`: "invalid_args",
		`{"who":"` + strings.Repeat("x", MaxParameters-10) + `"}`: `"ok":true`, `{"who":"` + strings.Repeat("x", MaxParameters-9) + `"}`: "invalid_args", `{"` + strings.Repeat("n", maxParamName) + `":1}`: `"ok":true`, ``: `"ok":true`,
	} {
		if got := call(agentA, "we_ather_plain", args); !strings.Contains(got, kind) {
			t.Errorf("%.40s: %.200s", args, got)
		}
	}
	switchedOn(t, s, agentB, nil)
	if got := call(agentB, "we_ather_plain", `{}`); !strings.Contains(got, "tool_not_found") || len(s.Tools(ctx, agentB)) != len(tools) {
		t.Errorf("another agent's: %s", got)
	}
	switchedOn(t, s, agentA, func(a *AutonomousExec) { a.Enabled = false })
	if got := call(agentA, "we_ather_plain", `{}`); !strings.Contains(got, "rejected") {
		t.Error(got)
	}
}
