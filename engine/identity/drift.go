package identity

import (
	"errors"

	"osaurus/engine/address"
)

// AgentRef is what identity needs to know of an agent.
type AgentRef struct {
	ID      string          `json:"id"`
	Name    string          `json:"name"`
	BuiltIn bool            `json:"builtIn,omitempty"`
	Path    *Path           `json:"path,omitempty"` // nil without an address
	Address address.Address `json:"address,omitzero"`
}

// KeyRef is what the drift check needs to know of an access key.
type KeyRef struct {
	ID      string          `json:"id"`
	Issuer  address.Address `json:"issuer"`
	Revoked bool            `json:"revoked,omitempty"`
}

// Drift is how stored addresses and keys differ from what the master derives.
type Drift struct {
	// Mismatched agents do not derive to their stored address.
	Mismatched []AgentRef `json:"mismatched"`
	// Recoverable agents lost their scope; the path that reproduces the
	// address stands beside each. They are repaired silently.
	Recoverable []Recoverable `json:"recoverable"`
	// StaleKeys were issued by neither the master nor any agent.
	StaleKeys []KeyRef `json:"staleKeys"`
}

// Recoverable is an agent and the path that reproduces its address.
type Recoverable struct {
	Agent AgentRef `json:"agent"`
	Path  Path     `json:"path"`
}

// Any reports whether the owner has something to decide.
func (d Drift) Any() bool { return len(d.Mismatched) > 0 || len(d.StaleKeys) > 0 }

// errNoKey says that a check was asked of no master.
var errNoKey = errors.New("identity: the key was destroyed or never set")

// CheckDrift compares agents and keys with what master derives (PROTOCOL.md
// section 8). It is pure: no I/O and no prompt. deviceScope is this device's
// id. It fails only without a master.
func CheckDrift(master MasterKey, agents []AgentRef, keys []KeyRef, deviceScope string) (Drift, error) {
	if master.IsZero() {
		return Drift{}, errNoKey
	}
	var d Drift
	issuers := map[address.Address]bool{master.Address(): true}
	for _, a := range agents {
		if a.Address.IsZero() {
			continue
		}
		issuers[a.Address] = true
		if a.BuiltIn {
			continue
		}
		fit, derived := pathOf(master, a, deviceScope)
		issuers[derived] = true
		switch {
		case fit == nil:
			d.Mismatched = append(d.Mismatched, a)
		case *fit != *a.Path:
			d.Recoverable = append(d.Recoverable, Recoverable{a, *fit})
		}
	}
	delete(issuers, address.Address{})
	for _, k := range keys {
		if !k.Revoked && !issuers[k.Issuer] {
			d.StaleKeys = append(d.StaleKeys, k)
		}
	}
	return d, nil
}

// pathOf returns the path along which master derives a's address: its own, or
// its own with the device's scope when it has none; nil for neither. derived
// is the address along its own path, zero without one.
func pathOf(master MasterKey, a AgentRef, deviceScope string) (fit *Path, derived address.Address) {
	if a.Path == nil {
		return nil, address.Address{}
	}
	derived = addressAt(master, *a.Path)
	if derived == a.Address {
		return a.Path, derived
	}
	scoped := Path{Index: a.Path.Index, Scope: deviceScope}
	if a.Path.Scope == "" && deviceScope != "" && addressAt(master, scoped) == a.Address {
		return &scoped, derived
	}
	return nil, derived
}

// addressAt returns zero, which is no agent's address, for a path without key.
func addressAt(master MasterKey, p Path) address.Address {
	key, err := master.Agent(p)
	if err != nil {
		return address.Address{}
	}
	defer key.Destroy()
	return key.Address()
}
