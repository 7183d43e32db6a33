package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"

	"osaurus/engine/fault"
	"osaurus/engine/runner"
	"osaurus/engine/sandbox"
)

// maxEvent is how much of an event's payload the security log keeps, in
// bytes, and maxAnswer how much of a completion is read.
const (
	maxEvent  = 4 << 10
	maxAnswer = 4 << 20
)

// guests is the engine as sandboxes use it.
type guests struct{ e *Engine }

var (
	_ sandbox.Inference  = guests{}
	_ sandbox.Dispatcher = guests{}
	_ sandbox.EventBus   = guests{}
	_ sandbox.Memory     = guestMemory{}
)

// openSandbox prepares sandboxes; none is started.
func (e *Engine) openSandbox() (err error) {
	var drivers []sandbox.Driver
	if e.ports.Sandbox != nil {
		drivers = e.ports.Sandbox(e.config.Home)
	}
	e.Sandbox, err = sandbox.Open(sandbox.ServiceConfig{
		Home: e.config.Home, Version: e.config.Version, Drivers: drivers, Vault: e.store, Inference: guests{e}, Dispatcher: guests{e}, Memory: guestMemory{e}, Events: guests{e},
		Now: e.ports.Now, Rand: e.ports.Rand, Log: e.Event, Logger: e.ports.Logger,
	})
	if err == nil {
		e.Agents.OnChange(func() { e.Sandbox.Prune(e.own) })
	}
	return err
}

// Chat implements sandbox.Inference.
func (g guests) Chat(ctx context.Context, agentID, model string, messages []sandbox.Message) (string, error) {
	if model == "default" {
		a, _ := g.e.Agents.Get(agentID)
		model = a.Model // "" is the provider's
	}
	body, err := json.Marshal(map[string]any{"model": model, "messages": messages})
	if err != nil {
		return "", err
	}
	req, err := runner.ParseRequest(body)
	if err != nil {
		return "", err
	}
	answer, err := g.e.Runner.Complete(ctx, runner.Caller{}, req, false)
	if err != nil {
		return "", err
	}
	defer answer.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body(), maxAnswer+1))
	if err != nil {
		return "", fault.New(fault.ProviderFailed, err)
	}
	var out struct {
		Choices []struct{ Message runner.Message }
	}
	if len(raw) > maxAnswer || json.Unmarshal(raw, &out) != nil || len(out.Choices) == 0 {
		return "", fault.New(fault.ProviderFailed, errors.New("the answer does not parse"))
	}
	return out.Choices[0].Message.Text(), nil
}

// Dispatch implements sandbox.Dispatcher. The session of a guest is its own:
// it never continues a conversation of the owner.
func (g guests) Dispatch(ctx context.Context, job sandbox.Job) (string, error) {
	a, ok := g.e.Agents.Get(job.AgentID)
	if !ok {
		return "", fault.AgentNotFound
	}
	d := runner.Dispatch{Prompt: job.Task}
	if job.Session != "" {
		d.SessionID = job.Source + ":" + job.Session
		if len(d.SessionID) > runner.MaxSessionID {
			return "", fault.WithText(fault.InvalidRequest, "The session key is too long.")
		}
	}
	task, err := g.e.Runner.Dispatch(ctx, runner.Caller{}, a, d)
	return task.ID, err
}

// Publish implements sandbox.EventBus: events stand in the security log.
func (g guests) Publish(_ context.Context, name, source string, payload json.RawMessage) error {
	text := string(payload)
	if len(text) > maxEvent {
		text = strings.ToValidUTF8(text[:maxEvent], "") + "…"
	}
	g.e.Event("sandbox_event", slog.String("name", name), slog.String("source", source), slog.String("payload", text))
	return nil
}

// guestMemory is the memory store as sandboxes use it: pinned facts alone.
type guestMemory struct{ e *Engine }

// Query implements sandbox.Memory.
func (m guestMemory) Query(ctx context.Context, agentID, text string, limit int) ([]sandbox.Fact, error) {
	found, err := m.e.Memory.FindPinned(ctx, agentID, text, limit)
	facts := make([]sandbox.Fact, 0, len(found))
	for _, f := range found {
		facts = append(facts, sandbox.Fact{Content: f.Content, Salience: f.Salience, Created: f.Created})
	}
	return facts, err
}

// Store implements sandbox.Memory.
func (m guestMemory) Store(ctx context.Context, agentID, content string, salience float64, tag string) error {
	return m.e.Memory.Pin(ctx, agentID, content, salience, tag)
}

// guestTools are the sandbox's tools as agents' runs use them.
type guestTools struct{ e *Engine }

var _ runner.Tools = guestTools{}

// List implements runner.Tools.
func (t guestTools) List(ctx context.Context, agentID string) []runner.Tool {
	var all []runner.Tool
	for _, one := range t.e.Sandbox.Tools(ctx, agentID) {
		all = append(all, runner.Tool{Name: one.Name, Description: one.Description, Parameters: one.Parameters})
	}
	return all
}

// Call implements runner.Tools.
func (t guestTools) Call(ctx context.Context, agentID, name string, arguments []byte) string {
	return t.e.Sandbox.CallTool(ctx, agentID, name, arguments)
}

// Kept implements runner.Tools.
func (guestTools) Kept(name string, arguments []byte) []byte {
	return sandbox.KeptArguments(name, arguments)
}
