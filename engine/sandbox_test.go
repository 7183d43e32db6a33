package engine_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"osaurus/engine"
	"osaurus/engine/agents"
	"osaurus/engine/runner"
	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/wire"
	"osaurus/engine/secret"
	"osaurus/engine/settings"
	"osaurus/engine/storage/chats"
)

// scripted is a guest that the test itself plays: it says yes to every
// operation and keeps the token it is given.
type scripted struct {
	dir   string
	id    string
	uid   uint32
	token string
	l     net.Listener
	done  chan struct{}

	output func(wire.Request) []byte // what a command prints; nil is nothing
}

func (g *scripted) Name() string                    { return "scripted" }
func (g *scripted) Available(context.Context) error { return nil }
func (g *scripted) Provision(context.Context) error { return nil }
func (g *scripted) Sweep(context.Context) error     { return nil }
func (g *scripted) ID() string                      { return g.id }
func (g *scripted) BridgeListener() net.Listener    { return g.l }
func (g *scripted) Done() <-chan struct{}           { return g.done }
func (g *scripted) Err() error                      { return nil }
func (g *scripted) Stop(context.Context) error      { err := g.l.Close(); <-g.done; return err }
func (g *scripted) drivers(string) []sandbox.Driver { return []sandbox.Driver{g} }

func (g *scripted) Start(_ context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	var err error
	g.id, g.done = spec.ID, make(chan struct{})
	if g.l, err = net.Listen("unix", filepath.Join(g.dir, "s")); err != nil {
		return nil, err
	}
	c, err := net.Dial("unix", g.l.Addr().String())
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, wire.Preface{Kind: wire.Control, Nonce: spec.Boot.Nonce}.String()); err != nil {
		return nil, err
	}
	go func() {
		defer close(g.done)
		defer c.Close()
		lines := wire.NewLineReader(c)
		for {
			line, err := wire.ReadLine(lines)
			if err != nil {
				return
			}
			r, err := wire.ParseRequest(line)
			if err != nil {
				return
			}
			switch r.Op {
			case wire.UserAdd:
				g.uid = r.UID
			case wire.TokenPut:
				g.token = string(r.Token)
			}
			replies := []wire.Reply{{ID: r.ID, OK: true}}
			if r.Op == wire.Exec && g.output != nil {
				replies = []wire.Reply{{ID: r.ID, OK: true, More: true, Stream: 1, Data: g.output(r)}, {ID: r.ID, OK: true}}
			}
			for _, reply := range replies {
				raw, _ := json.Marshal(reply)
				if _, err := c.Write(append(raw, '\n')); err != nil {
					return
				}
			}
		}
	}()
	return g, nil
}

// post asks the bridge as the agent's user.
func (g *scripted) post(t *testing.T, path, body string) (int, string) {
	t.Helper()
	c, err := net.Dial("unix", g.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "%sPOST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", wire.Preface{Kind: wire.Bridge, Sandbox: g.id, UID: g.uid, PID: 1}, path, g.token, len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// TestSandboxServices: what a guest asks for is answered by the engine's own
// parts: models, tasks, memory, log; and an agent that is deleted is nobody.
func TestSandboxServices(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "osg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g, p, home := &scripted{dir: dir}, ports(), t.TempDir()
	p.Sandbox = g.drivers
	e := openHost(t, p, engine.Config{Home: home})
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	ctx := t.Context()
	if _, err := e.FirstStart(ctx); err != nil {
		t.Fatal(err)
	}
	mine, err := e.Agents.Create(ctx, agents.Draft{Name: "Worker", Model: runner.Echo})
	if err != nil {
		t.Fatal(err)
	}
	other, err := e.Agents.Create(ctx, agents.Draft{Name: "Other", Model: runner.Echo})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Sandbox.Provision(ctx, mine.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Memory.Add(ctx, other.ID, "walrus of another"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/api/inference/chat", `{"messages":[{"role":"user","content":"hello there"}]}`, 200, "hello there"},
		{"/api/inference/chat", `{"model":"none-such","messages":[{"role":"user","content":"x"}]}`, 500, "Inference failed: "},
		{"/api/agent/memory/store", `{"content":"the walrus is Wally"}`, 200, "{}"},
		{"/api/agent/memory/query", `{"query":"walrus"}`, 200, `"content":"the walrus is Wally","created_at"`},
		{"/api/agent/dispatch", `{"task":"say hi","external_session_key":"s"}`, 200, `{"task_id":"`},
		{"/api/events/emit", `{"type":"done","payload":{"n":1}}`, 200, "{}"},
	} {
		status, body := g.post(t, c.path, c.body)
		if status != c.status || !strings.Contains(body, c.want) || strings.Contains(body, "of another") {
			t.Errorf("%s: %d %s", c.path, status, body)
		}
	}
	facts, err := e.Memory.Facts(ctx, mine.ID)
	if err != nil || len(facts) != 1 {
		t.Error(facts, err)
	}
	log, err := os.ReadFile(e.LogPath())
	if err != nil || !strings.Contains(string(log), `"name":"SandboxEvent.done"`) || !strings.Contains(string(log), "sandbox_started") || strings.Contains(string(log), g.token) {
		t.Errorf("%v\n%s", err, log)
	}
	if err := e.Agents.Delete(ctx, mine.ID); err != nil {
		t.Fatal(err)
	}
	// Deleting revokes before it returns; the guest ends after.
	<-g.done
	if e.Sandbox.Running(mine.ID) {
		t.Error("the sandbox of a deleted agent runs")
	}
}

// TestRunUsesTheSandbox: a run has the tools of its agent's sandbox when the
// owner switched them on, and is as it was when not.
func TestRunUsesTheSandbox(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "osg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var bodies []string
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		bodies = append(bodies, string(raw))
		delta := `{"content":"Done."},"finish_reason":"stop"`
		if strings.Contains(string(raw), `"tools":`) && !strings.Contains(string(raw), `"role":"tool"`) {
			delta = `{"tool_calls":[{"index":0,"id":"c1","function":{"name":"sandbox_exec","arguments":"{\"command\":\"echo $API_KEY\"}"}}]},"finish_reason":"tool_calls"`
		}
		fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":%s}]}\n\ndata: [DONE]\n\n", delta)
	}))
	t.Cleanup(model.Close)
	g, p := &scripted{dir: dir}, ports()
	p.Sandbox = g.drivers
	g.output = func(r wire.Request) []byte {
		if i := slices.IndexFunc(r.Env, func(v string) bool { return strings.HasPrefix(v, "API_KEY=") }); i >= 0 {
			return []byte(r.Argv[2] + " gives " + r.Env[i])
		}
		return nil
	}
	e := openHost(t, p, engine.Config{Home: t.TempDir()})
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	ctx := t.Context()
	if _, err := e.FirstStart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := e.UseProvider(ctx, settings.Provider{BaseURL: model.URL, Model: "m"}, secret.Bytes{}); err != nil {
		t.Fatal(err)
	}
	a, err := e.Agents.Create(ctx, agents.Draft{Name: "Worker"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Sandbox.Secrets.Set(ctx, a.ID, "", "API_KEY", secret.New([]byte("planted-value"))); err != nil {
		t.Fatal(err)
	}
	run := func() string {
		bodies = nil
		req, err := runner.ParseRequest([]byte(`{"messages":[{"role":"user","content":"go"}],"session_id":"s"}`))
		if err != nil {
			t.Fatal(err)
		}
		admitted, err := e.Runner.Admit(ctx, runner.Caller{})
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := admitted.Stream(a, req, func(event []byte, _ bool) error { _, err := out.Write(event); return err }); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if out := run(); strings.Contains(out, "osaurus_agent_tool") || len(bodies) != 1 || strings.Contains(bodies[0], "sandbox") || e.Sandbox.Running(a.ID) {
		t.Errorf("switched off: %s\n%s", bodies, out)
	}
	on := sandbox.DefaultAutonomousExec()
	on.Enabled = true
	if err := e.Sandbox.SetSwitch(a.ID, on); err != nil {
		t.Fatal(err)
	}
	out := run()
	for _, want := range []string{`"choices":[],"osaurus_agent_tool":{"name":"sandbox_exec","phase":"started"}`, `"osaurus_agent_tool":{"name":"sandbox_exec","phase":"finished"}`, `"content":"Done."`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	if len(bodies) != 2 || !strings.Contains(bodies[1], `echo $API_KEY gives API_KEY=[REDACTED:API_KEY]`) || strings.Contains(bodies[1]+out, "planted-value") || strings.Contains(out, "echo") {
		t.Errorf("%q\n%s", bodies, out)
	}
	turns, err := e.Chats.Last(ctx, chats.Session{PluginID: chats.PluginHTTP, ExternalKey: "//s", AgentID: a.ID, Source: chats.SourceHTTP}, 10)
	if err != nil || len(turns) != 4 || turns[3].Content != "Done." {
		t.Errorf("kept %+v, %v", turns, err)
	}
}
