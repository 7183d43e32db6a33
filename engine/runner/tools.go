package runner

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"

	"osaurus/engine/agents"
	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// MaxRounds is how often one run asks the provider. The last time the model
// is told to answer without tools.
const MaxRounds = 16

var errTooManyRounds = errors.New("the model asks for tools again and again")

// Tool is what a model may call.
type Tool struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters"` // a JSON schema
}

// Tools are what the runs of agents may call. Implementations are safe for
// concurrent use.
type Tools interface {
	// List returns what an agent may call now; none is no tools at all.
	List(ctx context.Context, agentID string) []Tool

	// Call runs a tool and returns what the model is told, refusals included.
	// It returns when the call has ended, early once ctx has.
	Call(ctx context.Context, agentID, name string, arguments []byte) string

	// Kept returns the arguments of a call without what must not be kept.
	Kept(name string, arguments []byte) []byte
}

// offer returns the agent's tools. A caller that brings tools of its own gets
// the calls itself.
func (r *Runner) offer(ctx context.Context, a agents.Agent, req Request) []Tool {
	_, tools := req.fields["tools"]
	_, functions := req.fields["functions"]
	if r.c.Tools == nil || tools || functions {
		return nil
	}
	return r.c.Tools.List(ctx, a.ID)
}

// with returns the request with one field set.
func (r Request) with(field string, value any) (Request, error) {
	raw, err := canonjson.Marshal(value)
	fields := maps.Clone(r.fields)
	fields[field] = raw
	r.fields = fields
	return r, err
}

// rounds is a run whose model may call tools: the provider is asked until it
// answers without a call.
type rounds struct {
	tools    Tools
	offered  []Tool
	endpoint Endpoint
	agentID  string
	req      Request
	model    string
	messages []json.RawMessage
	log      *slog.Logger
}

func (s *rounds) stream(ctx context.Context, w *writer) error {
	type definition struct {
		Type     string `json:"type"`
		Function Tool   `json:"function"`
	}
	var definitions []definition
	for _, t := range s.offered {
		definitions = append(definitions, definition{"function", t})
	}
	var err error
	if s.req, err = s.req.with("tools", definitions); err != nil {
		return err
	}
	for round := 1; round <= MaxRounds; round++ {
		calls, err := s.ask(ctx, w, round)
		if err != nil || len(calls) == 0 {
			return err
		}
		if round == MaxRounds {
			break
		}
		if err := s.answer(ctx, w, calls); err != nil {
			return err
		}
		w.nextRound()
	}
	return fault.New(fault.ProviderFailed, errTooManyRounds)
}

// ask streams one answer and returns the calls it asks for.
func (s *rounds) ask(ctx context.Context, w *writer, round int) ([]*toolCall, error) {
	req := s.req
	if round == MaxRounds {
		var err error
		if req, err = req.with("tool_choice", "none"); err != nil {
			return nil, err
		}
	}
	body, err := req.upstream(s.model, s.messages, true)
	if err != nil {
		return nil, err
	}
	w.calls = &toolCalls{}
	if err := s.endpoint.stream(ctx, body, w.pass(req.Usage)); err != nil {
		return nil, err
	}
	calls, err := w.calls.ready(round)
	if err != nil {
		return nil, fault.New(fault.ProviderFailed, err)
	}
	return calls, nil
}

// answer runs the calls one after the other and adds them, and what came of
// them, to the conversation.
func (s *rounds) answer(ctx context.Context, w *writer, calls []*toolCall) error {
	asked := make([]any, 0, len(calls))
	for _, c := range calls {
		kept := s.tools.Kept(c.name, []byte(c.arguments.String()))
		asked = append(asked, map[string]any{"id": c.id, "type": "function", "function": map[string]string{"name": c.name, "arguments": string(kept)}})
	}
	var content any // null when the model said nothing
	if text := w.text(); text != "" {
		content = text
	}
	if err := s.add(map[string]any{"role": "assistant", "content": content, "tool_calls": asked}); err != nil {
		return err
	}
	for _, c := range calls {
		result, err := s.run(ctx, w, c)
		if err != nil {
			return err
		}
		if err := s.add(map[string]any{"role": "tool", "tool_call_id": c.id, "content": result}); err != nil {
			return err
		}
	}
	return nil
}

func (s *rounds) add(message any) error {
	raw, err := canonjson.Marshal(message)
	s.messages = append(s.messages, raw)
	return err
}

// run runs one call and tells the caller when it starts and ends. A name that
// was not offered is the model's text: it goes back to the model alone.
func (s *rounds) run(ctx context.Context, w *writer, c *toolCall) (string, error) {
	if !slices.ContainsFunc(s.offered, func(t Tool) bool { return t.Name == c.name }) {
		return `{"kind":"tool_not_found","message":"There is no tool of this name.","ok":false,"retryable":false}`, nil
	}
	if err := w.tool(c.name, "started"); err != nil {
		return "", err
	}
	s.log.Info("tool called", slog.String("agent", s.agentID), slog.String("tool", c.name))
	result := s.tools.Call(ctx, s.agentID, c.name, []byte(c.arguments.String()))
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return result, w.tool(c.name, "finished")
}
