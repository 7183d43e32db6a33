package sandbox

import (
	"log/slog"

	"osaurus/engine/sandbox/wire"
)

// spec is how a sandbox is started. The guest of network "outbound" has
// loopback alone as well, and a proxy that leads to every public host: no
// driver routes what would reach this machine and its neighbours.
func (s *Service) spec(agentID string) (Spec, Network, error) {
	set := s.Settings()
	allowed := agentID == "" || s.Switch(agentID).Network
	mode := set.Mode(allowed)
	id, err := s.newID(agentID)
	if err != nil {
		return Spec{}, 0, err
	}
	nonce, err := s.newNonce()
	if err != nil {
		return Spec{}, 0, err
	}
	if set.Reconcile(allowed).Network != set.Network {
		if err := s.change(func(set *Settings) { *set = set.Reconcile(allowed) }); err != nil {
			return Spec{}, 0, err
		}
	}
	spec := Spec{ID: id, Boot: wire.Boot{Sandbox: id, Nonce: nonce}, Network: mode, CPUs: set.CPUs, MemoryMB: set.MemoryGB << 10, PIDs: GuestPIDs, BestEffortLimits: set.Limits == LimitsBestEffort}
	if mode == NetworkOutbound {
		spec.Network = NetworkProxy
	}
	spec.Boot.Proxy = spec.Network == NetworkProxy
	return spec, mode, nil
}

// egress is the proxy of one sandbox: the owner's domains and those its
// agent's plugins declare, as they are when a request comes, or every public
// host.
func (s *Service) egress(e *environment) *Egress {
	return &Egress{Lookup: s.c.Lookup, Dial: s.c.Dial, Public: func() bool { return s.public(e) }, Domains: func() []string {
		if e.agentID == "" {
			return nil // nobody knows which agent's domains would count
		}
		patterns := s.Settings().Domains()
		for _, r := range s.Plugins.List(e.agentID) {
			patterns = append(patterns, r.Domains()...)
		}
		return patterns
	}, Log: func(event string, attrs ...slog.Attr) {
		s.c.Log(event, append(attrs, slog.String("sandbox", e.sandbox.ID()), slog.String("agent", e.agentID))...)
	}}
}

// public reports whether every public host is allowed now. The proxy does not
// see which agent of a shared sandbox asks, so the switch of each counts.
func (s *Service) public(e *environment) bool {
	if e.network != NetworkOutbound {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range e.users {
		if !s.Switch(s.users.agentOf(name)).Network {
			return false
		}
	}
	return true
}
