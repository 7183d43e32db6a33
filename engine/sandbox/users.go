package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/google/uuid"

	"osaurus/engine/atomicfile"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/sandbox/wire"
)

// Where agents live in a guest (section 7).
const (
	HomesDir  = "/workspace/agents"
	SharedDir = "/workspace/shared"
	userStem  = "agent-"
)

// The diagnostic agent is nobody's: its token is minted for a check and
// revoked right after.
const (
	DiagnosticAgent = "00000000-0000-0000-0000-0000000D1A60"
	DiagnosticUser  = "agent-diag"
	diagnosticUID   = wire.MaxUID
)

// AgentName returns the name of an agent in a guest: its id in lower case,
// blanks as dashes, letters, digits and dashes alone; "agent" when nothing is
// left.
func AgentName(agentID string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r == ' ' || r == '\t':
			return '-'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return -1
	}, strings.ToLower(agentID))
	if name == "" {
		return "agent"
	}
	return name
}

// LinuxName returns the user an agent has in a guest.
func LinuxName(agentID string) string {
	if strings.EqualFold(agentID, DiagnosticAgent) {
		return DiagnosticUser
	}
	return userStem + AgentName(agentID)
}

// Home returns the home of a user.
func Home(linuxName string) string {
	return HomesDir + "/" + strings.TrimPrefix(linuxName, userStem)
}

func validAgentID(id string) bool { return len(id) == 36 && uuid.Validate(id) == nil }

// mapVersion is the version of sandbox-agent-map.json.
const mapVersion = 1

// agentMap is the file: which linux name and uid belong to which agent. A uid
// that was given out stays taken for ever, since files of a guest outlive an
// agent; next is the lowest that never was.
type agentMap struct {
	Version int               `json:"version"`
	Next    uint32            `json:"next"`
	Agents  map[string]member `json:"agents"` // by linux name
}

type member struct {
	AgentID string `json:"agent_id"`
	UID     uint32 `json:"uid"`
}

// Users assigns linux names and uids. It is safe for concurrent use.
type Users struct {
	path string

	mu sync.Mutex
	m  agentMap
}

// ErrUIDs says that no uid is left.
var ErrUIDs = errors.New("sandbox: every user id of the guest was given out")

// OpenUsers reads the map. One that does not parse is an error: assigning
// anew would give one agent the files of another.
func OpenUsers(path string) (*Users, error) {
	u := &Users{path: path, m: agentMap{Version: mapVersion, Next: wire.MinUID, Agents: map[string]member{}}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	if err != nil {
		return nil, err
	}
	var m agentMap
	if canonjson.Unmarshal(raw, &m) != nil || !m.valid() {
		return nil, fmt.Errorf("sandbox: %s does not parse", path)
	}
	u.m = m
	return u, nil
}

func (m agentMap) valid() bool {
	if m.Version != mapVersion || m.Next < wire.MinUID || m.Agents == nil {
		return false
	}
	seen := map[uint32]bool{}
	for name, a := range m.Agents {
		if !wire.ValidUser(name) || !validAgentID(a.AgentID) || a.UID < wire.MinUID || a.UID >= m.Next || seen[a.UID] {
			return false
		}
		seen[a.UID] = true
	}
	return true
}

// Assign returns an agent's linux name and uid, the same ones every time. It
// is ErrNameTaken when another agent has the name.
func (u *Users) Assign(agentID string) (linuxName string, uid uint32, err error) {
	name := LinuxName(agentID)
	if name == DiagnosticUser {
		return name, diagnosticUID, nil
	}
	if !validAgentID(agentID) || !wire.ValidUser(name) {
		return "", 0, errIdentity
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if a, ok := u.m.Agents[name]; ok {
		if !strings.EqualFold(a.AgentID, agentID) {
			return "", 0, ErrNameTaken
		}
		return name, a.UID, nil
	}
	if u.m.Next >= diagnosticUID {
		return "", 0, ErrUIDs
	}
	next := agentMap{Version: mapVersion, Next: u.m.Next + 1, Agents: map[string]member{name: {strings.ToUpper(agentID), u.m.Next}}}
	for n, a := range u.m.Agents {
		next.Agents[n] = a
	}
	if err := u.save(next); err != nil {
		return "", 0, err
	}
	return name, next.Agents[name].UID, nil
}

// Forget removes an agent. Its uid is not given out again.
func (u *Users) Forget(agentID string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	next := agentMap{Version: mapVersion, Next: u.m.Next, Agents: map[string]member{}}
	for n, a := range u.m.Agents {
		if !strings.EqualFold(a.AgentID, agentID) {
			next.Agents[n] = a
		}
	}
	if len(next.Agents) == len(u.m.Agents) {
		return nil
	}
	return u.save(next)
}

// agentOf returns the agent of a linux name, "" when there is none.
func (u *Users) agentOf(linuxName string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.m.Agents[linuxName].AgentID
}

// agents lists whose names were assigned.
func (u *Users) agents() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var ids []string
	for _, a := range u.m.Agents {
		ids = append(ids, a.AgentID)
	}
	return ids
}

func (u *Users) save(next agentMap) error {
	raw, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(u.path, append(raw, '\n')); err != nil {
		return err
	}
	u.m = next
	return nil
}
