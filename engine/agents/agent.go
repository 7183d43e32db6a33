// Package agents keeps the records of a host's agents and their life cycle:
// create, assign an address, rotate it, revoke it, delete. While unlocked it
// holds the agents' signers in memory; the master it never keeps.
package agents

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
)

// Bounds of what a person may write into a record, and of the records.
const (
	MaxName         = 80       // characters
	MaxDescription  = 2000     // characters
	MaxModel        = 200      // characters
	MaxSystemPrompt = 64 << 10 // bytes
	MaxAgents       = 1000     // besides the built-in one
	maxFile         = 1 << 20  // bytes
	maxScope        = 64       // bytes of a key path's scope
)

// DefaultID is the built-in agent of the owner. It has no address and is never
// reachable from other devices.
const DefaultID = "00000000-0000-0000-0000-000000000001"

// Agent is one record. Address is kept so that it shows without unlocking the
// master. Copies share Path and Retired, which nobody changes in place.
type Agent struct {
	ID              string          `json:"id"` // UUID, upper case
	Name            string          `json:"name"`
	Description     string          `json:"description,omitempty"`
	Model           string          `json:"model,omitempty"`
	SystemPrompt    string          `json:"system_prompt,omitempty"`
	BuiltIn         bool            `json:"is_built_in,omitempty"`
	BonjourEnabled  bool            `json:"bonjour_enabled,omitempty"`
	AllowPeerMemory bool            `json:"allow_peer_memory,omitempty"` // peers' runs may use the owner's memory (decisions C5)
	Path            *identity.Path  `json:"path,omitempty"`
	Address         address.Address `json:"address,omitzero"`
	Retired         []Retired       `json:"retired,omitempty"` // oldest first, never edited
	Created         int64           `json:"created_at"`        // Unix seconds
	Updated         int64           `json:"updated_at"`

	extra fields // what another version wrote into the file
}

// Retired is an address that an agent had. It is never given out again.
type Retired struct {
	Address address.Address `json:"address"`
	Path    *identity.Path  `json:"path,omitempty"`
	At      int64           `json:"at"` // Unix seconds
}

// Ref is what identity's checks need of the agent.
func (a Agent) Ref() identity.AgentRef {
	return identity.AgentRef{ID: a.ID, Name: a.Name, BuiltIn: a.BuiltIn, Path: a.Path, Address: a.Address}
}

// moved returns the record with another path and address; the present one
// joins the retired.
func (a Agent) moved(p *identity.Path, to address.Address, now int64) Agent {
	if !a.Address.IsZero() {
		kept := a.Retired[:len(a.Retired):len(a.Retired)]
		a.Retired = append(kept, Retired{Address: a.Address, Path: a.Path, At: now})
	}
	a.Path, a.Address = p, to
	return a
}

// Draft is what a person writes of an agent.
type Draft struct {
	Name, Description, Model, SystemPrompt string
	BonjourEnabled, AllowPeerMemory        bool
}

// Draft returns the editable part of a record.
func (a Agent) Draft() Draft {
	return Draft{a.Name, a.Description, a.Model, a.SystemPrompt, a.BonjourEnabled, a.AllowPeerMemory}
}

func (d Draft) apply(a *Agent) {
	a.Name, a.Description, a.Model, a.SystemPrompt = d.Name, d.Description, d.Model, d.SystemPrompt
	a.BonjourEnabled, a.AllowPeerMemory = d.BonjourEnabled && !a.BuiltIn, d.AllowPeerMemory
}

// clean trims a draft and checks it. Errors name the field.
func (d Draft) clean() (Draft, error) {
	d.Name = strings.Join(strings.Fields(d.Name), " ")
	d.Description = strings.TrimSpace(d.Description)
	d.Model = strings.TrimSpace(d.Model)
	if d.Name == "" {
		return d, fault.WithText(fault.Usage, "an agent needs a name")
	}
	for _, f := range []struct {
		field, value, allowed string
		limit                 int
	}{
		{"name", d.Name, "", MaxName},
		{"description", d.Description, "\n\t", MaxDescription},
		{"model", d.Model, "", MaxModel},
	} {
		if utf8.RuneCountInString(f.value) > f.limit {
			return d, fault.WithText(fault.Usage, fmt.Sprintf("the %s has at most %d characters", f.field, f.limit))
		}
		if !plain(f.value, f.allowed) {
			return d, fault.WithText(fault.Usage, "the "+f.field+" must be plain text without control characters")
		}
	}
	if len(d.SystemPrompt) > MaxSystemPrompt || !utf8.ValidString(d.SystemPrompt) {
		return d, fault.WithText(fault.Usage, fmt.Sprintf("the system prompt must be UTF-8 of at most %d bytes", MaxSystemPrompt))
	}
	return d, nil
}

// plain refuses what could disguise a name in a prompt or a terminal: control
// characters, line separators and bidirectional overrides.
func plain(s, allowed string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune(allowed, r) &&
			(unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029')
	})
}
