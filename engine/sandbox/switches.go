package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// MaxCommandsLimit bounds what the owner may allow in one turn.
const MaxCommandsLimit = 1000

// switches say what each agent may do in a sandbox: config/sandbox-agents.json.
type switches struct {
	path string

	mu sync.Mutex
	by map[string]AutonomousExec
}

func openSwitches(path string) (*switches, error) {
	s := &switches{path: path, by: map[string]AutonomousExec{}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if canonjson.Unmarshal(raw, &all) != nil {
		return nil, fmt.Errorf("sandbox: %s does not parse", path)
	}
	for id, one := range all {
		v := DefaultAutonomousExec()
		if !validAgentID(id) || json.Unmarshal(one, &v) != nil {
			return nil, fmt.Errorf("sandbox: %s does not parse", path)
		}
		s.by[strings.ToUpper(id)] = v
	}
	return s, nil
}

// Switch returns what an agent may do; by default nothing.
func (s *Service) Switch(agentID string) AutonomousExec {
	s.switches.mu.Lock()
	defer s.switches.mu.Unlock()
	if v, ok := s.switches.by[strings.ToUpper(agentID)]; ok {
		return v
	}
	return DefaultAutonomousExec()
}

// Deny ends what an agent's runs have in a sandbox, commands that run
// included, and lets them begin nothing more.
func (s *Service) Deny(ctx context.Context, agentID string) error {
	v := s.Switch(agentID)
	v.Enabled = false
	return errors.Join(s.SetSwitch(agentID, v), s.StopAgent(ctx, agentID))
}

// SetSwitch changes what an agent may do. It is in force for the next call and
// the next request of the network; streams that it forbids end.
func (s *Service) SetSwitch(agentID string, v AutonomousExec) error {
	if !validAgentID(agentID) || v.MaxCommands < 1 || v.MaxCommands > MaxCommandsLimit {
		return fault.WithText(fault.Usage, "an agent may run between 1 and 1000 commands in a turn")
	}
	before, err := s.switches.set(strings.ToUpper(agentID), v)
	if err != nil {
		return err
	}
	s.recheckNetworks()
	if before.Background != v.Background {
		s.switchDaemons(agentID)
	}
	return nil
}

func (w *switches) set(agentID string, v AutonomousExec) (before AutonomousExec, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before = w.by[agentID]
	next := maps.Clone(w.by)
	next[agentID] = v
	return before, w.save(next)
}

// forget removes an agent.
func (w *switches) forget(agentID string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, there := w.by[agentID]; !there {
		return nil
	}
	next := maps.Clone(w.by)
	delete(next, agentID)
	return w.save(next)
}

func (w *switches) save(next map[string]AutonomousExec) error {
	raw, err := canonjson.Marshal(next)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(w.path, raw); err != nil {
		return err
	}
	w.by = next
	return nil
}

// agents lists who has a switch.
func (w *switches) agents() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.by))
}
