package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"osaurus/engine/fault"
)

const oneMessage = `"messages":[{"role":"user","content":"x"}]`

func TestParseRequest(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{
		`{` + oneMessage + `}`: nil,
		`{` + oneMessage + `,"n":1,"stream":true,"model":"m","x":{"y":1}}`:                nil,
		`{` + oneMessage + `,"response_format":{"type":"text"}}`:                          nil,
		`{` + oneMessage + `,"response_format":{"type":"json_object"}}`:                   nil,
		`{` + oneMessage + `,"session_id":"` + strings.Repeat("s", MaxSessionID) + `"}`:   nil,
		`{` + oneMessage + `,"session_id":"` + strings.Repeat("s", MaxSessionID+1) + `"}`: fault.InvalidFormat,
		`{` + oneMessage + `,"n":2}`:                                                      fault.UnsupportedParameter, `{` + oneMessage + `,"n":0}`: fault.UnsupportedParameter, `{` + oneMessage + `,"n":1.5}`: fault.UnsupportedParameter,
		`{` + oneMessage + `,"response_format":{"type":"json_schema","json_schema":{}}}`: fault.UnsupportedParameter,
		``: fault.InvalidFormat, `null`: fault.InvalidFormat, `[]`: fault.InvalidFormat, `{}`: fault.InvalidFormat, `{"messages":[]}`: fault.InvalidFormat,
		`{"messages":null}`: fault.InvalidFormat, `{"messages":[{}]}`: fault.InvalidFormat, `{"messages":[{"role":""}]}`: fault.InvalidFormat,
		`{"messages":[{"role":1}]}`: fault.InvalidFormat, `{"messages":"x"}`: fault.InvalidFormat, `{` + oneMessage + `,"model":1}`: fault.InvalidFormat,
		`{` + oneMessage + `,` + oneMessage + `}`: fault.InvalidFormat, `{` + oneMessage + `} x`: fault.InvalidFormat, `{` + oneMessage + `,"stream":"yes"}`: fault.InvalidFormat,
	} {
		if _, err := ParseRequest([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%.80s: %v, want %v", text, err, want)
		}
	}
	_, err := ParseRequest([]byte(`{` + oneMessage + `,"response_format":{"type":"json_schema"}}`))
	if !strings.Contains(fault.Of(err).Public(), "response_format") {
		t.Errorf("the field is not named: %v", err)
	}
}

func TestParseDispatch(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{
		`{"prompt":"x"}`: nil, `{"prompt":"x","title":"t","session_id":"s","more":1}`: nil,
		`{"prompt":""}`: fault.InvalidRequest, `{"prompt":" \n\t"}`: fault.InvalidRequest, `{}`: fault.InvalidRequest,
		``: fault.InvalidFormat, `[]`: fault.InvalidFormat, `{"prompt":1}`: fault.InvalidFormat, `{"prompt":"x","prompt":"y"}`: fault.InvalidFormat,
		`{"prompt":"x","session_id":"` + strings.Repeat("s", MaxSessionID+1) + `"}`: fault.InvalidFormat,
	} {
		if _, err := ParseDispatch([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%.60s: %v, want %v", text, err, want)
		}
	}
}

func TestMessageText(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		`"x"`: "x", `[{"type":"text","text":"a"},{"type":"image_url"},{"type":"text","text":"b"}]`: "a\nb", `null`: "", `1`: "", `{}`: "", ``: "",
	} {
		if got := (Message{Content: json.RawMessage(content)}).Text(); got != want {
			t.Errorf("%s: %q", content, got)
		}
	}
}

func TestMemoryChatsAreBounded(t *testing.T) {
	t.Parallel()
	m := NewMemoryChats()
	scope := func(i int) Scope { return Scope{AgentID: "a", Session: fmt.Sprint(i)} }
	turns := func(i int) int {
		got, err := m.Turns(t.Context(), scope(i))
		if err != nil {
			t.Fatal(err)
		}
		return len(got)
	}
	for i := range MaxConversations + 1 {
		if err := m.Append(t.Context(), scope(i), textMessage("user", "x")); err != nil {
			t.Fatal(err)
		}
	}
	if turns(0) != 0 || turns(1) != 1 || turns(MaxConversations) != 1 || len(m.turns) != MaxConversations || len(m.order) != MaxConversations {
		t.Errorf("%d conversations", len(m.turns))
	}
	for range MaxTurns {
		if err := m.Append(t.Context(), scope(5), textMessage("user", "y")); err != nil {
			t.Fatal(err)
		}
	}
	if turns(5) != MaxTurns || m.turns[scope(5)][0].Text() != "y" {
		t.Errorf("%d turns", turns(5))
	}
}

// FuzzParseRequest: what parses reaches the provider with its fields intact.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{` + oneMessage + `,"session_id":"s","stream_options":{"include_usage":true},"temperature":1e2}`))
	f.Add([]byte(`{"messages":[{"role":"user","content":[{"type":"text","text":"a"}],"name":"n"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := ParseRequest(body)
		if err != nil {
			return
		}
		raw, err := r.upstream("m", r.rawMessages(), true)
		if err != nil {
			t.Fatalf("%q cannot be sent on: %v", body, err)
		}
		again, err := ParseRequest(raw)
		if err != nil || len(again.Messages) != len(r.Messages) || !again.Stream || again.Model != "m" || again.SessionID != "" {
			t.Errorf("%q became %q, %v", body, raw, err)
		}
	})
}
