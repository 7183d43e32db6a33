package accesskey

import (
	"osaurus/engine/address"
	"osaurus/engine/fault"
)

// keyID names one key of one issuer.
type keyID struct {
	issuer address.Address
	nonce  string
}

// snapshot is everything a decision needs, frozen. A change builds a new one
// after it is durable; its pointer is the epoch.
type snapshot struct {
	master     address.Address
	agents     map[address.Address]bool
	trustAll   map[address.Address]bool                     // may issue for every audience
	trust      map[address.Address]map[address.Address]bool // audience -> issuers
	revoked    map[keyID]bool
	thresholds map[address.Address]uint64 // issuer -> counters up to this are revoked
	notBefore  int64                      // keys issued earlier are refused
	unreadable bool                       // revocations could not be read: refuse every key
}

// admits checks audience and issuer: what may be decided before the signature
// is verified, only ever to refuse. An agent's key can never act for the
// master (PROTOCOL.md section 3).
func (s *snapshot) admits(c *Claims) error {
	toMaster := !s.master.IsZero() && c.Audience == s.master
	if !toMaster && !s.agents[c.Audience] {
		return fault.AudienceMismatch
	}
	switch {
	case c.Issuer.IsZero():
	case c.Issuer == s.master, s.trustAll[c.Issuer]:
		return nil
	case !toMaster && (c.Issuer == c.Audience || s.trust[c.Audience][c.Issuer]):
		return nil
	}
	return fault.IssuerNotListed
}

// refuses checks what needs a verified signature: revocation.
func (s *snapshot) refuses(c *Claims) error {
	if s.unreadable || c.IssuedAt < s.notBefore || s.revoked[keyID{c.Issuer, c.Nonce}] {
		return fault.AccessRevoked
	}
	if limit, ok := s.thresholds[c.Issuer]; ok && c.Counter <= limit {
		return fault.AccessRevoked
	}
	return nil
}

func (c *Claims) expired(now int64) error {
	if c.Expires != nil && *c.Expires <= now {
		return fault.AccessExpired
	}
	return nil
}
