package sandbox

import (
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
	l.logger.Info("sandbox log", slog.String("line", e.String()))
}

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
