package control

import (
	"context"
	"errors"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/sandbox"
	"osaurus/engine/secret"
)

// SandboxRun is a command line for an agent's sandbox.
type SandboxRun struct {
	Agent  string        `json:"agent"`
	Line   string        `json:"line"`
	Dir    string        `json:"dir,omitempty"`
	Plugin string        `json:"plugin,omitempty"`
	Idle   time.Duration `json:"idle,omitempty"` // nanoseconds
}

// SandboxSwitch is what an agent's runs may do; nil leaves a field.
type SandboxSwitch struct {
	Agent       string `json:"agent"`
	Enabled     *bool  `json:"enabled,omitempty"`
	MaxCommands *int   `json:"max_commands,omitempty"`
	Plugins     *bool  `json:"plugins,omitempty"`
	Network     *bool  `json:"network,omitempty"`
	Background  *bool  `json:"background,omitempty"`
}

// SandboxSecret is a secret of an agent, or of a plugin within it. Value goes
// in and never comes out.
type SandboxSecret struct {
	Agent  string `json:"agent"`
	Plugin string `json:"plugin,omitempty"`
	Name   string `json:"name,omitempty"`
	Value  string `json:"value,omitempty"`
}

func (s *Server) sandboxOps() {
	box := s.engine.Sandbox
	op(s, "sandbox/status", func(ctx context.Context, _ Empty) (sandbox.Status, error) { return box.Status(ctx), nil })
	do(s, "sandbox/setup", func(ctx context.Context, _ Empty) error { return box.Setup(ctx) })
	do(s, "sandbox/start", s.forAgent(func(ctx context.Context, id string) error { return box.Provision(ctx, id) }))
	do(s, "sandbox/stop", func(ctx context.Context, in ID) error {
		if in.ID == "" {
			return box.Stop(ctx)
		}
		return s.forAgent(func(ctx context.Context, id string) error { return box.StopAgent(ctx, id) })(ctx, in)
	})
	do(s, "sandbox/reset", func(ctx context.Context, _ Empty) error { return box.Reset(ctx) })
	op(s, "sandbox/logs", func(_ context.Context, in ID) ([]sandbox.LogEntry, error) {
		if in.ID == "" {
			return box.Lines(""), nil
		}
		a, err := s.find(in.ID)
		if err != nil {
			return nil, err
		}
		return box.Lines(a.ID), nil
	})
	op(s, "sandbox/diagnose", func(ctx context.Context, _ Empty) ([]sandbox.Check, error) { return box.Diagnose(ctx) })
	op(s, "sandbox/exec", func(ctx context.Context, in SandboxRun) (sandbox.Result, error) {
		a, err := s.find(in.Agent)
		if err != nil {
			return sandbox.Result{}, err
		}
		return box.Exec(ctx, sandbox.Run{AgentID: a.ID, Line: in.Line, Dir: in.Dir, Plugin: in.Plugin, Idle: in.Idle})
	})
	op(s, "sandbox/switch", s.switchSandbox)
	op(s, "sandbox/config", func(ctx context.Context, in sandbox.Choices) (sandbox.Chosen, error) { return box.Choose(ctx, in) })
	do(s, "sandbox/secrets/set", func(ctx context.Context, in SandboxSecret) error {
		a, err := s.find(in.Agent)
		if err != nil {
			return err
		}
		value := secret.New([]byte(in.Value))
		defer value.Destroy()
		return box.Secrets.Set(ctx, a.ID, in.Plugin, in.Name, value)
	})
	do(s, "sandbox/secrets/remove", func(ctx context.Context, in SandboxSecret) error {
		a, err := s.find(in.Agent)
		if err != nil {
			return err
		}
		return box.Secrets.Delete(ctx, a.ID, in.Plugin, in.Name)
	})
	op(s, "sandbox/secrets/list", func(ctx context.Context, in SandboxSecret) ([]string, error) {
		a, err := s.find(in.Agent)
		if err != nil {
			return nil, err
		}
		return box.Secrets.Names(ctx, a.ID, in.Plugin)
	})
}

func (s *Server) forAgent(f func(ctx context.Context, id string) error) func(context.Context, ID) error {
	return func(ctx context.Context, in ID) error {
		a, err := s.find(in.ID)
		if err != nil {
			return err
		}
		return f(ctx, a.ID)
	}
}

// switchSandbox changes what is set and returns what holds then.
func (s *Server) switchSandbox(ctx context.Context, in SandboxSwitch) (sandbox.AutonomousExec, error) {
	a, err := s.find(in.Agent)
	if err != nil {
		return sandbox.AutonomousExec{}, err
	}
	now := s.engine.Sandbox.Switch(a.ID)
	next := now
	for _, c := range []struct{ from, to *bool }{{in.Enabled, &next.Enabled}, {in.Plugins, &next.PluginCreate}, {in.Network, &next.Network}, {in.Background, &next.Background}} {
		if c.from != nil {
			*c.to = *c.from
		}
	}
	if in.MaxCommands != nil {
		next.MaxCommands = *in.MaxCommands
	}
	if in.Enabled != nil && !next.Enabled {
		return next, errors.Join(s.engine.Sandbox.SetSwitch(a.ID, next), s.engine.Sandbox.Deny(ctx, a.ID))
	}
	if next == now {
		return now, nil
	}
	if a.BuiltIn && next.Enabled && !now.Enabled {
		return now, fault.WithText(fault.Usage, "the built-in agent is the owner's own and runs nothing in a sandbox")
	}
	return next, s.engine.Sandbox.SetSwitch(a.ID, next)
}

// Sandbox looks at the sandboxes.
func (c *Client) Sandbox(ctx context.Context) (sandbox.Status, error) {
	return call[sandbox.Status](ctx, c, "sandbox/status", Empty{})
}

// SetUpSandbox verifies and prepares what sandboxes boot from.
func (c *Client) SetUpSandbox(ctx context.Context) error {
	_, err := call[Empty](ctx, c, "sandbox/setup", Empty{})
	return err
}

// StartSandbox makes an agent's sandbox ready.
func (c *Client) StartSandbox(ctx context.Context, agent string) error {
	_, err := call[Empty](ctx, c, "sandbox/start", ID{agent})
	return err
}

// StopSandbox stops an agent's sandbox; "" stops all.
func (c *Client) StopSandbox(ctx context.Context, agent string) error {
	_, err := call[Empty](ctx, c, "sandbox/stop", ID{agent})
	return err
}

// ResetSandbox stops all sandboxes and deletes what agents kept in them.
func (c *Client) ResetSandbox(ctx context.Context) error {
	_, err := call[Empty](ctx, c, "sandbox/reset", Empty{})
	return err
}

// SandboxLogs returns what an agent's guests logged, or all; "" is all.
func (c *Client) SandboxLogs(ctx context.Context, agent string) ([]sandbox.LogEntry, error) {
	return call[[]sandbox.LogEntry](ctx, c, "sandbox/logs", ID{agent})
}

// DiagnoseSandbox tries the whole way with an agent that is nobody's.
func (c *Client) DiagnoseSandbox(ctx context.Context) ([]sandbox.Check, error) {
	return call[[]sandbox.Check](ctx, c, "sandbox/diagnose", Empty{})
}

// RunInSandbox runs a command line as an agent.
func (c *Client) RunInSandbox(ctx context.Context, in SandboxRun) (sandbox.Result, error) {
	return call[sandbox.Result](ctx, c, "sandbox/exec", in)
}

// ConfigureSandbox changes and returns what the owner chose for sandboxes.
func (c *Client) ConfigureSandbox(ctx context.Context, in sandbox.Choices) (sandbox.Chosen, error) {
	return call[sandbox.Chosen](ctx, c, "sandbox/config", in)
}

// SwitchSandbox changes and returns what an agent's runs may do.
func (c *Client) SwitchSandbox(ctx context.Context, in SandboxSwitch) (sandbox.AutonomousExec, error) {
	return call[sandbox.AutonomousExec](ctx, c, "sandbox/switch", in)
}

// SetSandboxSecret stores a secret.
func (c *Client) SetSandboxSecret(ctx context.Context, in SandboxSecret) error {
	_, err := call[Empty](ctx, c, "sandbox/secrets/set", in)
	return err
}

// RemoveSandboxSecret deletes a secret.
func (c *Client) RemoveSandboxSecret(ctx context.Context, in SandboxSecret) error {
	_, err := call[Empty](ctx, c, "sandbox/secrets/remove", in)
	return err
}

// SandboxSecrets lists the names of secrets.
func (c *Client) SandboxSecrets(ctx context.Context, in SandboxSecret) ([]string, error) {
	return call[[]string](ctx, c, "sandbox/secrets/list", in)
}
