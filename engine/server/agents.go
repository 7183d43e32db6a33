package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/agents"
	"osaurus/engine/fault"
	"osaurus/engine/runner"
)

// item is an agent as the wire shows it.
func (s *Server) item(ctx context.Context, a agents.Agent) map[string]any {
	out := map[string]any{
		"id": a.ID, "name": a.Name, "description": a.Description, "is_built_in": a.BuiltIn,
		"memory_entry_count": s.c.Memory.Count(ctx, a.ID), "created_at": a.Created, "updated_at": a.Updated,
	}
	if a.Model != "" {
		out["default_model"], out["effective_model"] = a.Model, a.Model
	}
	if !a.Address.IsZero() {
		out["address"] = a.Address.Lower()
		if u := s.c.RelayURL(a.Address); u != "" {
			out["relay_url"] = u
		}
	}
	return out
}

// inScope is PROTOCOL.md section 4, last line: nobody's or the master's access
// passes, else the agent must be the key's.
func inScope(access *accesskey.Access, a agents.Agent) bool {
	return access == nil || access.MasterScoped || !a.Address.IsZero() && a.Address == access.Audience
}

// everything reports a caller who is not confined to one agent.
func (x *exchange) everything() bool { return x.access == nil || x.access.MasterScoped }

func (s *Server) listAgents(x *exchange) {
	list := []map[string]any{}
	for _, a := range s.c.Agents.List() {
		if !a.BuiltIn && inScope(x.access, a) {
			list = append(list, s.item(x.r.Context(), a))
		}
	}
	x.json(http.StatusOK, map[string]any{"agents": list})
}

func (s *Server) getAgent(x *exchange, id string) {
	a, err := s.c.Agents.Resolve(id)
	if err == nil && a.BuiltIn {
		err = fault.AgentNotFound
	}
	// Whether there is another agent is not for an agent's key to know.
	if err == nil && !inScope(x.access, a) || errors.Is(err, fault.AgentNotFound) && !x.everything() {
		err = fault.AgentScopeDenied
	}
	if err != nil {
		x.refuse(s, err)
		return
	}
	x.json(http.StatusOK, s.item(x.r.Context(), a))
}

// reach resolves the agent of a run or dispatch, in the order of PROTOCOL.md
// section 5.
func (s *Server) reach(x *exchange, id string) (agents.Agent, error) {
	a, err := s.c.Agents.Resolve(id)
	switch {
	case err != nil:
	case a.BuiltIn && !x.trusted:
		err = fault.BuiltInNotExposable
	case !inScope(x.access, a):
		err = fault.AgentScopeDenied
	default:
		err = s.claim(x)
	}
	return a, err
}

func (s *Server) run(x *exchange, id string) {
	raw, err := x.read()
	var req runner.Request
	if err == nil {
		req, err = runner.ParseRequest(raw)
	}
	var a agents.Agent
	if err == nil {
		a, err = s.reach(x, id)
	}
	var run *runner.Run
	if err == nil {
		run, err = s.c.Runner.Admit(x.r.Context(), x.caller())
	}
	if err != nil {
		x.refuse(s, err)
		return
	}
	s.firstUse(x, a)
	// The error says that the caller is gone, which ended the run.
	_ = run.Stream(a, req, x.stream())
}

// stream starts an event stream and returns what emits into it.
func (x *exchange) stream() runner.Emit {
	h := x.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	x.w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(x.w)
	return func(event []byte, flush bool) error {
		if _, err := x.w.Write(event); err != nil {
			return err
		}
		if !flush {
			return nil
		}
		return control.Flush()
	}
}

func (s *Server) dispatch(x *exchange, id string) {
	raw, err := x.read()
	var d runner.Dispatch
	if err == nil {
		d, err = runner.ParseDispatch(raw)
	}
	var a agents.Agent
	if err == nil {
		a, err = s.reach(x, id)
	}
	var t runner.Task
	if err == nil {
		t, err = s.c.Runner.Dispatch(x.r.Context(), x.caller(), a, d)
	}
	if err != nil {
		if fault.Of(err).Code == fault.TaskLimit {
			err = &fault.Error{Code: fault.TaskLimit, RetryAfter: time.Second}
		}
		x.refuse(s, err)
		return
	}
	s.firstUse(x, a)
	x.json(http.StatusAccepted, map[string]string{"id": t.ID, "status": t.Status, "poll_url": "/v1/tasks/" + t.ID})
}

// firstUse tells the owner that a peer uses an agent, once a minute and key.
func (s *Server) firstUse(x *exchange, a agents.Agent) {
	if x.access == nil {
		return
	}
	if _, ok := s.used.Allow(x.access.Audience.Lower() + x.access.Nonce); ok {
		s.c.Logger.Info("agent used", "agentId", a.ID, "keyNonce", x.access.Nonce)
	}
}

// Memory keeps what peers ingest for an agent.
type Memory interface {
	// Ingest replaces one conversation and returns how many turns it has.
	Ingest(ctx context.Context, agentID, conversation string, turns []Turn) (int, error)
	Count(ctx context.Context, agentID string) int
}

// Turn is one exchange of a conversation.
type Turn struct {
	User      string `json:"user"`
	Assistant string `json:"assistant"`
	Date      string `json:"date,omitempty"`
}

func (s *Server) ingest(x *exchange) {
	var in struct {
		AgentID      *string `json:"agent_id"`
		Conversation *string `json:"conversation_id"`
		Turns        []Turn  `json:"turns"`
	}
	if err := x.decodeJSON(&in, fault.InvalidFormat); err != nil {
		x.refuse(s, err)
		return
	}
	var a agents.Agent
	var n int
	err := error(fault.WithText(fault.InvalidRequest, "agent_id, conversation_id and turns are required."))
	if in.AgentID != nil && in.Conversation != nil && strings.TrimSpace(*in.Conversation) != "" && in.Turns != nil {
		a, err = s.c.Agents.Resolve(*in.AgentID)
	}
	if err == nil && !inScope(x.access, a) || errors.Is(err, fault.AgentNotFound) && !x.everything() {
		err = fault.AgentScopeDenied
	}
	if err == nil {
		err = s.claim(x)
	}
	if err == nil {
		n, err = s.c.Memory.Ingest(x.r.Context(), a.ID, *in.Conversation, in.Turns)
	}
	if err != nil {
		x.refuse(s, err)
		return
	}
	x.json(http.StatusOK, map[string]any{"status": "ok", "turns_ingested": n})
}
