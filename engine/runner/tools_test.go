package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"osaurus/engine/agents"
	"osaurus/engine/fault"
)

// toolbox is a Tools of two tools that says what it was asked.
type toolbox struct {
	off  bool
	hold chan struct{} // when set, a call waits for its context and tells here

	mu    sync.Mutex
	asked []string
}

func (b *toolbox) List(_ context.Context, agentID string) []Tool {
	if b.off || agentID != someone.ID {
		return nil
	}
	return []Tool{{"sandbox_exec", "Runs.", json.RawMessage(`{"type":"object"}`)}, {"look", "Looks.", json.RawMessage(`{}`)}}
}

func (b *toolbox) Call(ctx context.Context, agentID, name string, arguments []byte) string {
	b.mu.Lock()
	b.asked = append(b.asked, agentID[:4]+" "+name+" "+string(arguments))
	n := len(b.asked)
	b.mu.Unlock()
	if b.hold != nil {
		b.hold <- struct{}{}
		<-ctx.Done()
	}
	return fmt.Sprintf("result %d", n)
}

func (b *toolbox) Kept(name string, arguments []byte) []byte {
	return []byte(strings.ReplaceAll(string(arguments), "hush", "***"))
}

// delta is an event with tool_calls and, unless "", a finish reason.
func delta(calls, finish string) string {
	reason := "null"
	if finish != "" {
		reason = `"` + finish + `"`
	}
	return `data: {"choices":[{"index":0,"delta":{"tool_calls":[` + calls + `]},"finish_reason":` + reason + `}]}` + "\n\n"
}

const (
	wants = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}` + "\n\ndata: [DONE]\n\n"
	over  = "data: [DONE]\n\n"
	one   = `{"index":0,"id":"c1","type":"function","function":{"name":"sandbox_exec","arguments":"{\"command\":\"ls hush\"}"}}`
)

// script answers each request of a run with the next stream.
func script(t *testing.T, b *toolbox, streams ...string) (*Runner, *[]call, *strings.Builder) {
	t.Helper()
	var log strings.Builder
	var seen []call
	e := Endpoint{BaseURL: "http://provider.invalid", Model: "m", Client: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		var c call
		if err := json.NewDecoder(req.Body).Decode(&c.Body); err != nil {
			return nil, err
		}
		seen = append(seen, c)
		text := streams[min(len(seen), len(streams))-1]
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(text)), Request: req, Header: http.Header{}}, nil
	})}}
	r := newRunner(t, func(c *Config) {
		c.Tools, c.Log = b, slog.New(slog.NewTextHandler(&log, nil))
		c.Endpoint = func(context.Context) (Endpoint, error) { return e, nil }
	})
	return r, &seen, &log
}

func phase(name, phase string) string {
	return `> [],"osaurus_agent_tool":{"name":"` + name + `","phase":"` + phase + `"}}` + "\n\n"
}

// TestToolRound: batches, fragments and two calls in one turn; the caller sees
// names and phases, the provider what came of them, the history the last text.
func TestToolRound(t *testing.T) {
	t.Parallel()
	b := &toolbox{}
	r, seen, log := script(t, b,
		piece("Let me see.")+
			delta(`{"index":0,"id":"c1","type":"function","function":{"name":"sandbox_exec","arguments":""}}`, "")+
			delta(`{"index":0,"function":{"arguments":"{\"command\":"}},{"index":1,"id":"c2","function":{"name":"look","arguments":"{\"x\":"}}`, "")+
			delta(`{"index":1,"function":{"arguments":"1}"}},{"index":0,"function":{"arguments":"\"ls hush\"}"}}`, "")+
			`data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`+"\n\n"+wants,
		piece("Done.")+finish+`data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30,"x":1}}`+"\n\n"+over,
	)
	out := run(t, r, Caller{}, ask(t, "m", `,"session_id":"s","stream_options":{"include_usage":true}`))
	want := role + content("Let me see.") + phase("sandbox_exec", "started") + phase("sandbox_exec", "finished") + phase("look", "started") + phase("look", "finished") +
		content("Done.") + stopped + `> [],"usage":{"completion_tokens":22,"prompt_tokens":11,"total_tokens":33,"x":1}}` + "\n\n" + done
	if got := stripped(t, out, "m"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := strings.Join(b.asked, "; "); got != `1111 sandbox_exec {"command":"ls hush"}; 1111 look {"x":1}` {
		t.Errorf("called %s", got)
	}
	const tools = `[{"function":{"description":"Runs.","name":"sandbox_exec","parameters":{"type":"object"}},"type":"function"},{"function":{"description":"Looks.","name":"look","parameters":{}},"type":"function"}]`
	for i, c := range *seen {
		if string(c.Body["tools"]) != tools || c.Body["tool_choice"] != nil {
			t.Errorf("request %d has tools %s", i, c.Body["tools"])
		}
	}
	const begin = `[{"content":"Be brief.","role":"system"},{"content":"Hi there","role":"user"}`
	const asked = `,{"content":"Let me see.","role":"assistant","tool_calls":[{"function":{"arguments":"{\"command\":\"ls ***\"}","name":"sandbox_exec"},"id":"c1","type":"function"},{"function":{"arguments":"{\"x\":1}","name":"look"},"id":"c2","type":"function"}]}` +
		`,{"content":"result 1","role":"tool","tool_call_id":"c1"},{"content":"result 2","role":"tool","tool_call_id":"c2"}]`
	if len(*seen) != 2 || string((*seen)[0].Body["messages"]) != begin+"]" || string((*seen)[1].Body["messages"]) != begin+asked {
		t.Fatalf("%d requests, the last with %s", len(*seen), (*seen)[len(*seen)-1].Body["messages"])
	}
	turns, err := r.c.Chats.Turns(t.Context(), ScopeOf(nil, someone.ID, "s"))
	if err != nil || len(turns) != 2 || turns[1].Text() != "Done." {
		t.Errorf("kept %v, %v", turns, err)
	}
	if strings.Contains(log.String(), "hush") || strings.Contains(log.String(), "result") || !strings.Contains(log.String(), "tool=look") {
		t.Errorf("the log says\n%s", log)
	}
}

// TestToolsOff: without tools of ours a request is what it always was, and
// calls go to the caller.
func TestToolsOff(t *testing.T) {
	t.Parallel()
	plain := func(b *toolbox, more string) (string, string) {
		r, seen, _ := script(t, b, delta(one, "")+wants)
		out := run(t, r, Caller{}, ask(t, "m", more))
		body, err := json.Marshal((*seen)[0].Body)
		if err != nil || len(*seen) != 1 {
			t.Fatalf("%d requests, %v", len(*seen), err)
		}
		return string(body), stripped(t, out, "m")
	}
	none := newRunner(t, nil)
	if none.offer(t.Context(), someone, ask(t, "m", "")) != nil {
		t.Error("tools without a port")
	}
	body, out := plain(&toolbox{off: true}, "")
	if strings.Contains(body, "tools") || !strings.Contains(out, `"tool_calls":[`+one) || strings.Contains(out, "osaurus_agent_tool") {
		t.Errorf("switched off: %s\n%s", body, out)
	}
	for _, field := range []string{`"tools":[{"type":"function","function":{"name":"theirs"}}]`, `"tools":[]`, `"functions":[]`} {
		b := &toolbox{}
		body, out := plain(b, ","+field)
		if !strings.Contains(body, field[:8]) || strings.Contains(body, "sandbox_exec") || !strings.Contains(out, `"tool_calls":[`+one) || b.asked != nil {
			t.Errorf("%s: %s\n%s", field, body, out)
		}
	}
	b := &toolbox{}
	r, seen, _ := script(t, b, "")
	if out := run(t, r, Caller{}, ask(t, Echo, "")); !strings.Contains(out, "there") || *seen != nil {
		t.Errorf("echo: %s", out)
	}
}

// TestMaxRounds: the last round is told to answer without tools.
func TestMaxRounds(t *testing.T) {
	t.Parallel()
	asks := delta(one, "") + wants
	for answers, want := range map[int]string{MaxRounds - 1: content("Done.") + stopped + done, MaxRounds: phase("sandbox_exec", "finished") + string(fault.Event(fault.ProviderFailed)) + done} {
		var streams []string
		for range answers {
			streams = append(streams, asks)
		}
		b := &toolbox{}
		r, seen, _ := script(t, b, append(streams, piece("Done.")+finish+over)...)
		out := stripped(t, run(t, r, Caller{}, ask(t, "m", "")), "m")
		last := (*seen)[len(*seen)-1]
		if !strings.HasSuffix(out, want) || len(*seen) != MaxRounds || len(b.asked) != MaxRounds-1 || string(last.Body["tool_choice"]) != `"none"` || (*seen)[MaxRounds-2].Body["tool_choice"] != nil {
			t.Errorf("%d answers that ask: %d requests, %d calls\n%s", answers, len(*seen), len(b.asked), out)
		}
	}
}

// TestToolAnswers: what else may end an answer with calls.
func TestToolAnswers(t *testing.T) {
	t.Parallel()
	failed := role + string(fault.Event(fault.ProviderFailed)) + done
	ran := role + phase("sandbox_exec", "started") + phase("sandbox_exec", "finished") + content("Done.") + stopped + done
	for name, c := range map[string]struct{ stream, want string }{
		"with the finish":   {delta(one, "tool_calls") + over, ran},
		"stop":              {delta(one, "") + finish + over, ran},
		"after the finish":  {delta(one, "tool_calls") + `data: {"choices":[{"index":0,"delta":{}}]}` + "\n\n" + over, ran},
		"length":            {delta(one, "length") + over, role + `> [{"delta":{},"finish_reason":"length","index":0}]}` + "\n\n" + done},
		"no finish":         {delta(one, "") + over, role + ours + done},
		"text beside":       {`data: {"choices":[{"index":0,"delta":{"content":"x","reasoning_content":"y","tool_calls":[` + one + `]},"finish_reason":"tool_calls"}]}` + "\n\n" + over, role + `> [{"delta":{"content":"x","reasoning_content":"y"},"finish_reason":null,"index":0}]}` + "\n\n" + ran[len(role):]},
		"no call":           {wants, failed},
		"no name":           {delta(`{"index":0,"id":"c","function":{"arguments":"{}"}}`, "tool_calls") + over, failed},
		"broken":            {delta(`{"index":"x"}`, "") + over, failed},
		"cut off":           {delta(one, ""), failed},
		"unknown tool":      {delta(strings.Replace(one, "sandbox_exec", "rm <secret>", 1), "tool_calls") + over, role + content("Done.") + stopped + done},
		"null calls":        {`data: {"choices":[{"index":0,"delta":{"content":"x","tool_calls":null},"finish_reason":"stop"}]}` + "\n\n" + over, role + `> [{"index":0,"delta":{"content":"x","tool_calls":null},"finish_reason":"stop"}]}` + "\n\n" + done},
		"arguments missing": {delta(`{"function":{"name":"sandbox_exec"}}`, "tool_calls") + over, ran},
	} {
		r, _, _ := script(t, &toolbox{}, c.stream, piece("Done.")+finish+over)
		if got := stripped(t, run(t, r, Caller{}, ask(t, "m", "")), "m"); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

// TestCancelEndsTheCall: a caller who leaves, a cancelled task and a closed
// runner end the tool that runs.
func TestCancelEndsTheCall(t *testing.T) {
	t.Parallel()
	b := &toolbox{hold: make(chan struct{})}
	r, seen, _ := script(t, b, delta(one, "tool_calls")+over)
	ctx, cancel := context.WithCancel(t.Context())
	admitted, err := r.Admit(ctx, Caller{})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = admitted.Stream(someone, ask(t, "m", ""), func(event []byte, _ bool) error { out.Write(event); return ctx.Err() })
	}()
	<-b.hold
	cancel()
	<-over
	if strings.Contains(out.String(), "finished") || len(*seen) != 1 {
		t.Errorf("%d requests\n%s", len(*seen), &out)
	}
	task := dispatch(t, r, Caller{}, "m")
	<-b.hold
	if err := r.Cancel(Caller{}, task.ID); err != nil {
		t.Fatal(err)
	}
	if got := ended(t, r, Caller{}, task.ID); got.Status != Cancelled {
		t.Errorf("%+v", got)
	}
	task = dispatch(t, r, Caller{}, "m")
	<-b.hold
	r.Close()
	if got := ended(t, r, Caller{}, task.ID); got.Status != Cancelled {
		t.Errorf("%+v", got)
	}
}

// TestToolsOverLoopback: with a provider that is a server, and a task, which
// has tools as a run has.
func TestToolsOverLoopback(t *testing.T) {
	t.Parallel()
	b := &toolbox{}
	r, p := withProvider(t, func(c *Config) { c.Tools = b })
	a := agents.Agent{ID: someone.ID, Model: "tools"}
	task, err := r.Dispatch(t.Context(), Caller{}, a, Dispatch{Prompt: "x"})
	if err != nil {
		t.Fatal(err)
	}
	// The server's model asks for a tool that is not there until it may not.
	if got := ended(t, r, Caller{}, task.ID); got.Status != Failed || len(p.seen) != MaxRounds || b.asked != nil {
		t.Errorf("%+v after %d requests", got, len(p.seen))
	}
	if got := string(p.last(t).Body["messages"]); strings.Count(got, "tool_not_found") != MaxRounds-1 || !strings.Contains(got, `"tool_call_id":"c1"`) {
		t.Errorf("sent %s", got)
	}
}

func TestToolCallLimits(t *testing.T) {
	t.Parallel()
	call := func(index int, id, name string, size int) string {
		return fmt.Sprintf(`[{"index":%d,"id":%q,"function":{"name":%q,"arguments":%q}}]`, index, id, name, strings.Repeat("x", size))
	}
	many := func(n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(`{"function":{"name":"f"}},`, n), ",") + "]"
	}
	for text, ok := range map[string]bool{
		call(MaxCalls-1, "", "f", 0): true, call(MaxCalls, "", "f", 0): false, call(-1, "", "f", 0): false,
		call(0, "", strings.Repeat("f", MaxToolName), 0): true, call(0, "", strings.Repeat("f", MaxToolName+1), 0): false,
		call(0, strings.Repeat("c", maxCallID), "f", 0): true, call(0, strings.Repeat("c", maxCallID+1), "f", 0): false,
		call(0, "", "f", MaxArguments): true, call(0, "", "f", MaxArguments+1): false,
		many(MaxCalls): true, many(MaxCalls + 1): false,
	} {
		var c toolCalls
		if err := c.add(json.RawMessage(text)); (err == nil) != ok || err != nil && !errors.Is(err, errMalformed) {
			t.Errorf("%.60s: %v", text, err)
		}
	}
	var c toolCalls
	if err := errors.Join(c.add(json.RawMessage(call(0, "", "f", MaxArguments/2))), c.add(json.RawMessage(call(1, "", "g", MaxArguments/2)))); err != nil {
		t.Fatal(err)
	}
	if c.add(json.RawMessage(call(0, "", "", 1))) == nil {
		t.Error("all together have more than the limit")
	}
}

func calls(t testing.TB, deltas ...string) string {
	t.Helper()
	c := toolCalls{asked: true}
	for _, d := range deltas {
		if err := c.add(json.RawMessage(d)); err != nil {
			return "error"
		}
	}
	list, err := c.ready(3)
	if err != nil {
		return "error"
	}
	var out []string
	for _, one := range list {
		out = append(out, one.id+" "+one.name+" "+one.arguments.String())
	}
	return strings.Join(out, "; ")
}

// TestToolCallDialects: what servers make of the deltas.
func TestToolCallDialects(t *testing.T) {
	t.Parallel()
	for want, deltas := range map[string][]string{
		"a f 1; b g 2":                 {`[{"index":1,"id":"b","function":{"name":"g","arguments":"2"}}]`, `[{"index":0,"id":"a","function":{"name":"f","arguments":"1"}}]`},
		"a f 12":                       {`[{"index":0,"id":"a","function":{"name":"f","arguments":"1"}}]`, `[{"index":0,"id":"a","function":{"name":"f","arguments":"2"}}]`}, // id and name come again
		"a f 1; b f 23":                {`[{"index":0,"id":"a","function":{"name":"f","arguments":"1"}}]`, `[{"index":0,"id":"b","function":{"name":"f","arguments":"2"}}]`, `[{"index":0,"function":{"arguments":"3"}}]`},
		"call_3_1 f 12; call_3_2 g {}": {`[{"function":{"name":"f","arguments":"1"}}]`, `[{"function":{"arguments":"2"}}]`, `[{"id":"","function":{"name":"g"}}]`}, // no index
		"error":                        {`[{"index":0,"function":{"arguments":{}}}]`},
	} {
		if got := calls(t, deltas...); got != want {
			t.Errorf("%v: %s, want %s", deltas, got, want)
		}
	}
	if got := calls(t, `[{"index":0,"id":"a","function":{"name":"sandbox_"}}]`, `[{"index":0,"function":{"name":"exec"}}]`); got != "a sandbox_exec {}" {
		t.Errorf("a name in pieces: %s", got)
	}
}

// FuzzToolCalls: nothing panics, the limits hold, and calls that were read
// read the same when each comes whole.
func FuzzToolCalls(f *testing.F) {
	f.Add(`[`+one+`]`, `[{"index":0,"function":{"arguments":"x"}},{"index":1,"id":"c2","function":{"name":"g"}}]`)
	f.Add(`[{"function":{"name":"f"}}]`, `[{"function":{"arguments":"1"}},{"function":{"name":"g"}}]`)
	f.Add(`[{"index":31}]`, `[{"index":-1}]`)
	f.Add(`null`, `{}`)
	f.Fuzz(func(t *testing.T, first, second string) {
		c := toolCalls{asked: true}
		if c.add(json.RawMessage(first)) != nil || c.add(json.RawMessage(second)) != nil {
			return
		}
		list, err := c.ready(1)
		if err != nil {
			return
		}
		var whole []any
		size := 0
		for i, one := range list {
			size += len(one.arguments.String())
			whole = append(whole, map[string]any{"index": i, "id": one.id, "function": map[string]string{"name": one.name, "arguments": one.arguments.String()}})
		}
		if len(list) > MaxCalls || size > MaxArguments+2*MaxCalls {
			t.Fatalf("%d calls of %d bytes", len(list), size)
		}
		raw, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		var again toolCalls
		if err := again.add(raw); size <= MaxArguments && err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
	})
}

func TestAddUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ a, b, want string }{
		{"", "", ""}, {`{"total_tokens":1}`, "", `{"total_tokens":1}`}, {"", `{ "total_tokens":1}`, `{ "total_tokens":1}`}, {`{"total_tokens":1}`, `{"total_tokens":2,"x":{}}`, `{"total_tokens":3,"x":{}}`},
		{`{}`, `{"total_tokens":2}`, `{"total_tokens":2}`}, {`{"total_tokens":1}`, `7`, `7`}, {`{"total_tokens":1.5}`, `{"total_tokens":2}`, `{"total_tokens":2}`},
	} {
		raw := func(s string) json.RawMessage {
			if s == "" {
				return nil
			}
			return json.RawMessage(s)
		}
		if got := string(addUsage(raw(c.a), raw(c.b))); got != c.want {
			t.Errorf("%s + %s = %s, want %s", c.a, c.b, got, c.want)
		}
	}
}
