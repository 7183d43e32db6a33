package runner

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"osaurus/engine/internal/canonjson"
)

// Limits on the tool calls of one answer.
const (
	// MaxCalls is how many there may be.
	MaxCalls = 32
	// MaxArguments bounds the arguments of all together in bytes.
	MaxArguments = 1 << 20
	// MaxToolName and maxCallID bound a name and an id in bytes.
	MaxToolName = 64
	maxCallID   = 256
)

// toolCall is one call as the model asked for it.
type toolCall struct {
	index     int
	id, name  string
	arguments strings.Builder
}

// toolCalls gathers the calls of one answer from its deltas.
type toolCalls struct {
	list  []*toolCall
	size  int  // bytes of arguments
	asked bool // the answer ended with the wish that they are run
}

// take keeps the calls of a choice and returns what is left for the caller.
func (c *toolCalls) take(ch *choice, raw json.RawMessage) (json.RawMessage, error) {
	deltas := len(ch.Delta.Tools) > 0 && string(ch.Delta.Tools) != "null"
	if deltas {
		if err := c.add(ch.Delta.Tools); err != nil {
			return nil, err
		}
	}
	// Some servers end an answer that holds calls with "stop".
	asked := ch.Finish != nil && (*ch.Finish == "tool_calls" || *ch.Finish == "stop" && len(c.list) > 0)
	if !deltas && !asked {
		return raw, nil
	}
	ch.Delta.Tools = nil
	if asked {
		c.asked, ch.Finish = true, nil
	}
	return ch.rest()
}

// rest is the choice with its content and reasoning alone.
func (c choice) rest() (json.RawMessage, error) {
	delta := map[string]string{}
	if c.Delta.Content != nil {
		delta["content"] = *c.Delta.Content
	}
	if c.Delta.Reasoning != nil {
		delta["reasoning_content"] = *c.Delta.Reasoning
	}
	return canonjson.Marshal(map[string]any{"delta": delta, "finish_reason": c.Finish, "index": 0})
}

// callDelta is one element of tool_calls.
type callDelta struct {
	Index    *int   `json:"index"`
	ID       string `json:"id"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

func (c *toolCalls) add(raw json.RawMessage) error {
	var deltas []callDelta
	if json.Unmarshal(raw, &deltas) != nil {
		return errMalformed
	}
	for _, d := range deltas {
		call, err := c.find(d)
		if err != nil {
			return err
		}
		if d.Function.Name != call.name { // whole names come again with some servers
			call.name += d.Function.Name
		}
		if call.id == "" {
			call.id = d.ID
		}
		call.arguments.WriteString(d.Function.Arguments)
		c.size += len(d.Function.Arguments)
		if c.size > MaxArguments || len(call.name) > MaxToolName || len(call.id) > maxCallID {
			return errMalformed
		}
	}
	return nil
}

// find returns the call that a delta belongs to. Without an index a name
// begins a new call; so does another id under an index that was used.
func (c *toolCalls) find(d callDelta) (*toolCall, error) {
	next := 0
	for _, call := range c.list {
		next = max(next, call.index+1)
	}
	index := next
	switch {
	case d.Index != nil:
		index = *d.Index
	case d.Function.Name == "" && len(c.list) > 0:
		index = next - 1
	}
	for _, call := range slices.Backward(c.list) {
		if call.index == index && (d.ID == "" || call.id == "" || d.ID == call.id) {
			return call, nil
		}
	}
	if index < 0 || index >= MaxCalls || len(c.list) >= MaxCalls {
		return nil, errMalformed
	}
	c.list = append(c.list, &toolCall{index: index})
	return c.list[len(c.list)-1], nil
}

// ready returns the calls in their order, complete. round makes ids that a
// server left out unique in the conversation.
func (c *toolCalls) ready(round int) ([]*toolCall, error) {
	if !c.asked {
		return nil, nil
	}
	slices.SortStableFunc(c.list, func(a, b *toolCall) int { return cmp.Compare(a.index, b.index) })
	for i, call := range c.list {
		if call.name == "" {
			return nil, errMalformed
		}
		if call.id == "" {
			call.id = fmt.Sprintf("call_%d_%d", round, i+1)
		}
		if call.arguments.Len() == 0 {
			call.arguments.WriteString("{}")
		}
	}
	if len(c.list) == 0 {
		return nil, errMalformed
	}
	return c.list, nil
}
