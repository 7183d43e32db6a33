package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// Names of the tools.
const (
	ToolExec        = "sandbox_exec"
	ToolReadFile    = "sandbox_read_file"
	ToolWriteFile   = "sandbox_write_file"
	ToolSecretCheck = "sandbox_secret_check"
	ToolSecretSet   = "sandbox_secret_set"
)

// MaxFile bounds what sandbox_write_file writes and sandbox_read_file reads,
// in bytes.
const MaxFile = 8 << 20

// BuiltinTool is what the model of an agent's run may call.
type BuiltinTool struct {
	Name        string
	Description string
	Parameters  json.RawMessage // a JSON schema
	arguments   []argument
	run         func(s *Service, ctx context.Context, agentID string, in arguments) (any, error)
}

// tools are all there are, in the order they are shown.
var tools = []BuiltinTool{
	{
		Name: ToolExec, Description: "Runs a command line with a POSIX shell as your own user in your sandbox and returns its output and exit code. Nothing goes on after the command.",
		run: (*Service).execTool, arguments: []argument{
			{name: "command", kind: textType, required: true, about: "The command line."},
			{name: "cwd", kind: textType, about: "Directory to run in, below your home or /workspace/shared. Your home unless given."},
			{name: "timeout", kind: numberType, about: "Seconds without output after which the command is ended, 1 to 1800. 60 unless given."},
			{name: "background", kind: truthType},
		},
	},
	{
		Name: ToolReadFile, Description: "Reads a text file of your sandbox.", run: (*Service).readTool,
		arguments: []argument{{name: "path", kind: textType, required: true, about: "Below your home or /workspace/shared."}},
	},
	{
		Name: ToolWriteFile, Description: "Writes a text file of your sandbox, replacing the one that is there. Missing directories are made.", run: (*Service).writeTool,
		arguments: []argument{{name: "path", kind: textType, required: true, about: "Below your home or /workspace/shared."}, {name: "content", kind: textType, required: true, about: "The whole text."}},
	},
	{
		Name: ToolSecretCheck, Description: "Says whether a secret is set. Commands see it as the environment variable of that name; its value is never shown.", run: (*Service).secretCheckTool,
		arguments: []argument{{name: "name", kind: textType, required: true, about: "The secret's name."}},
	},
	{
		Name: ToolSecretSet, Description: "Keeps a new secret. One that is set already is the owner's to change.", run: (*Service).secretSetTool,
		arguments: []argument{{name: "name", kind: textType, required: true, about: "The secret's name."}, {name: "value", kind: textType, required: true, about: "The secret's value."}},
	},
}

// Tools returns what an agent's runs may call: nothing while the owner has it
// switched off, and nothing without a driver that works here.
func (s *Service) Tools(ctx context.Context, agentID string) []BuiltinTool {
	if !s.Switch(agentID).Enabled || !s.drivable(ctx) {
		return nil
	}
	all := slices.Clone(tools)
	for i := range all {
		all[i].Parameters = schema(all[i].arguments)
	}
	return append(all, s.offerPlugins(agentID)...)
}

// drivable reports whether the driver of the settings can run.
func (s *Service) drivable(ctx context.Context) bool {
	name := s.Settings().Driver
	for _, d := range s.c.Drivers {
		if name == "" || d.Name() == name {
			return d.Available(ctx) == nil
		}
	}
	return false
}

// CallTool runs a tool for the model of an agent's run and returns what the
// model is told: an envelope with "ok", and "result" or the kind of failure.
func (s *Service) CallTool(ctx context.Context, agentID, name string, raw []byte) string {
	i := slices.IndexFunc(tools, func(t BuiltinTool) bool { return t.Name == name })
	plugin, ofPlugin := s.pluginTools(agentID)[name]
	if i < 0 && !ofPlugin {
		return envelope(name, nil, &toolError{kind: toolNotFound, message: "There is no tool of this name."})
	}
	if err := s.admitTool(agentID); err != nil {
		return envelope(name, nil, err)
	}
	if ofPlugin {
		result, err := s.callPlugin(ctx, agentID, plugin, raw)
		return envelope(name, result, err)
	}
	in, err := parseArguments(tools[i].arguments, raw)
	if err != nil {
		return envelope(name, nil, err)
	}
	result, err := tools[i].run(s, ctx, agentID, in)
	return envelope(name, result, err)
}

func (s *Service) execTool(ctx context.Context, agentID string, in arguments) (any, error) {
	line := in.text("command")
	if !validCommand(line) {
		return nil, badArgument("command", "command is 1 to 131071 bytes of text without NUL and not blank")
	}
	if in.truth("background") {
		if !s.Switch(agentID).Background {
			return nil, &toolError{kind: rejected, field: "background", message: "Background processes are switched off for this agent."}
		}
		return nil, &toolError{kind: unavailable, field: "background", message: "This sandbox ends a command with all its processes."}
	}
	idle := time.Duration(0)
	if seconds, given := in.number("timeout"); given {
		if seconds < 1 || seconds > int64(MaxIdle/time.Second) {
			return nil, badArgument("timeout", "timeout is 1 to 1800 seconds")
		}
		idle = time.Duration(seconds) * time.Second
	}
	dir := ""
	if in.has("cwd") {
		var err error
		if dir, err = toolPath(agentID, "cwd", in.text("cwd")); err != nil {
			return nil, err
		}
	}
	return s.Exec(ctx, Run{AgentID: agentID, Line: line, Dir: dir, Idle: idle})
}

// MaxPath bounds a path that a model gives, in bytes: PATH_MAX of Linux.
const MaxPath = 4096

// toolPath is Sanitize with an error that names the field.
func toolPath(agentID, field, path string) (string, error) {
	if len(path) > MaxPath {
		return "", badArgument(field, "path has more than 4096 bytes")
	}
	clean, err := Sanitize(path, Home(LinuxName(agentID)))
	if err != nil {
		return "", badArgument(field, err.Error())
	}
	return clean, nil
}

func (s *Service) readTool(ctx context.Context, agentID string, in arguments) (any, error) {
	path, err := toolPath(agentID, "path", in.text("path"))
	if err != nil {
		return nil, err
	}
	type content struct {
		Path    string `json:"path"`
		Content string `json:"content"`
		Bytes   int    `json:"bytes"`
	}
	var out content
	err = s.inGuest(ctx, agentID, func(g *Guest, secrets Collection) error {
		data, _, err := g.get(ctx, LinuxName(agentID), path, MaxFile)
		if err != nil {
			return err
		}
		// Scrubbed whole, then clipped, as output is.
		out = content{path, Clip(string(secrets.Scrub(data)), MaxStdout), len(data)}
		return nil
	})
	return out, err
}

func (s *Service) writeTool(ctx context.Context, agentID string, in arguments) (any, error) {
	path, err := toolPath(agentID, "path", in.text("path"))
	if err != nil {
		return nil, err
	}
	data := []byte(in.text("content"))
	if len(data) > MaxFile {
		return nil, badArgument("content", "content is at most 8 MiB")
	}
	err = s.inGuest(ctx, agentID, func(g *Guest, _ Collection) error {
		return g.Put(ctx, LinuxName(agentID), path, 0o600, data)
	})
	return map[string]any{"path": path, "bytes": len(data)}, err
}

// inGuest provisions the agent when needed and calls f, whose errors are the
// guest's: they are told without the values of secrets.
func (s *Service) inGuest(ctx context.Context, agentID string, f func(*Guest, Collection) error) error {
	if err := s.Provision(ctx, agentID); err != nil {
		return err
	}
	e, release, err := s.use(s.keyOf(agentID))
	if err != nil {
		return err
	}
	defer release()
	secrets, err := s.Secrets.CollectAll(ctx, agentID)
	if err != nil {
		return err
	}
	defer secrets.Destroy()
	if err := f(e.guest, secrets); err != nil {
		return &toolError{kind: executionError, message: string(secrets.Scrub([]byte(err.Error()))), retryable: errors.Is(err, ErrGuestGone)}
	}
	return nil
}

func (s *Service) secretCheckTool(ctx context.Context, agentID string, in arguments) (any, error) {
	set, err := s.secretSet(ctx, agentID, in.text("name"))
	return map[string]any{"name": in.text("name"), "set": set}, err
}

func (s *Service) secretSet(ctx context.Context, agentID, name string) (bool, error) {
	if !ValidSecretName(name) {
		return false, badArgument("name", "name is letters, digits, dot, dash and underscore, and begins with no digit, dot or dash")
	}
	names, err := s.Secrets.Names(ctx, agentID, "")
	return slices.Contains(names, name), err
}

func (s *Service) secretSetTool(ctx context.Context, agentID string, in arguments) (any, error) {
	name := in.text("name")
	set, err := s.secretSet(ctx, agentID, name)
	if err != nil {
		return nil, err
	}
	if set {
		return nil, &toolError{kind: rejected, field: "name", message: "This secret is set already. The owner changes it."}
	}
	value := secret.Take([]byte(in.text("value")))
	defer value.Destroy()
	if err := s.Secrets.Set(ctx, agentID, "", name, value); errors.Is(err, fault.Usage) {
		return nil, badArgument("value", "value is text of 1 to 65536 bytes without NUL")
	} else if err != nil {
		return nil, err
	}
	return map[string]any{"name": name, "set": true}, nil
}

// KeptArguments returns the arguments of a tool call as a conversation keeps
// them: without a secret's value, and nothing of what does not parse.
func KeptArguments(name string, raw []byte) []byte {
	var in map[string]any
	if json.Unmarshal(raw, &in) != nil || in == nil {
		return []byte("{}")
	}
	if name != ToolSecretSet {
		return raw
	}
	maps.DeleteFunc(in, func(key string, _ any) bool { return key != "name" && key != "value" })
	kept, err := json.Marshal(RedactArguments(name, in))
	if err != nil {
		return []byte("{}")
	}
	return kept
}
