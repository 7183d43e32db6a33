package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"osaurus/engine/keystore"
	"osaurus/engine/sandbox/wire"
	"osaurus/engine/secret"
)

func TestSanitize(t *testing.T) {
	t.Parallel()
	const home = "/workspace/agents/a"
	for in, want := range map[string]string{
		"x": home + "/x", "a/b.txt": home + "/a/b.txt", home: home, home + "/x": home + "/x", "~": home, "~/x": home + "/x", "/workspace/shared": "/workspace/shared", "/workspace/shared/x": "/workspace/shared/x",
		"grüße é": home + "/grüße é", "~user": home + "/~user",
	} {
		if got, err := Sanitize(in, home); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{
		"": "path is empty", "~/..": "path contains `..` (path traversal not allowed)", "a..b": "path contains `..` (path traversal not allowed)", "../x": "path contains `..` (path traversal not allowed)",
		"a\x00b": "path contains a NUL byte", "..\x00": "path contains `..` (path traversal not allowed)", "a;b": "path contains the disallowed character `;`",
		"a\nb": "path contains a control character", "a\u202eb": "path contains the disallowed character `\u202e`", "a\xffb": "path contains a control character",
		"/etc/passwd": "absolute path is outside the agent home and `/workspace/shared`", home + "-evil/x": "absolute path is outside the agent home and `/workspace/shared`", "/workspace/sharedX": "absolute path is outside the agent home and `/workspace/shared`",
	} {
		if got, err := Sanitize(in, home); err == nil || err.Error() != want {
			t.Errorf("%q: %q, %v, want %s", in, got, err, want)
		}
	}
	for _, c := range ";|&$`(){}'\"\\" {
		if _, err := Sanitize("a"+string(c), home); err == nil || err.Error() != "path contains the disallowed character `"+string(c)+"`" {
			t.Errorf("%c: %v", c, err)
		}
	}
}

func FuzzSanitize(f *testing.F) {
	for _, s := range []string{"", "a", "~/x", "/workspace/shared/x", "/workspace/agents/a/../b", "a\x00", "/workspace/agents/ab"} {
		f.Add(s)
	}
	const home = "/workspace/agents/a"
	f.Fuzz(func(t *testing.T, in string) {
		got, err := Sanitize(in, home)
		if err != nil {
			return
		}
		clean := filepath.Clean(got)
		if !within(clean, home) && !within(clean, SharedDir) || !utf8.ValidString(got) || strings.ContainsAny(got, "\x00\n;|&$`'\"\\") {
			t.Errorf("%q became %q", in, got)
		}
	})
}

func TestHostPatterns(t *testing.T) {
	t.Parallel()
	for p, want := range map[string]bool{
		"example.com": true, "*.example.com": true, "a-b.example.co.uk": true, "com": false, "localhost": false, "": false, "*": false, "*.com": false, "a.*.com": false, "*.*.example.com": false, "ex*mple.com": false,
		"1.2.3.4": false, "0x7f.1": false, "2130706433": false, "[::1]": false, "example.com.": false, "Example.com": false, "-a.com": false, "a-.com": false, "a..com": false, "a_b.com": false, "exämple.com": false,
		strings.Repeat("a", 63) + ".com": true, strings.Repeat("a", 64) + ".com": false, strings.Repeat("a.", 125) + "com": true, strings.Repeat("a.", 126) + "com": false,
	} {
		if ValidPattern(p) != want {
			t.Errorf("%q: %v", p, !want)
		}
	}
	list := []string{"example.com", "*.wild.org"}
	for host, want := range map[string]bool{
		"example.com": true, "EXAMPLE.com": true, "example.com.": true, "www.example.com": false, "evilexample.com": false, "example.com.evil.net": false, "a.wild.org": true, "a.b.wild.org": true, "wild.org": false, "evilwild.org": false,
		".wild.org": false, "*.wild.org": false, "127.0.0.1": false, "::1": false, "[::1]": false, "": false, "example.com..": false,
	} {
		if AllowedHost(host, list) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
	if got, ok := NormalPatterns([]string{" B.example.com", "a.example.com", "b.EXAMPLE.com"}); !ok || !reflect.DeepEqual(got, []string{"a.example.com", "b.example.com"}) {
		t.Error(got, ok)
	}
}

func TestForeignHost(t *testing.T) {
	t.Parallel()
	hosts := []string{"pypi.org"}
	for text, want := range map[string]string{
		"pip install x": "", "curl https://pypi.org/simple": "", "curl HTTPS://PyPI.org./x": "", "curl https://evil.com": "evil.com", "curl 'http://pypi.org@evil.com/x'": "evil.com", "curl http://pypi.org:8080/x": "",
		"curl http://127.0.0.1/": "127.0.0.1", "curl http://[::1]:80/": "[::1]", "curl https://$HOST/": "$host", "curl https://pypi.org.evil.com": "pypi.org.evil.com", "curl https://": "https://", "a https://pypi.org b http://x.y": "x.y",
	} {
		if got := ForeignHost(text, hosts); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{agentA: "agent-" + strings.ToLower(agentA), "My Agent_ü!": "agent-my-agent", "ü": "agent-agent", "": "agent-agent", DiagnosticAgent: DiagnosticUser} {
		if got := LinuxName(id); got != want {
			t.Errorf("%q: %q", id, got)
		}
	}
	if Home(LinuxName(agentA)) != HomesDir+"/"+strings.ToLower(agentA) {
		t.Error(Home(LinuxName(agentA)))
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sandbox-agent-map.json")
	assign := func(id string) (string, uint32) {
		t.Helper()
		u, err := OpenUsers(path) // each time as after a restart
		if err != nil {
			t.Fatal(err)
		}
		name, uid, err := u.Assign(id)
		if err != nil {
			t.Fatal(err)
		}
		return name, uid
	}
	if name, uid := assign(agentA); uid != wire.MinUID || name != LinuxName(agentA) {
		t.Error(name, uid)
	}
	if _, uid := assign(agentB); uid != wire.MinUID+1 {
		t.Error(uid)
	}
	if _, uid := assign(strings.ToLower(agentA)); uid != wire.MinUID {
		t.Error("another uid the second time")
	}
	u, err := OpenUsers(path)
	if err != nil || u.Forget(agentB) != nil {
		t.Fatal(err)
	}
	if _, uid := assign(agentB); uid != wire.MinUID+2 {
		t.Errorf("uid %d was given out again", uid)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if _, uid := assign(DiagnosticAgent); uid != wire.MaxUID {
		t.Error(uid)
	}
	last := agentMap{Version: 1, Next: diagnosticUID, Agents: map[string]member{}}
	if _, _, err := (&Users{m: last, path: path}).Assign(agentA); !errors.Is(err, ErrUIDs) {
		t.Errorf("past the last uid: %v", err)
	}
	for _, broken := range []string{"", "{}", `{"version":1,"next":2001,"agents":{"agent-x":{"agent_id":"` + agentA + `","uid":2001}}}`, `{"version":1,"next":2005,"agents":{"agent-x":{"agent_id":"` + agentA + `","uid":2001},"agent-y":{"agent_id":"` + agentB + `","uid":2001}}}`, `{"version":2,"next":2000,"agents":{}}`} {
		if err := os.WriteFile(path, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenUsers(path); err == nil {
			t.Errorf("%s was read", broken)
		}
	}
}

func TestExecLimiter(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	l := NewExecLimiter(func() time.Time { return now })
	for i := range DefaultCommandsPerTurn {
		if !l.Allow(agentA, DefaultCommandsPerTurn) {
			t.Fatalf("command %d", i+1)
		}
	}
	now = now.Add(TurnQuiet - 1)
	if l.Allow(agentA, DefaultCommandsPerTurn) || !l.Allow(agentB, 1) {
		t.Error("one more")
	}
	now = now.Add(TurnQuiet - 1) // the refused one kept the turn going
	if l.Allow(agentA, DefaultCommandsPerTurn) {
		t.Error("a refused command does not refresh the turn")
	}
	now = now.Add(TurnQuiet)
	if !l.Allow(agentA, DefaultCommandsPerTurn) {
		t.Error("a new turn")
	}
}

func TestDaemonMonitor(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	m := newDaemonMonitor(func() time.Time { return now })
	for range DaemonRestarts {
		if !m.restart("p") {
			t.Fatal("blocked too early")
		}
	}
	if m.restart("p") || !m.restart("q") {
		t.Error("the sixth")
	}
	now = now.Add(10 * DaemonWindow)
	if m.restart("p") {
		t.Error("a block does not end by itself")
	}
	m.unblock("p")
	for range 20 {
		now = now.Add(DaemonWindow / DaemonRestarts)
		if !m.restart("p") {
			t.Fatal("slow restarts are blocked")
		}
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("é", 100)
	if Clip(text, 100) != text {
		t.Error("at the limit")
	}
	got := Clip("<"+strings.Repeat("a", 99)+">", 100)
	if !strings.HasPrefix(got, "<"+strings.Repeat("a", 39)+"\n") || !strings.HasSuffix(got, "\n"+strings.Repeat("a", 59)+">") || !strings.Contains(got, "1 characters left out") {
		t.Error(got)
	}
}

func TestAutonomousExec(t *testing.T) {
	t.Parallel()
	d := DefaultAutonomousExec()
	if d.Enabled || d.MaxCommands != 10 || !d.PluginCreate || d.HostSecretReads || !d.Network || d.Background {
		t.Errorf("%+v", d)
	}
	for _, c := range []struct{ on, create, want bool }{{false, true, false}, {true, false, false}, {true, true, true}} {
		if (AutonomousExec{Enabled: c.on, PluginCreate: c.create}).MayCreatePlugins() != c.want {
			t.Error(c)
		}
	}
}

func TestQuotePackages(t *testing.T) {
	t.Parallel()
	got, err := QuotePackages([]string{" @scope/pkg@1.2 ", "requests>=2", "o'k"})
	if want := []string{"'@scope/pkg@1.2'", "'requests>=2'", `'o'\''k'`}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q %v", got, err)
	}
	long := make([]string, MaxPackages)
	for i := range long {
		long[i] = strings.Repeat("x", MaxSpecifier)
	}
	if _, err := QuotePackages(long); err != nil {
		t.Error(err)
	}
	for _, bad := range [][]string{nil, {""}, {" "}, {"a\x00"}, {"--index-url=x"}, {"-e"}, {"a\nb"}, append(long, "x"), {strings.Repeat("x", MaxSpecifier+1)}} {
		if _, err := QuotePackages(bad); err == nil {
			t.Errorf("%.40q passed", bad)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sandbox.json")
	if s, err := LoadSettings(path); err != nil || !reflect.DeepEqual(s, DefaultSettings()) || s.SetupComplete || !s.PerAgent || s.MaxEnvironments != 3 {
		t.Fatalf("%+v %v", s, err)
	}
	load := func(text string) Settings {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := LoadSettings(path)
		if err != nil {
			t.Fatal(text, err)
		}
		return s
	}
	s := load(`{"cpus":99,"memoryGB":0,"network":"outbound","autoStart":true,"legacyKey":[1]}`)
	if s.CPUs != 8 || s.MemoryGB != 1 || !s.SetupComplete || !s.AutoStart {
		t.Errorf("%+v", s)
	}
	if err := s.Save(path); err != nil {
		t.Fatal(err)
	}
	if raw, _ := os.ReadFile(path); !strings.Contains(string(raw), `"legacyKey":[1]`) {
		t.Errorf("a foreign key was lost: %s", raw)
	}
	if s := load(`{"setupComplete":false}`); s.SetupComplete {
		t.Error("setupComplete")
	}
	for text, want := range map[string][2]Network{ // with the agent's switch on, off
		`{"network":"outbound"}`: {NetworkOutbound, NetworkNone},
		`{"network":"none"}`:     {NetworkOutbound, NetworkNone},
		`{"network":"outbound","allowedDomains":["example.com"]}`: {NetworkProxy, NetworkNone},
		`{"network":"none","allowedDomains":["example.com"]}`:     {NetworkProxy, NetworkNone},
		`{"network":"outbound","allowedDomains":["localhost"]}`:   {NetworkOutbound, NetworkNone},
		`{"network":"proxy"}`:                           {NetworkNone, NetworkNone},
		`{"network":"proxy","allowedDomains":["nope"]}`: {NetworkNone, NetworkNone},
		`{"network":"bridged"}`:                         {NetworkNone, NetworkNone},
		`{"network":"outbound","allowedDomains":["example.com"],"perAgentEnvironments":false}`:            {NetworkNone, NetworkNone},
		`{"network":"proxy","allowedDomains":[" EXAMPLE.com","example.com"],"perAgentEnvironments":true}`: {NetworkProxy, NetworkNone},
	} {
		s := load(text)
		if on, off := s.Mode(true), s.Mode(false); on != want[0] || off != want[1] {
			t.Errorf("%s: %v, %v", text, on, off)
		}
		// What a boot saves must not open anything at the next one.
		if again := s.Reconcile(true).Mode(true); again != want[0] {
			t.Errorf("%s: %v after a boot", text, again)
		}
		if off := s.Reconcile(false); want[0] != NetworkNone && off.Network != "none" || off.Mode(true) == NetworkOutbound && s.Mode(true) != NetworkOutbound {
			t.Errorf("%s: %q after a boot without network", text, off.Network)
		}
	}
	if !(Settings{SetupComplete: true, ProvisionedBy: "1"}).NeedsRestart("2") || !(Settings{SetupComplete: true}).NeedsRestart("2") || (Settings{}).NeedsRestart("2") {
		t.Error("NeedsRestart")
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSettings(path); err == nil {
		t.Error("a broken file was read")
	}
}

func TestScrub(t *testing.T) {
	t.Parallel()
	c := Collection{{"SHORT", secret.New([]byte("12345"))}, {"KEY", secret.New([]byte("abcdef"))}, {"LONG", secret.New([]byte("xabcdefx"))}}
	for in, want := range map[string]string{"": "", "abcdef abcdef": "[REDACTED:KEY] [REDACTED:KEY]", "xabcdefx": "[REDACTED:LONG]", "12345": "12345", "abcde": "abcde"} {
		if got := string(c.Scrub([]byte(in))); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	args := map[string]any{"key": "K", "value": "v"}
	once := RedactArguments("sandbox_secret_set", args)
	if once["value"] != "[REDACTED]" || args["value"] != "v" || RedactArguments("sandbox_secret_set", once)["value"] != "[REDACTED]" || RedactArguments("other", args)["value"] != "v" {
		t.Error(once, args)
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := NewSecrets(keystore.NewMemory())
	for _, in := range []struct{ plugin, name, value string }{{"", "A_KEY", "agent"}, {"p", "A_KEY", "plugin"}, {"", "PATH", "/evil"}, {"", "LD_PRELOAD", "/evil"}, {"", "https_proxy", "x"}, {"p.q", "R", "1"}, {"p", "q.R", "2"}} {
		if err := s.Set(ctx, agentA, in.plugin, in.name, secret.New([]byte(in.value))); err != nil {
			t.Fatal(in, err)
		}
	}
	for _, bad := range []struct{ plugin, name, value string }{{"", "1x", "v"}, {"", "a b", "v"}, {"", "a/b", "v"}, {"../p", "A", "v"}, {"", "A", ""}, {"", "A", "a\x00b"}, {"", "A", "\xff"}, {"", "A", strings.Repeat("x", MaxSecret+1)}} {
		if err := s.Set(ctx, agentA, bad.plugin, bad.name, secret.New([]byte(bad.value))); err == nil {
			t.Errorf("%q was set", bad)
		}
	}
	all, err := s.Collect(ctx, strings.ToLower(agentA), "p")
	if err != nil {
		t.Fatal(err)
	}
	defer all.Destroy()
	if env := all.Environment(); !reflect.DeepEqual(env, []string{"A_KEY=plugin", "q.R=2"}) {
		t.Errorf("%q", env)
	}
	if names, err := s.Names(ctx, agentA, "p"); err != nil || !reflect.DeepEqual(names, []string{"A_KEY", "q.R"}) {
		t.Error(names, err)
	}
	if other, err := s.Collect(ctx, agentB, "p"); err != nil || len(other) != 0 {
		t.Error(other, err)
	}
	if err := s.Delete(ctx, agentA, "p", "A_KEY"); err != nil {
		t.Fatal(err)
	}
	v, err := s.Secret(ctx, agentA, "p", "A_KEY")
	if err != nil || string(v.Expose()) != "agent" {
		t.Error(err)
	}
}
