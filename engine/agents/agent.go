// Package agents keeps the records of a host's agents and their life cycle:
// create, assign an address, rotate it, revoke it, delete. While unlocked it
// holds the agents' signers in memory; the master it never keeps.
package agents

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
)

// Bounds of what a person may write into a record.
const (
	MaxName         = 80       // characters
	MaxDescription  = 2000     // characters
	MaxModel        = 200      // characters
	MaxSystemPrompt = 64 << 10 // bytes
	MaxAgents       = 1000
	maxFile         = 256 << 10 // bytes
)

// DefaultID is the built-in agent of the owner. It has no address and is never
// reachable from other devices.
const DefaultID = "00000000-0000-0000-0000-000000000001"

// Agent is one record. Address is kept so that it shows without unlocking the
// master.
type Agent struct {
	ID              string          `json:"id"` // UUID, upper case
	Name            string          `json:"name"`
	Description     string          `json:"description,omitempty"`
	Model           string          `json:"model,omitempty"`
	SystemPrompt    string          `json:"system_prompt,omitempty"`
	BuiltIn         bool            `json:"is_built_in,omitempty"`
	BonjourEnabled  bool            `json:"bonjour_enabled,omitempty"`
	AllowPeerMemory bool            `json:"allow_peer_memory,omitempty"` // peers' runs may use the owner's memory
	Index           *uint32         `json:"agent_index,omitempty"`
	DeviceScope     string          `json:"device_scope,omitempty"`
	Address         address.Address `json:"agent_address,omitzero"`
	Created         int64           `json:"created_at"`
	Updated         int64           `json:"updated_at"`
}

// Path returns the key path; nil without one.
func (a Agent) Path() *identity.Path {
	if a.Index == nil {
		return nil
	}
	return &identity.Path{Index: *a.Index, Scope: a.DeviceScope}
}

// Ref is what identity's checks need of the agent.
func (a Agent) Ref() identity.AgentRef {
	return identity.AgentRef{ID: a.ID, Name: a.Name, BuiltIn: a.BuiltIn, Path: a.Path(), Address: a.Address}
}

func (a *Agent) setPath(p *identity.Path, addr address.Address) {
	a.Index, a.DeviceScope, a.Address = nil, "", addr
	if p != nil {
		index := p.Index
		a.Index, a.DeviceScope = &index, p.Scope
	}
}

// Draft is what a person writes of an agent.
type Draft struct {
	Name, Description, Model, SystemPrompt string
	BonjourEnabled, AllowPeerMemory        bool
}

// clean trims and checks a draft. Errors name the field.
func (d Draft) clean() (Draft, error) {
	d.Name = strings.Join(strings.Fields(d.Name), " ")
	d.Description = strings.TrimSpace(d.Description)
	d.Model = strings.TrimSpace(d.Model)
	if d.Name == "" {
		return d, fault.WithText(fault.Usage, "an agent needs a name")
	}
	for _, f := range []struct {
		field, value string
		limit        int
	}{{"name", d.Name, MaxName}, {"description", d.Description, MaxDescription}, {"model", d.Model, MaxModel}} {
		if utf8.RuneCountInString(f.value) > f.limit {
			return d, fault.WithText(fault.Usage, fmt.Sprintf("the %s has at most %d characters", f.field, f.limit))
		}
		if !utf8.ValidString(f.value) || strings.ContainsFunc(f.value, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) {
			return d, fault.WithText(fault.Usage, "the "+f.field+" must be plain text")
		}
	}
	if len(d.SystemPrompt) > MaxSystemPrompt || !utf8.ValidString(d.SystemPrompt) {
		return d, fault.WithText(fault.Usage, fmt.Sprintf("the system prompt must be UTF-8 of at most %d bytes", MaxSystemPrompt))
	}
	return d, nil
}

func (d Draft) apply(a *Agent) {
	a.Name, a.Description, a.Model, a.SystemPrompt = d.Name, d.Description, d.Model, d.SystemPrompt
	a.BonjourEnabled, a.AllowPeerMemory = d.BonjourEnabled, d.AllowPeerMemory
}

// Draft returns the editable part of a record.
func (a Agent) Draft() Draft {
	return Draft{a.Name, a.Description, a.Model, a.SystemPrompt, a.BonjourEnabled, a.AllowPeerMemory}
}

// parse reads a record. Unknown fields are ignored: older and newer hosts
// write more than we keep.
func parse(raw []byte, id string) (Agent, error) {
	var a Agent
	if len(raw) > maxFile || json.Unmarshal(raw, &a) != nil {
		return a, fault.New(fault.StateCorrupt, fmt.Errorf("agents/%s.json does not parse", id))
	}
	parsed, err := uuid.Parse(a.ID)
	if err != nil || !strings.EqualFold(parsed.String(), id) || a.Name == "" || a.Index == nil && !a.Address.IsZero() {
		return a, fault.New(fault.StateCorrupt, fmt.Errorf("agents/%s.json is not a record of that agent", id))
	}
	a.ID = strings.ToUpper(parsed.String())
	return a, nil
}
