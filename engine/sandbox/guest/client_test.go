package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bridge answers on a Unix socket and remembers what it was asked.
type bridge struct {
	dir, socket, token string
	status             int
	answer             string
	got                []string
	header             http.Header
	wait               func(ctx context.Context) // before the answer, if set
}

func newBridge(t *testing.T) *bridge {
	t.Helper()
	dir, err := os.MkdirTemp("", "osh")
	if err != nil {
		t.Fatal(err)
	}
	b := &bridge{dir: dir, socket: filepath.Join(dir, "s"), token: filepath.Join(dir, "token"), status: 200, answer: "{}"}
	if err := os.WriteFile(b.token, []byte("the-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", b.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		b.got, b.header = append(b.got, r.Method+" "+r.RequestURI+" "+string(raw)), r.Header
		if b.wait != nil {
			b.wait(r.Context())
		}
		w.WriteHeader(b.status)
		_, _ = io.WriteString(w, b.answer)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done; _ = os.RemoveAll(dir) })
	return b
}

// run returns the exit code, stdout and stderr of one call.
func (b *bridge) run(stdin string, args ...string) (int, string, string) {
	return b.runIn(context.Background(), strings.NewReader(stdin), args...)
}

func (b *bridge) runIn(ctx context.Context, stdin io.Reader, args ...string) (int, string, string) {
	var out, errOut bytes.Buffer
	code := Command{
		Args: args, Stdin: stdin, Stdout: &out, Stderr: &errOut, Plugin: "weather", Socket: b.socket, Token: b.token, Getuid: os.Getuid,
		LookupU: func(string) (*user.User, error) { return &user.User{Username: "agent-x"}, nil },
	}.Run(ctx)
	return code, out.String(), errOut.String()
}

// TestCalls: each command's request, what it prints, and that values are
// encoded and never spliced.
func TestCalls(t *testing.T) {
	t.Parallel()
	b := newBridge(t)
	const nasty = `a"b\` + "\n" + `}é<`
	enc := func(s string) string {
		raw, err := encode(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for _, c := range []struct {
		args   []string
		stdin  string
		answer string
		want   string // method, path, body
		out    string
	}{
		{[]string{"secrets", "get", "KEY"}, "", `{"value":"v\n"}`, "GET /api/secrets/KEY ", "v\n\n"},
		{[]string{"config", "get", "k"}, "", `{"value":""}`, "GET /api/config/k ", "\n"},
		{[]string{"config", "set", "k", nasty}, "", "{}", `POST /api/config/k {"value":` + enc(nasty) + "}", ""},
		{[]string{"inference", "chat", "--fast", "-m", "x", "-m", nasty}, "", `{"content":"hi"}`, `POST /api/inference/chat {"messages":[{"content":` + enc(nasty) + `,"role":"user"}]}`, "hi\n"},
		{[]string{"agent", "dispatch", "id", nasty}, "", `{"task_id":"T"}`, `POST /api/agent/dispatch {"agent_id":"id","task":` + enc(nasty) + "}", `{"task_id":"T"}` + "\n"},
		{[]string{"agent", "memory", "query", nasty}, "", `{"results":[]}`, `POST /api/agent/memory/query {"query":` + enc(nasty) + "}", `{"results":[]}` + "\n"},
		{[]string{"agent", "memory", "store", nasty}, "", `{}`, `POST /api/agent/memory/store {"content":` + enc(nasty) + "}", "{}\n"},
		{[]string{"events", "emit", nasty}, "", `{}`, `POST /api/events/emit {"type":` + enc(nasty) + "}", ""},
		{[]string{"events", "emit", "t", `{"a":{"b":"}"}}`}, "", `{}`, `POST /api/events/emit {"payload":{"a":{"b":"}"}},"type":"t"}`, ""},
		{[]string{"plugin", "create"}, `{"name":"x"}`, `{"plugin_id":"x"}`, `POST /api/plugin/create {"name":"x"}`, `{"plugin_id":"x"}` + "\n"},
		{[]string{"log", "warn", nasty}, "", `{}`, `POST /api/log {"level":"warn","message":` + enc(nasty) + "}", ""},
		{[]string{"log", nasty}, "", `{}`, `POST /api/log {"level":"info","message":` + enc(nasty) + "}", ""},
	} {
		b.got, b.answer = nil, c.answer
		code, out, errOut := b.run(c.stdin, c.args...)
		if code != ExitOK || out != c.out || errOut != "" || len(b.got) != 1 || b.got[0] != c.want {
			t.Errorf("%q: exit %d, out %q, err %q, asked %q, want %q", c.args, code, out, errOut, b.got, c.want)
		}
		if b.header.Get("Authorization") != "Bearer the-token" || b.header.Get("X-Osaurus-Plugin") != "weather" {
			t.Errorf("%q: %v", c.args, b.header)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	b := newBridge(t)
	for _, args := range [][]string{
		nil, {"x"}, {"secrets"}, {"secrets", "get"}, {"secrets", "get", "a", "b"}, {"secrets", "get", ""}, {"secrets", "get", "a/b"}, {"secrets", "get", "a b"}, {"config", "set", "k"}, {"config", "get", "k?x"}, {"inference", "chat"}, {"inference", "chat", "-m"},
		{"agent"}, {"agent", "dispatch", "x"}, {"agent", "memory"}, {"agent", "memory", "drop", "x"}, {"events", "emit"}, {"events", "emit", "t", "{"}, {"plugin", "create", "x"}, {"plugin", "create"}, {"log"}, {"log", "a", "b", "c"},
	} {
		code, out, errOut := b.run("not JSON", args...)
		if code != ExitUsage || out != "" || !strings.HasPrefix(errOut, "Usage: osaurus-host ") {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, errOut)
		}
	}
	if len(b.got) != 0 {
		t.Errorf("the bridge was asked %q", b.got)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	b := newBridge(t)
	for status, c := range map[int][2]string{
		401: {`{"error":"Bridge token missing or unrecognised"}`, "osaurus-host: error 401: Bridge token missing or unrecognised\n"},
		500: {"broken", "osaurus-host: error 500: broken\n"},
	} {
		b.status, b.answer = status, c[0]
		for _, args := range [][]string{{"secrets", "get", "K"}, {"log", "x"}, {"inference", "chat", "-m", "x"}, {"agent", "memory", "query", "x"}} {
			if code, out, errOut := b.run("", args...); code != ExitRefused || out != "" || errOut != c[1] {
				t.Errorf("%q: exit %d, %q, %q", args, code, out, errOut)
			}
		}
	}
	b.status = 200
	for _, answer := range []string{"", "{}", `{"value":1}`, "[]"} {
		b.answer = answer
		if code, out, _ := b.run("", "secrets", "get", "K"); code != ExitRefused || out != "" {
			t.Errorf("%q: exit %d, %q", answer, code, out)
		}
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	b := newBridge(t)
	b.socket = filepath.Join(b.dir, "none")
	if code, out, errOut := b.run("", "log", "x"); code != ExitUnreachable || out != "" || !strings.HasPrefix(errOut, "osaurus-host: bridge unreachable: ") || strings.Contains(errOut, "the-token") {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
}

// TestInterrupted: a call that is ended says so, whatever it was waiting for.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	b := newBridge(t)
	asked := make(chan struct{})
	b.wait = func(ctx context.Context) { close(asked); <-ctx.Done() }
	stdin, end := io.Pipe()
	for _, args := range [][]string{{"log", "x"}, {"plugin", "create"}} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			if args[0] == "log" {
				<-asked
			}
			cancel()
		}()
		if code, out, errOut := b.runIn(ctx, stdin, args...); code != ExitRefused || out != "" || errOut != "osaurus-host: interrupted\n" {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, errOut)
		}
	}
	end.Close()
}

// TestLongRecipe: on both sides of the limit. What is over it is for the bridge
// to refuse, JSON or not.
func TestLongRecipe(t *testing.T) {
	t.Parallel()
	b := newBridge(t)
	long := `{"name":"` + strings.Repeat("x", maxRecipe-len(`{"name":""}`)) + `"}`
	for stdin, bytes := range map[string]int{long: maxRecipe, long + "\n": maxRecipe + 1, strings.Repeat("x", maxRecipe+100): maxRecipe + 1} {
		b.got = nil
		if code, _, errOut := b.run(stdin, "plugin", "create"); code != ExitOK || len(b.got) != 1 || len(b.got[0]) != len("POST /api/plugin/create ")+bytes {
			t.Errorf("%d bytes: exit %d, %q, %d calls", len(stdin), code, errOut, len(b.got))
		}
	}
}

func TestTokenFile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"missing":  {func(p string) error { return os.Remove(p) }, "bridge token for agent-x missing (host has not provisioned this agent yet)"},
		"empty":    {func(p string) error { return os.Truncate(p, 0) }, "bridge token for agent-x is empty"},
		"blank":    {func(p string) error { return os.WriteFile(p, []byte(" \n"), 0o600) }, "bridge token for agent-x is empty"},
		"readable": {func(p string) error { return os.Chmod(p, 0o640) }, "bridge token for agent-x is not a file of its owner alone"},
		"narrow":   {func(p string) error { return os.Chmod(p, 0o400) }, "bridge token for agent-x is not a file of its owner alone"},
		"folder":   {func(p string) error { return firstError(os.Remove(p), os.Mkdir(p, 0o600)) }, "bridge token for agent-x is not a file of its owner alone"},
		"link": {func(p string) error {
			return firstError(os.Rename(p, p+".real"), os.Symlink(p+".real", p))
		}, "bridge token for agent-x missing (host has not provisioned this agent yet)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBridge(t)
			if err := c.make(b.token); err != nil {
				t.Fatal(err)
			}
			if code, _, errOut := b.run("", "log", "x"); code != ExitToken || errOut != "osaurus-host: "+c.want+"\n" || len(b.got) != 0 {
				t.Errorf("exit %d, %q, asked %q", code, errOut, b.got)
			}
		})
	}
	if os.Getuid() == 0 {
		b := newBridge(t)
		if err := os.Chown(b.token, 2000, 2000); err != nil {
			t.Fatal(err)
		}
		if code, _, _ := b.run("", "log", "x"); code != ExitToken {
			t.Errorf("another's file: exit %d", code)
		}
	}
}

func firstError(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestPluginName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ env, dir, want string }{{"p", "/x/y", "p"}, {"", "/x/y", "y"}, {"", "/", ""}, {"", "", ""}, {"a\nb", "/x", ""}, {"", "/ü", ""}} {
		if got := (Command{Plugin: c.env, Dir: c.dir}).plugin(); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// FuzzArguments: whatever is typed, the body is JSON that carries it whole.
func FuzzArguments(f *testing.F) {
	f.Add("x", `{"a":1}`)
	f.Add(`"},{"`, "[")
	f.Fuzz(func(t *testing.T, text, payload string) {
		for _, args := range [][]string{{"agent", "memory", "store", text}, {"events", "emit", text, payload}, {"log", text}, {"inference", "chat", "-m", text}} {
			q, err := Command{Args: args}.parse(t.Context())
			if err != nil {
				continue
			}
			raw, err := encode(q.body)
			if err != nil || !json.Valid(raw) || bytes.IndexByte(raw, '\n') >= 0 && !strings.Contains(payload, "\n") {
				t.Errorf("%q: %q, %v", args, raw, err)
			}
		}
	})
}
