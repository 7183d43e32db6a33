package sandbox

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// Bounds of commands.
const (
	DefaultCommandsPerTurn = 10
	TurnQuiet              = 15 * time.Second // without a command begins a new turn
	MaxStdout              = 50_000           // characters
	MaxStderr              = 10_000
	KillDelay              = 3 * time.Second // from SIGTERM to SIGKILL
)

// AutonomousExec says what an agent's runs may do in a sandbox. It is read
// from JSON: missing keys take the defaults and unknown ones are ignored.
// HostSecretReads is kept for the hosts that know it: nothing here reads
// secrets other than the agent's own, whatever it says.
type AutonomousExec struct {
	Enabled         bool `json:"enabled"`
	MaxCommands     int  `json:"maxCommandsPerTurn"`
	PluginCreate    bool `json:"pluginCreate"`
	HostSecretReads bool `json:"allowHostSecretReads"`
	Network         bool `json:"sandboxNetworkEnabled"`
	Background      bool `json:"backgroundProcessEnabled"`
}

// DefaultAutonomousExec is off.
func DefaultAutonomousExec() AutonomousExec {
	return AutonomousExec{MaxCommands: DefaultCommandsPerTurn, PluginCreate: true, Network: true}
}

// MayCreatePlugins needs both switches.
func (a AutonomousExec) MayCreatePlugins() bool { return a.Enabled && a.PluginCreate }

// ExecLimiter counts an agent's commands within a turn. A refused command
// counts as well and keeps the turn going. It is safe for concurrent use.
type ExecLimiter struct {
	now func() time.Time

	mu    sync.Mutex
	turns map[string]turn
}

type turn struct {
	count int
	last  time.Time
}

// NewExecLimiter takes its clock from now; nil is time.Now.
func NewExecLimiter(now func() time.Time) *ExecLimiter {
	if now == nil {
		now = time.Now
	}
	return &ExecLimiter{now: now, turns: map[string]turn{}}
}

// Allow counts a command and reports whether it may run.
func (l *ExecLimiter) Allow(agentID string, limit int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, now := l.turns[agentID], l.now()
	if now.Sub(t.last) >= TurnQuiet {
		t.count = 0
	}
	t.count, t.last = t.count+1, now
	l.turns[agentID] = t
	return t.count <= limit
}

// Clip shortens text to limit characters: the first 40 % and the last 60 %
// of them, and between them how much is missing.
func Clip(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	runes := []rune(text)
	if len(runes) <= limit {
		return text
	}
	head := limit * 2 / 5
	tail := limit - head
	return string(runes[:head]) + fmt.Sprintf("\n… %d characters left out …\n", len(runes)-limit) + string(runes[len(runes)-tail:])
}
