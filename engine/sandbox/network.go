package sandbox

import (
	"log/slog"

	"osaurus/engine/sandbox/wire"
)

// spec is how a sandbox is started. The guest of network "outbound" has
// loopback alone as well, and a proxy that leads to every public host: no
// driver routes what would reach this machine and its neighbours. The proxy is
// there also while the agent's network is switched off, and then refuses all:
// the owner's switch rules the next request and waits for no restart.
func (s *Service) spec(agentID string) (Spec, Network, error) {
	set := s.Settings()
	allowed := agentID == "" || s.Switch(agentID).Network
	mode := set.Mode(true)
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
	return &Egress{Lookup: s.c.Lookup, Dial: s.c.Dial, Public: func() bool { return s.networkOf(e) == NetworkOutbound }, Domains: func() []string { return s.domains(e) }, Refused: func(status int) {
		s.Bridge.audit.record(e.sandbox.ID(), status, hostRefused, slog.String("agent", e.agentID))
	}}
}

// domains are those that a sandbox reaches now. Plugins' count while the agent
// may have plugins.
func (s *Service) domains(e *environment) []string {
	if e.agentID == "" || s.networkOf(e) == NetworkNone {
		return nil // where agents share, nobody knows whose domains would count
	}
	patterns := s.Settings().Domains()
	if s.Switch(e.agentID).MayCreatePlugins() {
		for _, r := range s.Plugins.List(e.agentID) {
			patterns = append(patterns, r.Domains()...)
		}
	}
	return patterns
}

// networkOf is the network that a sandbox has now, and networkOfLocked the same
// for who holds s.mu. The proxy does not see which agent of a shared sandbox
// asks, so the switch of each counts.
func (s *Service) networkOf(e *environment) Network {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.networkOfLocked(e)
}

func (s *Service) networkOfLocked(e *environment) Network {
	if e.agentID != "" && !s.Switch(e.agentID).Network {
		return NetworkNone
	}
	for name := range e.users {
		if e.agentID == "" && !s.Switch(s.users.agentOf(name)).Network {
			return NetworkNone
		}
	}
	return e.network
}

// recheckNetworks ends what the owner allows no more.
func (s *Service) recheckNetworks() {
	s.mu.Lock()
	var all []*Egress
	for _, e := range s.running {
		if e.egress != nil {
			all = append(all, e.egress)
		}
	}
	s.mu.Unlock()
	for _, p := range all {
		p.Recheck()
	}
}
