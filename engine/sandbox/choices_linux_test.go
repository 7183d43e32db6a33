package sandbox

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"osaurus/engine/fault"
)

// TestChoices: what an owner sets, that all of it holds or nothing, and what a
// sandbox's network becomes.
func TestChoices(t *testing.T) {
	t.Parallel()
	type change = func(*Choices)
	word := func(field func(*Choices) **string, v string) change { return func(c *Choices) { *field(c) = &v } }
	network := func(v string) change { return word(func(c *Choices) **string { return &c.Network }, v) }
	isolation := func(v string) change { return word(func(c *Choices) **string { return &c.Isolation }, v) }
	limits := func(v string) change { return word(func(c *Choices) **string { return &c.Limits }, v) }
	driver := func(v string) change { return word(func(c *Choices) **string { return &c.Driver }, v) }
	domains := func(list ...string) change { return func(c *Choices) { c.Domains = &list } }
	number := func(field func(*Choices) **int, n int) change { return func(c *Choices) { *field(c) = &n } }
	cpus := func(n int) change { return number(func(c *Choices) **int { return &c.CPUs }, n) }
	memory := func(n int) change { return number(func(c *Choices) **int { return &c.MemoryGB }, n) }
	most := func(n int) change { return number(func(c *Choices) **int { return &c.MaxEnvironments }, n) }
	proxied := func(s *Settings) { s.Network, s.AllowedDomains = "proxy", []string{"example.com"} }
	for _, c := range []struct {
		name    string
		before  func(*Settings)
		changes []change
		refused string // a word of the error
		network Network
		domains []string
	}{
		{name: "nothing", network: NetworkOutbound},
		{name: "none", changes: []change{network("none")}, network: NetworkNone},
		{name: "none from proxy", before: proxied, changes: []change{network("none")}, network: NetworkNone},
		{name: "outbound from none", before: func(s *Settings) { s.Network = "proxy" }, changes: []change{network("outbound")}, network: NetworkOutbound},
		{name: "outbound from proxy", before: proxied, changes: []change{network("outbound")}, network: NetworkOutbound},
		{name: "proxy", changes: []change{network("proxy"), domains("B.example.com", "a.example.com", "a.example.com ")}, network: NetworkProxy, domains: []string{"a.example.com", "b.example.com"}},
		{name: "domains alone", changes: []change{domains("*.example.com")}, network: NetworkProxy, domains: []string{"*.example.com"}},
		{name: "proxy kept", before: proxied, changes: []change{network("proxy")}, network: NetworkProxy, domains: []string{"example.com"}},
		{name: "a switch left none", before: func(s *Settings) { s.Network = "none" }, changes: []change{cpus(MaxCPUs)}, network: NetworkOutbound},
		{name: "proxy without domains", changes: []change{network("proxy")}, refused: "needs domains"},
		{name: "domains taken away", before: proxied, changes: []change{domains()}, refused: "needs domains"},
		{name: "domains of outbound", changes: []change{network("outbound"), domains("example.com")}, refused: "proxy alone"},
		{name: "an address", changes: []change{domains("example.com", "127.0.0.1")}, refused: "example.com"},
		{name: "a single label", changes: []change{domains("localhost")}, refused: "example.com"},
		{name: "another network", changes: []change{network("Outbound")}, refused: "none, proxy or outbound"},
		{name: "shared", changes: []change{isolation("shared")}, network: NetworkOutbound},
		{name: "shared and none", before: proxied, changes: []change{isolation("shared"), network("none")}, network: NetworkNone},
		{name: "shared and proxy", before: proxied, changes: []change{isolation("shared")}, refused: "per-agent"},
		{name: "proxy and shared", before: func(s *Settings) { s.PerAgent = false }, changes: []change{domains("example.com")}, refused: "per-agent"},
		{name: "another isolation", changes: []change{isolation("")}, refused: "per-agent or shared"},
		{name: "limits", changes: []change{limits("best-effort")}, network: NetworkOutbound},
		{name: "other limits", changes: []change{limits("off")}, refused: "enforced"},
		{name: "the driver", changes: []change{driver("namespaces")}, network: NetworkOutbound},
		{name: "another driver", changes: []change{driver("docker")}, refused: "namespaces"},
		{name: "least", changes: []change{cpus(MinCPUs), memory(MinMemoryGB), most(1)}, network: NetworkOutbound},
		{name: "most", changes: []change{cpus(MaxCPUs), memory(MaxMemoryGB), most(MaxEnvironments)}, network: NetworkOutbound},
		{name: "no processors", changes: []change{cpus(MinCPUs - 1)}, refused: "processors"},
		{name: "many processors", changes: []change{cpus(MaxCPUs + 1)}, refused: "processors"},
		{name: "no memory", changes: []change{memory(MinMemoryGB - 1)}, refused: "memory"},
		{name: "much memory", changes: []change{memory(MaxMemoryGB + 1)}, refused: "memory"},
		{name: "no sandboxes", changes: []change{most(0)}, refused: "at once"},
		{name: "many sandboxes", changes: []change{most(MaxEnvironments + 1)}, refused: "at once"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := Open(ServiceConfig{Home: t.TempDir(), Drivers: []Driver{&namespaces{}}})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.change(func(set *Settings) {
				if c.before != nil {
					c.before(set)
				}
			}); err != nil {
				t.Fatal(err)
			}
			before := s.Settings()
			in := Choices{}
			for _, f := range c.changes {
				f(&in)
			}
			got, err := s.Choose(t.Context(), in)
			saved, loadErr := LoadSettings(s.path(settingsFile))
			if loadErr != nil || !saved.same(s.Settings()) {
				t.Errorf("the file has %+v, %v", saved, loadErr)
			}
			if c.refused != "" {
				if !errors.Is(err, fault.Usage) || !strings.Contains(err.Error(), c.refused) || !s.Settings().same(before) {
					t.Errorf("%v, %+v", err, got)
				}
				return
			}
			if err != nil || got.Network != c.network.String() || s.Settings().Mode(true) != c.network || s.Settings().Mode(false) != NetworkNone || !slices.Equal(got.Domains, c.domains) {
				t.Errorf("%+v, %v", got, err)
			}
			if again, err := s.Choose(t.Context(), Choices{}); err != nil || again.Network != got.Network || s.generation > 1 {
				t.Errorf("looking changed something: %+v, %v", again, err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestChoicesWhileSandboxesRun: a change ends what runs, and what was about to.
func TestChoicesWhileSandboxesRun(t *testing.T) {
	t.Parallel()
	s, n, _ := newService(t, func(set *Settings) { set.Network = "outbound" })
	ctx := t.Context()
	mustExec(t, s, agentA, "echo kept > ~/file")
	four, none := 4, "none"
	if _, err := s.Choose(ctx, Choices{Network: &none}); err != nil || s.Running(agentA) || s.tokens.Len() != 0 {
		t.Errorf("it runs on: %v", err)
	}
	if r := mustExec(t, s, agentA, "env; cat ~/file"); strings.Contains(r.Stdout, "http_proxy") || !strings.HasSuffix(r.Stdout, "kept\n") {
		t.Errorf("%+v", r)
	}
	starts := n.starts
	if _, err := s.Choose(ctx, Choices{Network: &none}); err != nil || !s.Running(agentA) {
		t.Errorf("nothing changed, and it does not run: %v", err)
	}
	n.starting = func() {
		n.starting = nil
		if _, err := s.Choose(ctx, Choices{CPUs: &four}); err != nil {
			t.Error(err)
		}
	}
	if err := s.Provision(context.WithoutCancel(ctx), agentB); !errors.Is(err, errReconfigured) || s.Running(agentA) || s.Running(agentB) || n.starts != starts+1 {
		t.Errorf("%v, %d starts", err, n.starts-starts)
	}
	mustExec(t, s, agentB, "true")
}

// TestChoicesShown: a file whose network fails closed is shown with what is
// wrong, and only a change is refused.
func TestChoicesShown(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t, func(set *Settings) {
		set.PerAgent, set.Network, set.AllowedDomains = false, "proxy", []string{"example.com"}
	})
	four := 4
	got, err := s.Choose(t.Context(), Choices{})
	if err != nil || got.Network != "none" || got.Isolation != SharedMode || !strings.Contains(got.Problem, "per-agent") {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := s.Choose(t.Context(), Choices{CPUs: &four}); err == nil {
		t.Error("a change keeps what fails closed")
	}
	own := PerAgentMode
	if got, err := s.Choose(t.Context(), Choices{Isolation: &own}); err != nil || got.Problem != "" || got.Network != "proxy" {
		t.Errorf("%+v %v", got, err)
	}
}
