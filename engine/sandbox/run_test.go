package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
)

// TestExecBounds: what a command may be is looked at before anything starts.
func TestExecBounds(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "config"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(ServiceConfig{Home: home, Vault: keystore.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		run  Run
		want fault.Code
	}{
		"longest silence": {Run{Line: "true", Idle: MaxIdle}, fault.SandboxUnavailable},
		"longer":          {Run{Line: "true", Idle: MaxIdle + time.Nanosecond}, fault.Usage},
		"negative":        {Run{Line: "true", Idle: -1}, fault.Usage},
		"longest line":    {Run{Line: strings.Repeat("x", MaxCommand)}, fault.SandboxUnavailable},
		"a byte more":     {Run{Line: strings.Repeat("x", MaxCommand+1)}, fault.Usage},
		"blank":           {Run{Line: " "}, fault.Usage},
		"outside":         {Run{Line: "true", Dir: "/etc"}, fault.Usage},
	} {
		c.run.AgentID = agentA
		if _, err := s.Exec(t.Context(), c.run); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
