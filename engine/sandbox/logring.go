package sandbox

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// Bounds of the ring of log lines.
const (
	RingSize   = 2000
	RingTrim   = 500      // entries that go at once when it is full
	MaxLogLine = 16 << 10 // bytes of one message; the rest is cut
)

// level returns one of the five levels; unknown ones are info.
func level(s string) string {
	switch s {
	case "debug", "info", "warn", "error", "stdout":
		return s
	}
	return "info"
}

// LogRing keeps the latest lines of all agents and passes them to the
// diagnostic log. It is safe for concurrent use.
type LogRing struct {
	logger *slog.Logger

	mu      sync.Mutex
	entries []LogEntry
}

// NewLogRing returns an empty ring; logger may be nil.
func NewLogRing(logger *slog.Logger) *LogRing {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &LogRing{logger: logger}
}

// Log implements LogSink. Control characters become blanks, so that one
// message stays one line of the log.
func (l *LogRing) Log(e LogEntry) {
	if len(e.Message) > MaxLogLine {
		e.Message = strings.ToValidUTF8(e.Message[:MaxLogLine], "") + "…"
	}
	l.mu.Lock()
	if len(l.entries) >= RingSize {
		l.entries = slices.Delete(l.entries, 0, RingTrim)
	}
	l.entries = append(l.entries, e)
	l.mu.Unlock()
	l.logger.Log(context.Background(), severity[e.Level], "sandbox log", slog.String("line", e.String()))
}

// severity of levels in the diagnostic log; what is missing is slog.LevelInfo.
var severity = map[string]slog.Level{"debug": slog.LevelDebug, "warn": slog.LevelWarn, "error": slog.LevelError}

// String returns the line as people see it.
func (e LogEntry) String() string {
	return "[Sandbox:" + e.Source + "] [" + e.Level + "] " + strings.Map(oneLine, e.Message)
}

func oneLine(r rune) rune {
	if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
		return ' '
	}
	return r
}

// Entries returns what is kept, oldest first.
func (l *LogRing) Entries() []LogEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// Shown bounds what Lines returns, in bytes of messages.
const Shown = 1 << 20

// Lines returns the latest lines of an agent, or of all when agentID is "",
// oldest first.
func (s *Service) Lines(agentID string) []LogEntry {
	all := s.Logs.Entries()
	lines, size := []LogEntry{}, 0
	for _, e := range slices.Backward(all) {
		if agentID != "" && e.Source != LinuxName(agentID) {
			continue
		}
		if size += len(e.Message); size > Shown {
			break
		}
		e.Message = strings.Map(oneLine, e.Message)
		lines = append(lines, e)
	}
	slices.Reverse(lines)
	return lines
}

// scrubbed is the ring without the values of agents' secrets.
type scrubbed struct{ s *Service }

// Log implements LogSink. A line whose secrets cannot be looked up is not
// kept as it is: nobody knows what stands in it.
func (l scrubbed) Log(e LogEntry) {
	secrets, err := l.s.Secrets.CollectAll(context.Background(), l.s.users.agentOf(e.Source))
	defer secrets.Destroy()
	if err != nil {
		e.Message = "(not kept: the agent's secrets are not available)"
	}
	e.Message = string(secrets.Scrub([]byte(e.Message)))
	l.s.Logs.Log(e)
}
