package identity

import (
	"osaurus/engine/address"
)

// AgentRef is what identity needs to know of an agent.
type AgentRef struct {
	ID      string
	Name    string
	BuiltIn bool
	Path    *Path // nil without an address
	Address address.Address
}

// KeyRef is what the drift check needs to know of an access key.
type KeyRef struct {
	ID      string
	Issuer  address.Address
	Revoked bool
}

// Drift is how stored addresses and keys differ from what the master derives.
type Drift struct {
	// Mismatched agents do not derive to their stored address.
	Mismatched []AgentRef
	// Recoverable agents lost their scope; the path that reproduces the
	// address stands beside each. They are repaired silently.
	Recoverable []Recoverable
	// StaleKeys were issued by neither the master nor any agent.
	StaleKeys []KeyRef
}

// Recoverable is an agent and the path that reproduces its address.
type Recoverable struct {
	Agent AgentRef
	Path  Path
}

// Any reports whether the owner has something to decide.
func (d Drift) Any() bool { return len(d.Mismatched) > 0 || len(d.StaleKeys) > 0 }

// CheckDrift compares agents and keys with what master derives. It is pure:
// no I/O and no prompt. deviceScope is this device's id.
func CheckDrift(master MasterKey, agents []AgentRef, keys []KeyRef, deviceScope string) (Drift, error) {
	var d Drift
	issuers := map[address.Address]bool{master.Address(): true}
	for _, a := range agents {
		if !a.Address.IsZero() {
			issuers[a.Address] = true
		}
		if a.BuiltIn || a.Address.IsZero() || a.Path == nil {
			continue
		}
		derived, err := addressAt(master, *a.Path)
		if err != nil {
			return Drift{}, err
		}
		issuers[derived] = true
		if derived == a.Address {
			continue
		}
		scoped := Path{Index: a.Path.Index, Scope: deviceScope}
		if a.Path.Scope == "" && deviceScope != "" {
			if got, err := addressAt(master, scoped); err == nil && got == a.Address {
				d.Recoverable = append(d.Recoverable, Recoverable{a, scoped})
				continue
			}
		}
		d.Mismatched = append(d.Mismatched, a)
	}
	for _, k := range keys {
		if !k.Revoked && !issuers[k.Issuer] {
			d.StaleKeys = append(d.StaleKeys, k)
		}
	}
	return d, nil
}

func addressAt(master MasterKey, p Path) (address.Address, error) {
	key, err := master.Agent(p)
	if err != nil {
		return address.Address{}, err
	}
	defer key.Destroy()
	return key.Address(), nil
}
