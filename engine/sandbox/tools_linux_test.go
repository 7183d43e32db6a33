package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"osaurus/engine/secret"
)

// switchedOn lets an agent run up to the most commands in a turn.
func switchedOn(t *testing.T, s *Service, agentID string, change func(*AutonomousExec)) {
	t.Helper()
	on := DefaultAutonomousExec()
	on.Enabled, on.MaxCommands = true, MaxCommandsLimit
	if change != nil {
		change(&on)
	}
	if err := s.SetSwitch(agentID, on); err != nil {
		t.Fatal(err)
	}
}

// TestTools in a real guest.
func TestTools(t *testing.T) {
	t.Parallel()
	s, _, w := newService(t, nil)
	ctx := t.Context()
	switchedOn(t, s, agentA, nil)
	const value = "s3cr3t \"value\""
	if err := s.Secrets.Set(ctx, agentA, "", "API_KEY", secret.New([]byte(value))); err != nil {
		t.Fatal(err)
	}
	for agent, value := range map[string]string{agentA: "plugin-value", agentB: "value-of-another"} {
		if err := s.Secrets.Set(ctx, agent, "plug", "DEEP", secret.New([]byte(value))); err != nil {
			t.Fatal(err)
		}
	}
	home := Home(LinuxName(agentA))
	ok := func(tool, result string) string {
		return `{"ok":true,"result":{` + result + `},"tool":"` + tool + `"}`
	}
	failed := func(tool, kind, field, message string) string {
		return fmt.Sprintf(`{"field":%q,"kind":%q,"message":%q,"ok":false,"retryable":%t,"tool":%q}`, field, kind, message, kind == "invalid_args", tool)
	}
	for _, c := range []struct{ tool, arguments, want string }{
		{ToolExec, `{"command":"pwd; mkdir -p d; echo \"$API_KEY\" >&2; exit 3"}`, ok(ToolExec, `"exit_code":3,"stderr":"[REDACTED:API_KEY]\n","stdout":"`+home+`\n"`)},
		{ToolExec, `{"command":"pwd","cwd":"~/d","timeout":1800,"background":false}`, ok(ToolExec, `"exit_code":0,"stderr":"","stdout":"`+home+`/d\n"`)},
		{ToolExec, `{"command":"pwd","cwd":null}`, ok(ToolExec, `"exit_code":0,"stderr":"","stdout":"`+home+`\n"`)},
		{ToolExec, `{"command":"pwd","cwd":"/etc"}`, failed(ToolExec, "invalid_args", "cwd", "absolute path is outside the agent home and `/workspace/shared`")},
		{ToolExec, `{"command":"pwd","cwd":""}`, failed(ToolExec, "invalid_args", "cwd", "path is empty")},
		{ToolExec, `{"command":" "}`, failed(ToolExec, "invalid_args", "command", "command is 1 to 131071 bytes of text without NUL and not blank")},
		{ToolExec, `{"command":"x\u0000"}`, failed(ToolExec, "invalid_args", "command", "command is 1 to 131071 bytes of text without NUL and not blank")},
		{ToolExec, `{}`, failed(ToolExec, "invalid_args", "command", "command is missing")},
		{ToolExec, `{"command":["ls"]}`, failed(ToolExec, "invalid_args", "command", "command is no string")},
		{ToolExec, `{"command":"true","timeout":0}`, failed(ToolExec, "invalid_args", "timeout", "timeout is 1 to 1800 seconds")},
		{ToolExec, `{"command":"true","timeout":1801}`, failed(ToolExec, "invalid_args", "timeout", "timeout is 1 to 1800 seconds")},
		{ToolExec, `{"command":"true","timeout":"x"}`, failed(ToolExec, "invalid_args", "timeout", "timeout is no integer")},
		{ToolExec, `{"command":"true","shell":"x"}`, failed(ToolExec, "invalid_args", "shell", "there is no such argument")},
		{ToolExec, `{"command":"true","background":true}`, failed(ToolExec, "rejected", "background", "Background processes are switched off for this agent.")},
		{ToolWriteFile, `{"path":"n/f.txt","content":"hello"}`, ok(ToolWriteFile, `"bytes":5,"path":"`+home+`/n/f.txt"`)},
		{ToolReadFile, `{"path":"~/n/f.txt"}`, ok(ToolReadFile, `"bytes":5,"content":"hello","path":"`+home+`/n/f.txt"`)},
		{ToolExec, `{"command":"printf %s \"$API_KEY\" > kept"}`, ok(ToolExec, `"exit_code":0,"stderr":"","stdout":""`)},
		{ToolReadFile, `{"path":"kept"}`, ok(ToolReadFile, `"bytes":14,"content":"[REDACTED:API_KEY]","path":"`+home+`/kept"`)},
		{ToolReadFile, `{"path":"a..b"}`, failed(ToolReadFile, "invalid_args", "path", "path contains `..` (path traversal not allowed)")},
		{ToolWriteFile, `{"path":"a;b","content":""}`, failed(ToolWriteFile, "invalid_args", "path", "path contains the disallowed character `;`")},
		{ToolWriteFile, `{"path":"a"}`, failed(ToolWriteFile, "invalid_args", "content", "content is missing")},
		{ToolSecretCheck, `{"name":"API_KEY"}`, ok(ToolSecretCheck, `"name":"API_KEY","set":true`)},
		{ToolSecretCheck, `{"name":"NONE"}`, ok(ToolSecretCheck, `"name":"NONE","set":false`)},
		{ToolSecretSet, `{"name":"FRESH","value":"new-value"}`, ok(ToolSecretSet, `"name":"FRESH","set":true`)},
		{ToolSecretSet, `{"name":"API_KEY","value":"another"}`, failed(ToolSecretSet, "rejected", "name", "This secret is set already. The owner changes it.")},
		{ToolSecretSet, `{"name":"EMPTY","value":""}`, failed(ToolSecretSet, "invalid_args", "value", "value is text of 1 to 65536 bytes without NUL")},
		{ToolExec, `{"command":"echo $DEEP; OSAURUS_PLUGIN=plug osaurus-host secrets get DEEP | tee deep; echo value-of-another"}`, ok(ToolExec, `"exit_code":0,"stderr":"","stdout":"\n[REDACTED:DEEP]\nvalue-of-another\n"`)},
		{ToolReadFile, `{"path":"deep"}`, ok(ToolReadFile, `"bytes":13,"content":"[REDACTED:DEEP]\n","path":"`+home+`/deep"`)},
		{ToolExec, `{"command":"echo $FRESH"}`, ok(ToolExec, `"exit_code":0,"stderr":"","stdout":"[REDACTED:FRESH]\n"`)},
	} {
		if got := s.CallTool(ctx, agentA, c.tool, []byte(c.arguments)); got != c.want {
			t.Errorf("%s %s:\n%s\nwant\n%s", c.tool, c.arguments, got, c.want)
		}
	}
	for _, c := range []struct{ tool, arguments, want string }{
		{ToolReadFile, `{"path":"none"}`, `"kind":"execution_error"`}, {ToolReadFile, `{"path":"d"}`, "not a regular file"},
		{ToolSecretCheck, `{"name":"../x"}`, `"field":"name","kind":"invalid_args"`},
		{ToolExec, `[]`, "no JSON object"}, {ToolExec, `{"command":"a","command":"b"}`, "no JSON object"}, {ToolExec, ``, "no JSON object"}, {"sandbox_none", `{}`, "tool_not_found"},
	} {
		got := s.CallTool(ctx, agentA, c.tool, []byte(c.arguments))
		if !strings.Contains(got, c.want) || !strings.Contains(got, `"ok":false`) || !json.Valid([]byte(got)) {
			t.Errorf("%s %s: %s", c.tool, c.arguments, got)
		}
	}
	if v, err := s.Secrets.Secret(ctx, agentA, "", "API_KEY"); err != nil || string(v.Expose()) != value {
		t.Error("the secret of the owner was replaced", err)
	}
	if text := strings.Join(w.audit, "\n"); strings.Contains(text, "new-value") {
		t.Error(text)
	}
}

// TestToolFileBounds: on both sides of MaxFile, of what is clipped, and with a
// link that leads out.
func TestToolFileBounds(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, nil)
	ctx := t.Context()
	switchedOn(t, s, agentA, nil)
	for size, want := range map[int]bool{MaxFile: true, MaxFile + 1: false} {
		got := s.CallTool(ctx, agentA, ToolWriteFile, []byte(`{"path":"big","content":"`+strings.Repeat("x", size)+`"}`))
		if strings.Contains(got, `"ok":true`) != want {
			t.Errorf("%d bytes written: %s", size, got)
		}
		mustExec(t, s, agentA, fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x > big", size))
		got = s.CallTool(ctx, agentA, ToolReadFile, []byte(`{"path":"big"}`))
		if strings.Contains(got, fmt.Sprintf(`"bytes":%d,`, size)) != want || len(got) > MaxStdout+400 {
			t.Errorf("%d bytes read: %d, %.100s", size, len(got), got)
		}
	}
	for size, want := range map[int]string{MaxCommand: `"exit_code":0`, MaxCommand + 1: `"field":"command"`} {
		got := s.CallTool(ctx, agentA, ToolExec, []byte(`{"command":"#<`+strings.Repeat("<", size-2)+`"}`))
		if !strings.Contains(got, want) {
			t.Errorf("a command of %d bytes: %s", size, got)
		}
	}
	mustExec(t, s, agentA, "ln -s /etc/passwd link")
	for _, c := range []struct{ tool, arguments string }{{ToolReadFile, `{"path":"link"}`}, {ToolWriteFile, `{"path":"link/x","content":"x"}`}} {
		if got := s.CallTool(ctx, agentA, c.tool, []byte(c.arguments)); !strings.Contains(got, `"ok":false`) || strings.Contains(got, "root:") {
			t.Errorf("%s through a link: %s", c.tool, got)
		}
	}
}

// TestToolsOffered: switched on, and with a driver that works.
func TestToolsOffered(t *testing.T) {
	t.Parallel()
	s, n, _ := newService(t, nil)
	ctx := t.Context()
	if s.Tools(ctx, agentA) != nil {
		t.Error("offered while switched off")
	}
	switchedOn(t, s, agentA, nil)
	var names []string
	for _, tool := range s.Tools(ctx, strings.ToLower(agentA)) {
		names = append(names, tool.Name)
		var schema struct {
			Type       string
			Properties map[string]struct{ Type, Description string }
			Required   []string
		}
		if json.Unmarshal(tool.Parameters, &schema) != nil || schema.Type != "object" || len(schema.Required) == 0 || tool.Description == "" || schema.Properties["background"].Type != "" {
			t.Errorf("%s: %s", tool.Name, tool.Parameters)
		}
	}
	if got := strings.Join(names, " "); got != "sandbox_exec sandbox_read_file sandbox_write_file sandbox_secret_check sandbox_secret_set" || s.Tools(ctx, agentB) != nil || n.starts != 0 {
		t.Errorf("%s, %d starts", got, n.starts)
	}
	n.broken = errors.New("no such machine")
	if s.Tools(ctx, agentA) != nil {
		t.Error("offered with a driver that does not work")
	}
	if got := s.CallTool(ctx, agentA, ToolExec, []byte(`{"command":"true"}`)); !strings.Contains(got, `"kind":"unavailable"`) {
		t.Error(got)
	}
	n.broken = nil
	if err := s.change(func(set *Settings) { set.Driver = "another" }); err != nil {
		t.Fatal(err)
	}
	if s.Tools(ctx, agentA) != nil {
		t.Error("offered with a driver that is not there")
	}
	switchedOn(t, s, agentA, func(a *AutonomousExec) { a.Background = true })
	if got := s.CallTool(ctx, agentA, ToolExec, []byte(`{"command":"true","background":true}`)); !strings.Contains(got, `"kind":"unavailable"`) {
		t.Error(got)
	}
}

// TestToolCancelled: the command ends with the run.
func TestToolCancelled(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, nil)
	switchedOn(t, s, agentA, nil)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan string, 1)
	go func() { over <- s.CallTool(ctx, agentA, ToolExec, []byte(`{"command":"touch begun; sleep 1000"}`)) }()
	for mustExec(t, s, agentA, "test -e begun").ExitCode != 0 {
	}
	cancel()
	if got := <-over; !strings.Contains(got, `"killed_by":"user"`) {
		t.Error(got)
	}
	if r := mustExec(t, s, agentA, "ps | grep -c '[s]leep 1000'"); strings.TrimSpace(r.Stdout) != "0" {
		t.Errorf("%+v", r)
	}
}

func TestToolPathBound(t *testing.T) {
	t.Parallel()
	for size, ok := range map[int]bool{MaxPath: true, MaxPath + 1: false} {
		var failed *toolError
		_, err := toolPath(agentA, "cwd", strings.Repeat("x", size))
		if (err == nil) != ok || !ok && (!errors.As(err, &failed) || failed.field != "cwd" || failed.kind != invalidArgs) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestKeptArguments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ tool, in, want string }{
		{ToolExec, `{"command": "x"}`, `{"command": "x"}`}, {ToolExec, `{"command`, `{}`}, {ToolExec, `null`, `{}`},
		{ToolSecretSet, `{"name":"N","value":"hush"}`, `{"name":"N","value":"[REDACTED]"}`}, {ToolSecretSet, `{"name":"N","Value":"hush","value":{"x":"hush"}}`, `{"name":"N","value":"[REDACTED]"}`},
		{ToolSecretSet, `"hush"`, `{}`}, {ToolSecretSet, `{"value":"hush","value":"hush"}`, `{"value":"[REDACTED]"}`},
	} {
		if got := string(KeptArguments(c.tool, []byte(c.in))); got != c.want {
			t.Errorf("%s %s: %s", c.tool, c.in, got)
		}
	}
}

// FuzzParseArguments: what is read has the kinds that were asked for.
func FuzzParseArguments(f *testing.F) {
	f.Add([]byte(`{"command":"x","timeout":1,"background":true,"cwd":null}`))
	f.Add([]byte(`{"command":1}`))
	f.Add([]byte(`{"command":"x","\xff":1e400}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		in, err := parseArguments(tools[0].arguments, raw)
		if err != nil {
			if got := envelope(ToolExec, nil, err); !json.Valid([]byte(got)) || !strings.Contains(got, "invalid_args") {
				t.Errorf("%q: %s", raw, got)
			}
			return
		}
		if !in.has("command") {
			t.Errorf("%q has no command", raw)
		}
	})
}
