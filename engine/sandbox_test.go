package engine_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine"
	"osaurus/engine/agents"
	"osaurus/engine/runner"
	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/wire"
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
			raw, _ := json.Marshal(wire.Reply{ID: r.ID, OK: true})
			if _, err := c.Write(append(raw, '\n')); err != nil {
				return
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
