package agents

import (
	"context"
	"sync"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/signature"
)

// signer lends an agent's key to whoever signs for it. It outlives the key: a
// caller that still holds it after Lock or Rotate gets an error.
type signer struct {
	addr address.Address

	mu     sync.RWMutex // write-held to end or suspend the key
	key    identity.AgentKey
	paused bool
}

// Address implements identity.Signer.
func (s *signer) Address() address.Address { return s.addr }

// Sign implements identity.Signer.
func (s *signer) Sign(ctx context.Context, d signature.Digest) (signature.Signature, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.paused || s.key.IsZero() {
		return signature.Signature{}, fault.HostIdentityUnavailable
	}
	return s.key.Sign(ctx, d)
}

func (s *signer) pause(paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = paused
}

func (s *signer) destroy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key.Destroy()
}

type signers map[address.Address]*signer

func (s signers) destroy() {
	for _, one := range s {
		one.destroy()
	}
}
