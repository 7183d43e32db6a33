package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"osaurus/engine/control"
	"osaurus/engine/sandbox"
)

const sandboxConfigLong = `Without a flag, show what sandboxes run under; with flags, change it. All
flags of one call hold together or not at all.

Networks
  outbound  every public host, none of this machine or its neighbours
  proxy     the hosts of --domains and those that plugins declare
  none      nothing
Limits
  enforced     no sandbox starts where memory and processes cannot be limited
  best-effort  it starts without, as an ordinary user's does under gVisor
Isolation
  per-agent  a sandbox for each agent
  shared     one for all agents, who are users in it

A change stops the sandboxes that run. What agents kept in them stays; homes in
a shared sandbox are others than those in an agent's own.`

// wordFlag is a flag of config whose value is one of a few words.
type wordFlag struct {
	name, text string
	words      []string
	value      string
	to         **string
}

func (a *app) sandboxConfig() *cobra.Command {
	var in sandbox.Choices
	var domains []string
	choices := []*wordFlag{
		{name: "network", text: "what sandboxes reach: outbound, proxy or none", words: []string{"outbound", "proxy", "none"}, to: &in.Network},
		{name: "limits", text: "of memory and processes: enforced or best-effort", words: []string{sandbox.LimitsEnforced, sandbox.LimitsBestEffort}, to: &in.Limits},
		{name: "isolation", text: "sandboxes per-agent, or one that is shared", words: []string{sandbox.PerAgentMode, sandbox.SharedMode}, to: &in.Isolation},
		{name: "driver", text: "what runs them: system, gvisor, qemu or vz", words: []string{sandbox.SystemDriver, "gvisor", "qemu", "vz"}, to: &in.Driver},
	}
	numbers := []*struct {
		name, text string
		value      int
		to         **int
	}{
		{name: "cpus", text: "processors of a sandbox, 1 to 8", to: &in.CPUs},
		{name: "memory", text: "memory of a sandbox in GiB, 1 to 8", to: &in.MemoryGB},
		{name: "max-sandboxes", text: "how many run at once; the one not used longest makes room", to: &in.MaxEnvironments},
	}
	c := command("", "config", "Show or change what sandboxes run under", "  osaurus sandbox config\n  osaurus sandbox config --limits best-effort\n  osaurus sandbox config --network proxy --domains pypi.org,*.pythonhosted.org", cobra.NoArgs, nil)
	c.Long = sandboxConfigLong
	f := c.Flags()
	for _, o := range choices {
		f.StringVar(&o.value, o.name, "", o.text)
		_ = c.RegisterFlagCompletionFunc(o.name, cobra.FixedCompletions(o.words, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	}
	f.StringSliceVar(&domains, "domains", nil, "hosts that the network proxy allows: example.com, *.example.com")
	for _, o := range numbers {
		f.IntVar(&o.value, o.name, 0, o.text)
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		for _, o := range choices {
			if f.Changed(o.name) {
				*o.to = &o.value
			}
		}
		for _, o := range numbers {
			if f.Changed(o.name) {
				*o.to = &o.value
			}
		}
		if f.Changed("domains") {
			in.Domains = &domains
		}
		return a.withHost(c.Context(), func(ctx context.Context, h *control.Client) error { return a.configureSandbox(ctx, h, in) })
	}
	return c
}

func (a *app) configureSandbox(ctx context.Context, h *control.Client, in sandbox.Choices) error {
	now, err := h.ConfigureSandbox(ctx, in)
	if err != nil {
		return err
	}
	return a.result(now, func() {
		network := now.Network
		if len(now.Domains) > 0 {
			network += "  " + strings.Join(now.Domains, " ")
		}
		for _, line := range [][2]string{
			{"network", network}, {"limits", now.Limits}, {"isolation", now.Isolation}, {"driver", now.Driver},
			{"cpus", strconv.Itoa(now.CPUs)}, {"memory", strconv.Itoa(now.MemoryGB) + " GiB"}, {"max-sandboxes", strconv.Itoa(now.MaxEnvironments)},
		} {
			a.out("%-14s %s", line[0], line[1])
		}
		if now.Problem != "" {
			a.out("%-14s %s", "problem", now.Problem)
		}
	})
}
