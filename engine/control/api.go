// Package control is how the owner's own programs drive a running host: JSON
// over HTTP on a Unix socket that only the owner can open. The command line,
// the local page and the menu bar are its clients.
package control

import (
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/pairing"
	"osaurus/engine/settings"
)

// Empty is a request or reply without content.
type Empty struct{}

// Identity is what shows of the identity.
type Identity struct {
	State        string          `json:"state"`
	Address      address.Address `json:"address,omitzero"`
	Created      time.Time       `json:"created,omitzero"`
	Acknowledged bool            `json:"phrase_acknowledged"`
	Replaced     bool            `json:"replaced_kept"`
	DeviceID     string          `json:"device_id"`
	DeviceName   string          `json:"device_name"`
	Hardware     bool            `json:"hardware"`
	Pairing      address.Address `json:"pairing_address,omitzero"` // only when asked for
	Forgetful    bool            `json:"no_revocations,omitempty"` // after a restore: no revocation is stored here
}

// NewIdentity carries the phrase and the recovery code once, to the owner's
// own terminal. It is the only reply with a secret besides NewKey.
type NewIdentity struct {
	Address      address.Address `json:"address"`
	Phrase       string          `json:"phrase"`
	RecoveryCode string          `json:"recovery_code,omitempty"`
}

// Restore is a phrase typed by the owner.
type Restore struct {
	Phrase string `json:"phrase"`
	Anyway bool   `json:"anyway"`
}

// RefuseBefore names the moment before which no issued key is taken any more.
type RefuseBefore struct {
	Time time.Time `json:"time"`
}

// RevokeAll names whose keys end: an address, an agent, or "master".
type RevokeAll struct {
	Issuer string `json:"issuer"`
}

// RevokedAll tells whose keys ended, and how many active ones this host has a
// record of.
type RevokedAll struct {
	Issuer  address.Address `json:"issuer"`
	Revoked int             `json:"revoked"`
}

// MintToken asks for a request token; Agent "" signs as the master.
type MintToken struct {
	Agent    string `json:"agent,omitempty"`
	Audience string `json:"audience"` // "" is this host
	Action   string `json:"action"`
}

// RequestToken carries a request token, and what it claims once verified.
type RequestToken struct {
	Token    string          `json:"token,omitempty"`
	Action   string          `json:"action,omitempty"`
	Issuer   address.Address `json:"issuer,omitzero"`
	Device   string          `json:"device,omitempty"`
	Counter  uint64          `json:"counter,omitempty"`
	Audience string          `json:"audience,omitempty"`
	Expires  time.Time       `json:"expires,omitzero"`
}

// Drift is what the check of agents and keys against the master found.
type Drift struct {
	Mismatched     []NamedAgent `json:"mismatched"`
	StaleKeys      []string     `json:"stale_keys"` // ids
	ScopesRestored int          `json:"scopes_restored"`
}

// NamedAgent is an agent in a list.
type NamedAgent struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Repaired is the outcome of a repair.
type Repaired struct {
	Moved       []NamedAgent `json:"moved"`
	KeysRevoked int          `json:"keys_revoked"`
	Failed      []string     `json:"failed"`
}

// Agent is an agent's record with how many active keys it has.
type Agent struct {
	agents.Agent
	ActiveKeys int `json:"active_keys"`
}

// EditAgent changes the fields that are not nil.
type EditAgent struct {
	ID              string  `json:"id"`
	Name            *string `json:"name,omitempty"`
	Description     *string `json:"description,omitempty"`
	Model           *string `json:"model,omitempty"`
	SystemPrompt    *string `json:"system_prompt,omitempty"`
	Bonjour         *bool   `json:"bonjour,omitempty"`
	AllowPeerMemory *bool   `json:"allow_peer_memory,omitempty"`
}

// ID names one thing.
type ID struct {
	ID string `json:"id"`
}

// MintKey asks for an access key; Agent "" is the master.
type MintKey struct {
	Agent      string               `json:"agent"`
	Label      string               `json:"label"`
	Expiration accesskey.Expiration `json:"expiration"`
}

// NewKey carries a new access key once.
type NewKey struct {
	accesskey.Metadata
	Token string `json:"token"`
}

// Trust adds or removes an issuer; Agent "" is every audience.
type Trust struct {
	Agent  string          `json:"agent"`
	Issuer address.Address `json:"issuer"`
}

// Pair names an agent of another host.
type Pair struct {
	BaseURL string          `json:"base_url"`
	AgentID string          `json:"agent_id"`
	Address address.Address `json:"address"`
	Name    string          `json:"name"`
	PQ      bool            `json:"pq,omitempty"` // its TXT record says so
}

// Rename gives a peer another name.
type Rename struct {
	Peer string `json:"peer"`
	Name string `json:"name"`
}

// Run is a prompt for an agent of this host, or of a peer.
type Run struct {
	Peer      string `json:"peer,omitempty"`
	Agent     string `json:"agent,omitempty"` // of this host, when Peer is ""
	Prompt    string `json:"prompt"`
	Model     string `json:"model,omitempty"`
	SessionID string `json:"session_id,omitempty"`
	Title     string `json:"title,omitempty"` // of a dispatched task
	TaskID    string `json:"task_id,omitempty"`
}

// RunEvent is one piece of a streamed answer.
type RunEvent struct {
	Content   string `json:"content,omitempty"`
	Reasoning string `json:"reasoning,omitempty"`
	Finish    string `json:"finish_reason,omitempty"`
	Done      bool   `json:"done,omitempty"`
	Error     *Error `json:"error,omitempty"`
}

// Approvals is the prompt that waits, if any, and how the last one ended.
type Approvals struct {
	Current *pairing.Prompt  `json:"current,omitempty"`
	Last    *pairing.Outcome `json:"last,omitempty"`
	Answer  string           `json:"last_answer,omitempty"` // session, 90d, permanent, deny
}

// Answer resolves a prompt.
type Answer struct {
	ID       string `json:"id"`
	Validity string `json:"validity"` // session, 90d, permanent, deny
}

// Provider is the confirmed provider, or an offer.
type Provider struct {
	settings.Provider
	Key    string   `json:"key,omitempty"` // only in a request
	Models []string `json:"models,omitempty"`
}

// LogHead is the last line of the security log that verified.
type LogHead struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// Passphrase seals the keystore; "" removes the seal.
type Passphrase struct {
	Passphrase string `json:"passphrase"`
}

// Error is a refusal of the control API.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Exit    int    `json:"exit"` // decisions D25
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }
