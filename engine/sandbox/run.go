package sandbox

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"osaurus/engine/fault"
)

// DefaultIdle is how long a command may be silent unless asked otherwise.
const (
	DefaultIdle = 60 * time.Second
	MaxIdle     = 30 * time.Minute
	maxOutput   = 4 << 20 // bytes kept of each stream before it is clipped

	// MaxCommand bounds a command line in bytes: what Linux takes as one
	// argument, and escaped in JSON still within a line of the control stream.
	MaxCommand = 128<<10 - 1
)

// Run is a command of an agent.
type Run struct {
	AgentID string
	Line    string // for a POSIX shell
	Dir     string // as a model gave it; "" is the home
	Plugin  string // whose secrets the command sees; "" is the agent's own
	Idle    time.Duration

	params []string // NAME=value, of a plugin's tool
}

// Result is how a command went. Values of secrets are not in it.
type Result struct {
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
	ExitCode int    `json:"exit_code"`
	KilledBy string `json:"killed_by,omitempty"`
	Hint     string `json:"hint,omitempty"`
}

// Why a tool call of a model is refused. It is not to be retried.
var (
	ErrSwitchedOff = fault.WithText(fault.Unsupported, "Running commands is switched off for this agent.")
	ErrTurnLimit   = fault.WithText(fault.TaskLimit, "This turn has run as many commands as allowed.")
)

// admitTool counts a call of a tool: only when the owner switched them on,
// and only so many in a turn. Errors: ErrSwitchedOff, ErrTurnLimit.
func (s *Service) admitTool(agentID string) error {
	on := s.Switch(agentID)
	if !on.Enabled {
		return ErrSwitchedOff
	}
	if !s.limiter.Allow(strings.ToUpper(agentID), on.MaxCommands) {
		return ErrTurnLimit
	}
	return nil
}

// Exec provisions the agent when needed and runs a command as its user.
func (s *Service) Exec(ctx context.Context, r Run) (Result, error) {
	name := LinuxName(r.AgentID)
	dir := ""
	if r.Dir != "" {
		var err error
		if dir, err = Sanitize(r.Dir, Home(name)); err != nil {
			return Result{}, fault.WithText(fault.Usage, "cwd: "+err.Error())
		}
	}
	if r.Idle == 0 {
		r.Idle = DefaultIdle
	}
	if r.Idle < 0 || r.Idle > MaxIdle || !validCommand(r.Line) {
		return Result{}, fault.WithText(fault.Usage, "a command is at most 131071 bytes of text without NUL, and may be silent for at most 30 minutes")
	}
	if err := s.Provision(ctx, r.AgentID); err != nil {
		return Result{}, err
	}
	e, release, err := s.use(s.keyOf(r.AgentID))
	if err != nil {
		return Result{}, err
	}
	defer release()
	secrets, err := s.Secrets.Collect(ctx, r.AgentID, r.Plugin)
	if err != nil {
		return Result{}, err
	}
	defer secrets.Destroy()
	hidden, err := s.Secrets.CollectAll(ctx, r.AgentID)
	if err != nil {
		return Result{}, err
	}
	defer hidden.Destroy()
	c := Shell(name, r.Line)
	c.Dir, c.Idle = dir, r.Idle
	c.Env = append(secrets.Environment(), s.proxyEnv(e)...)
	if r.Plugin != "" {
		c.Env = append(append(c.Env, r.params...), "OSAURUS_PLUGIN="+r.Plugin)
	}
	done, err := execute(ctx, e.guest, c, hidden)
	if err == nil {
		s.keepSometimes(ctx, e, name)
	}
	return done, err
}

func validCommand(line string) bool {
	return strings.TrimSpace(line) != "" && strings.IndexByte(line, 0) < 0 && len(line) <= MaxCommand
}

// proxyEnv names the proxy and holds no credential: the channel says whose
// the requests are.
func (s *Service) proxyEnv(e *environment) []string {
	if s.networkOf(e) == NetworkNone {
		return nil
	}
	const proxy = "http://127.0.0.1:3128"
	return []string{
		"http_proxy=" + proxy, "https_proxy=" + proxy, "HTTP_PROXY=" + proxy, "HTTPS_PROXY=" + proxy, "no_proxy=localhost,127.0.0.1", "NO_PROXY=localhost,127.0.0.1",
	}
}

func execute(ctx context.Context, g *Guest, c Command, secrets Collection) (Result, error) {
	var out [3]bytes.Buffer
	exit, err := g.Exec(ctx, c, func(stream int, data []byte) {
		if stream == 1 || stream == 2 {
			out[stream].Write(data[:min(len(data), maxOutput-out[stream].Len())])
		}
	})
	if err != nil {
		return Result{}, err
	}
	r := Result{ExitCode: exit.Code, KilledBy: exit.KilledBy}
	// Scrubbed whole, then clipped: a cut must not leave half a value.
	r.Stdout = Clip(string(secrets.Scrub(out[1].Bytes())), MaxStdout)
	r.Stderr = Clip(string(secrets.Scrub(out[2].Bytes())), MaxStderr)
	r.Hint = Hint(r)
	return r, nil
}

// Hint explains a failure that the bridge is behind.
func Hint(r Result) string {
	switch text := r.Stderr; {
	case r.ExitCode == 0:
		return ""
	case strings.Contains(text, "error 401"):
		return "The bridge refused this agent's token: authentication failed. Restart the sandbox."
	case strings.Contains(text, "bridge token for"):
		return "This agent is not provisioned yet."
	case r.ExitCode == 4 && strings.Contains(text, "bridge unreachable"):
		return "The bridge is unreachable. Restart the sandbox."
	case r.ExitCode == 127:
		return "A program is missing in the sandbox."
	case strings.Contains(text, "Could not resolve") || strings.Contains(text, "bad address") || strings.Contains(text, "Network is unreachable"):
		return "The sandbox has no network, or the host is not on its list."
	}
	return ""
}

// Check is one line of diagnose.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Text string `json:"text,omitempty"`
}

// Diagnose tries the whole way with an agent that is nobody's. Its token is
// revoked whatever happens, and nothing of it is left.
func (s *Service) Diagnose(ctx context.Context) (checks []Check, err error) {
	defer func() {
		s.tokens.Revoke(DiagnosticUser)
		err = errors.Join(err, s.Unprovision(context.WithoutCancel(ctx), DiagnosticAgent))
	}()
	if err := s.Provision(ctx, DiagnosticAgent); err != nil {
		return append(checks, Check{"start", false, fault.Of(err).Public() + ": " + err.Error()}), nil
	}
	checks = append(checks, Check{Name: "start", OK: true})
	for _, c := range []struct {
		name, line string
		code       int
	}{
		{"user", "id -u", 0},
		{"bridge", "osaurus-host log debug diagnose", 0},
		{"memory", "osaurus-host agent memory query diagnose", 0},
		{"foreign identity refused", "osaurus-host agent dispatch 00000000-0000-0000-0000-000000000001 x", 1},
		{"root has no token", "test ! -r /run/osaurus/root.token", 0},
	} {
		r, err := s.Exec(ctx, Run{AgentID: DiagnosticAgent, Line: c.line})
		if err != nil {
			return append(checks, Check{c.name, false, err.Error()}), nil
		}
		text := strings.TrimSpace(r.Stderr)
		if r.Hint != "" {
			text = r.Hint
		}
		if r.ExitCode == c.code {
			text = ""
		}
		checks = append(checks, Check{c.name, r.ExitCode == c.code, text})
	}
	return checks, nil
}
