package runner

import (
	"encoding/json"
	"strings"

	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// Message is one turn of a chat. Content is a string or a list of parts.
type Message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content,omitempty"`
}

// Text returns the text of the message, parts joined.
func (m Message) Text() string {
	var s string
	if json.Unmarshal(m.Content, &s) == nil {
		return s
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if canonjson.Unmarshal(m.Content, &parts) != nil {
		return ""
	}
	var texts []string
	for _, p := range parts {
		if p.Type == "text" {
			texts = append(texts, p.Text)
		}
	}
	return strings.Join(texts, "\n")
}

func textMessage(role, text string) Message {
	raw, err := json.Marshal(text)
	if err != nil {
		panic("runner: internal error: " + err.Error()) // a string always marshals
	}
	return Message{Role: role, Content: raw}
}

// Request is a chat-completion request. Fields keeps everything as it came,
// so that parameters we do not know reach the provider.
type Request struct {
	Model     string
	Messages  []Message
	SessionID string
	Stream    bool
	Usage     bool // stream_options.include_usage
	fields    map[string]json.RawMessage
}

// MaxSessionID bounds a conversation's id in bytes.
const MaxSessionID = 256

// ParseRequest reads a chat-completion request. Errors: fault.InvalidFormat,
// or fault.UnsupportedParameter naming the field.
func ParseRequest(body []byte) (Request, error) {
	var r Request
	if canonjson.Unmarshal(body, &r.fields) != nil || r.fields == nil {
		return r, fault.InvalidFormat
	}
	var known struct {
		Model         string          `json:"model"`
		Messages      []Message       `json:"messages"`
		SessionID     string          `json:"session_id"`
		Stream        bool            `json:"stream"`
		N             json.RawMessage `json:"n"`
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
		ResponseFormat struct {
			Type string `json:"type"`
		} `json:"response_format"`
	}
	if canonjson.Unmarshal(body, &known) != nil || len(known.Messages) == 0 || len(known.SessionID) > MaxSessionID {
		return r, fault.InvalidFormat
	}
	for _, m := range known.Messages {
		if m.Role == "" {
			return r, fault.InvalidFormat
		}
	}
	if n := string(known.N); n != "" && n != "null" && n != "1" {
		return r, fault.WithText(fault.UnsupportedParameter, "n must be 1: this host returns one choice")
	}
	if t := known.ResponseFormat.Type; t != "" && t != "text" && t != "json_object" {
		return r, fault.WithText(fault.UnsupportedParameter, "response_format json_schema is not supported; use text or json_object")
	}
	r.Model, r.Messages, r.SessionID = known.Model, known.Messages, known.SessionID
	r.Stream, r.Usage = known.Stream, known.StreamOptions.IncludeUsage
	return r, nil
}

// upstream is the body sent to the provider: the caller's, with the model,
// the messages and streaming set by us, and our own fields taken out.
func (r Request) upstream(model string, messages []json.RawMessage, stream bool) ([]byte, error) {
	out := make(map[string]any, len(r.fields))
	for k, v := range r.fields {
		if k != "session_id" && k != "stream_options" {
			out[k] = v
		}
	}
	out["model"], out["messages"], out["stream"] = model, messages, stream
	if stream && r.Usage {
		out["stream_options"] = map[string]bool{"include_usage": true}
	}
	return canonjson.Marshal(out)
}

// rawMessages returns the caller's messages as they came.
func (r Request) rawMessages() []json.RawMessage {
	var raw []json.RawMessage
	if json.Unmarshal(r.fields["messages"], &raw) != nil {
		return nil
	}
	return raw
}
