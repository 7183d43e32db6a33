package sandbox

import (
	"net/http"
	"strings"

	"osaurus/engine/internal/canonjson"
)

// agent answers /api/agent/…: what an agent does as itself. Every answer is
// about the agent the token names, whatever the body says.
func (c *call) agent() (any, error) {
	if len(c.path) < 2 {
		return nil, refuse(http.StatusBadRequest, "Subcommand required: dispatch, memory")
	}
	var serve func() (any, error)
	switch c.path[1] {
	case "dispatch":
		serve = c.dispatch
	case "memory":
		if len(c.path) < 3 {
			return nil, refuse(http.StatusBadRequest, "Action required: query or store")
		}
		switch c.path[2] {
		case "query":
			serve = c.queryMemory
		case "store":
			serve = c.storeMemory
		default:
			return nil, refuse(http.StatusNotFound, "Unknown memory action: "+c.path[2])
		}
	default:
		return nil, refuse(http.StatusNotFound, "Unknown agent subcommand: "+c.path[1])
	}
	if c.r.Method != http.MethodPost {
		return nil, &failure{status: http.StatusMethodNotAllowed, text: "Method not allowed", allow: http.MethodPost}
	}
	return serve()
}

// dispatch charges the limit first, then reads, then compares, then looks
// whether there is anything to do.
func (c *call) dispatch() (any, error) {
	if err := c.limit(bucketDispatch, c.who.LinuxName, "Rate limit exceeded for dispatch"); err != nil {
		return nil, err
	}
	var in struct {
		Task    *string `json:"task"`
		AgentID string  `json:"agent_id"`
		Session string  `json:"external_session_key"`
	}
	if canonjson.Unmarshal(c.body, &in) != nil || in.Task == nil {
		return nil, refuse(http.StatusBadRequest, "Body must contain task")
	}
	if in.AgentID != "" && !strings.EqualFold(in.AgentID, c.who.AgentID) {
		return nil, &failure{status: http.StatusForbidden, text: "agent_id in body does not match token-bound identity", why: foreignAgent}
	}
	if strings.TrimSpace(*in.Task) == "" {
		return nil, refuse(http.StatusBadRequest, "task is empty")
	}
	id, err := c.c.Dispatcher.Dispatch(c.r.Context(), Job{AgentID: c.who.AgentID, Task: *in.Task, Session: in.Session, Source: c.source()})
	if err != nil {
		return nil, failed("Dispatch failed: ", err)
	}
	return map[string]string{"task_id": id}, nil
}

type foundFact struct {
	Content  string  `json:"content"`
	Salience float64 `json:"salience"`
	Created  int64   `json:"created_at"` // Unix seconds
}

func (c *call) queryMemory() (any, error) {
	if err := c.limitHTTP(); err != nil {
		return nil, err
	}
	var in struct {
		Query *string `json:"query"`
	}
	if canonjson.Unmarshal(c.body, &in) != nil || in.Query == nil {
		return nil, refuse(http.StatusBadRequest, "Body must contain query")
	}
	facts, err := c.c.Memory.Query(c.r.Context(), c.who.AgentID, *in.Query, MaxResults)
	if err != nil {
		return nil, failed("Memory query failed: ", err)
	}
	results := make([]foundFact, 0, MaxResults)
	for _, f := range facts[:min(len(facts), MaxResults)] {
		results = append(results, foundFact{f.Content, f.Salience, f.Created.Unix()})
	}
	return map[string]any{"results": results}, nil
}

func (c *call) storeMemory() (any, error) {
	if err := c.limitHTTP(); err != nil {
		return nil, err
	}
	var in struct {
		Content *string `json:"content"`
	}
	if canonjson.Unmarshal(c.body, &in) != nil || in.Content == nil {
		return nil, refuse(http.StatusBadRequest, "Body must contain content")
	}
	if err := c.c.Memory.Store(c.r.Context(), c.who.AgentID, *in.Content, Salience, "source:"+c.source()); err != nil {
		return nil, failed("Memory store failed: ", err)
	}
	return struct{}{}, nil
}
