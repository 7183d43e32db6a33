package sandbox

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"osaurus/engine/fault"
)

// Words of Choices.
const (
	LimitsEnforced   = "enforced"    // no start where memory and processes cannot be limited
	LimitsBestEffort = "best-effort" // a start without
	PerAgentMode     = "per-agent"   // a sandbox for each agent
	SharedMode       = "shared"      // one for all
	SystemDriver     = "system"      // the first of this system's
)

// Choices are what an owner sets of Settings; nil leaves a field. Domains are
// those of the network "proxy".
type Choices struct {
	Limits          *string   `json:"limits,omitempty"`
	Network         *string   `json:"network,omitempty"`
	Domains         *[]string `json:"domains,omitempty"`
	Isolation       *string   `json:"isolation,omitempty"`
	Driver          *string   `json:"driver,omitempty"`
	CPUs            *int      `json:"cpus,omitempty"`
	MemoryGB        *int      `json:"memory_gb,omitempty"`
	MaxEnvironments *int      `json:"max_sandboxes,omitempty"`
}

// Chosen is what holds of them. Network is what a sandbox gets whose agent may
// use one.
type Chosen struct {
	Limits          string   `json:"limits"`
	Network         string   `json:"network"`
	Domains         []string `json:"domains"`
	Isolation       string   `json:"isolation"`
	Driver          string   `json:"driver"`
	Drivers         []string `json:"drivers"` // that this system knows
	CPUs            int      `json:"cpus"`
	MemoryGB        int      `json:"memory_gb"`
	MaxEnvironments int      `json:"max_sandboxes"`
	Problem         string   `json:"problem,omitempty"` // what the file asks for and no sandbox gets
}

// Chosen returns what holds.
func (s *Service) Chosen() Chosen {
	set := s.Settings()
	c := Chosen{
		Limits: LimitsEnforced, Network: set.Mode(true).String(), Domains: set.Domains(), Isolation: SharedMode, Driver: SystemDriver, Drivers: s.driverNames(),
		CPUs: set.CPUs, MemoryGB: set.MemoryGB, MaxEnvironments: set.MaxEnvironments,
	}
	if set.Limits == LimitsBestEffort {
		c.Limits = LimitsBestEffort
	}
	if set.PerAgent {
		c.Isolation = PerAgentMode
	}
	if set.Driver != "" {
		c.Driver = set.Driver
	}
	if c.Domains == nil {
		c.Domains = []string{}
	}
	if err := proxyNeedsOwnSandbox(&set); err != nil {
		c.Problem = fault.Of(err).Public()
	}
	return c
}

func (s *Service) driverNames() []string {
	names := []string{}
	for _, d := range s.c.Drivers {
		names = append(names, d.Name())
	}
	return names
}

// Choose saves what an owner chose, all of it or nothing. When that changes
// anything, sandboxes that run are stopped: none goes on under old settings.
// Errors are fault.Usage and name the field.
func (s *Service) Choose(ctx context.Context, c Choices) (Chosen, error) {
	changed, err := s.choose(c)
	if err == nil && changed {
		now := s.Chosen()
		s.c.Log("sandbox_configured", slog.String("network", now.Network), slog.String("limits", now.Limits), slog.String("isolation", now.Isolation), slog.String("driver", now.Driver))
		err = s.Stop(ctx)
	}
	return s.Chosen(), err
}

func (s *Service) choose(c Choices) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == (Choices{}) {
		return false, nil // a look, whatever the file says
	}
	next := s.settings
	for _, apply := range []func(*Settings) error{c.isolation, c.limits, c.sizes, c.network, func(set *Settings) error { return c.driver(set, s.driverNames()) }} {
		if err := apply(&next); err != nil {
			return false, err
		}
	}
	if next.same(s.settings) {
		return false, nil
	}
	if err := s.saveLocked(next); err != nil {
		return false, err
	}
	s.generation++
	return true, nil
}

func (s Settings) same(o Settings) bool {
	return s.Limits == o.Limits && s.Network == o.Network && slices.Equal(s.AllowedDomains, o.AllowedDomains) && s.PerAgent == o.PerAgent && s.Driver == o.Driver &&
		s.CPUs == o.CPUs && s.MemoryGB == o.MemoryGB && s.MaxEnvironments == o.MaxEnvironments
}

func unknownChoice(text string) error { return fault.WithText(fault.Usage, text) }

func (c Choices) isolation(set *Settings) error {
	if c.Isolation == nil {
		return nil
	}
	if *c.Isolation != PerAgentMode && *c.Isolation != SharedMode {
		return unknownChoice("isolation is per-agent or shared")
	}
	set.PerAgent = *c.Isolation == PerAgentMode
	return nil
}

func (c Choices) limits(set *Settings) error {
	switch {
	case c.Limits == nil:
	case *c.Limits == LimitsEnforced:
		set.Limits = ""
	case *c.Limits == LimitsBestEffort:
		set.Limits = LimitsBestEffort
	default:
		return unknownChoice("limits are enforced or best-effort")
	}
	return nil
}

func (c Choices) sizes(set *Settings) error {
	for _, n := range []struct {
		choice   *int
		field    *int
		min, max int
		text     string
	}{
		{c.CPUs, &set.CPUs, MinCPUs, MaxCPUs, "a sandbox has 1 to 8 processors"},
		{c.MemoryGB, &set.MemoryGB, MinMemoryGB, MaxMemoryGB, "a sandbox has 1 to 8 GiB of memory"},
		{c.MaxEnvironments, &set.MaxEnvironments, 1, MaxEnvironments, "between 1 and 32 sandboxes may run at once"},
	} {
		if n.choice == nil {
			continue
		}
		if *n.choice < n.min || *n.choice > n.max {
			return unknownChoice(n.text)
		}
		*n.field = *n.choice
	}
	return nil
}

// network stores "none" as a proxy without domains. That is no network in every
// host that reads this file, where the word "none" is only what the switch of
// some agent left (Settings.Mode).
func (c Choices) network(set *Settings) error {
	if c.Network == nil && c.Domains == nil {
		return proxyNeedsOwnSandbox(set)
	}
	domains := set.Domains()
	if c.Domains != nil {
		var ok bool
		if domains, ok = NormalPatterns(*c.Domains); !ok && len(*c.Domains) > 0 {
			return unknownChoice("domains are names such as example.com or *.example.com, of two parts or more and no addresses")
		}
	}
	network := set.Mode(true).String()
	if c.Network != nil {
		network = *c.Network
	} else if len(domains) > 0 {
		network = NetworkProxy.String()
	}
	switch {
	case network == NetworkProxy.String() && len(domains) == 0:
		return unknownChoice("the network proxy needs domains; without any, choose none or outbound")
	case network == NetworkProxy.String():
		set.Network, set.AllowedDomains = network, domains
	case network != NetworkNone.String() && network != NetworkOutbound.String():
		return unknownChoice("the network is none, proxy or outbound")
	case c.Domains != nil && len(domains) > 0:
		return unknownChoice("domains are for the network proxy alone")
	case network == NetworkNone.String():
		set.Network, set.AllowedDomains = NetworkProxy.String(), nil
	default:
		set.Network, set.AllowedDomains = network, nil
	}
	return proxyNeedsOwnSandbox(set)
}

// proxyNeedsOwnSandbox refuses what would fail closed without a word (decisions
// D14): in a shared sandbox the proxy does not know which agent asks.
func proxyNeedsOwnSandbox(set *Settings) error {
	if !set.PerAgent && len(set.Domains()) > 0 {
		return unknownChoice("the network proxy needs isolation per-agent: in a shared sandbox nobody knows whose domains count")
	}
	return nil
}

func (c Choices) driver(set *Settings, known []string) error {
	switch {
	case c.Driver == nil:
	case *c.Driver == SystemDriver:
		set.Driver = ""
	case slices.Contains(known, *c.Driver):
		set.Driver = *c.Driver
	case len(known) == 0:
		return unknownChoice("this system has no sandbox driver")
	default:
		return unknownChoice("the drivers of this system are " + strings.Join(known, ", ") + "; system takes the first")
	}
	return nil
}

// errReconfigured says that the settings changed while a sandbox booted.
var errReconfigured = fault.WithText(fault.ServerOverloaded, "The settings of sandboxes changed meanwhile. Try again.")
