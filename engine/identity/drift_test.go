package identity

import (
	"encoding/json"
	"errors"
	"testing"

	"osaurus/engine/address"
)

type driftVector struct {
	Name, Master, Scope, Expect string
	Agents                      []AgentRef
	Keys                        []KeyRef
	Mismatched, Recoverable     []string
	Stale                       []string
}

func TestDriftVectors(t *testing.T) {
	t.Parallel()
	var vectors []driftVector
	readVectors(t, "drift.json", &vectors)
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			d, err := CheckDrift(master(t, v.Master), v.Agents, v.Keys, v.Scope)
			if err != nil {
				t.Fatal(err)
			}
			var mismatched, recoverable, stale []string
			for _, a := range d.Mismatched {
				mismatched = append(mismatched, a.ID)
			}
			for _, r := range d.Recoverable {
				recoverable = append(recoverable, r.Agent.ID)
				if got := addressAt(master(t, v.Master), r.Path); got != r.Agent.Address {
					t.Errorf("the recovered path derives %s", got)
				}
			}
			for _, k := range d.StaleKeys {
				stale = append(stale, k.ID)
			}
			same(t, "mismatched", mismatched, v.Mismatched)
			same(t, "recoverable", recoverable, v.Recoverable)
			same(t, "stale", stale, v.Stale)
			verdict := "success"
			if d.Any() {
				verdict = "drift"
			}
			if verdict != v.Expect {
				t.Errorf("verdict %s, want %s", verdict, v.Expect)
			}
		})
	}
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	a, _ := json.Marshal(append([]string{}, got...))
	b, _ := json.Marshal(append([]string{}, want...))
	if string(a) != string(b) {
		t.Errorf("%s: %s, want %s", what, a, b)
	}
}

func TestDriftNeedsAMaster(t *testing.T) {
	t.Parallel()
	if _, err := CheckDrift(MasterKey{}, nil, nil, ""); err == nil {
		t.Error("a check without a master passed")
	}
}

// A path that derives no key is drift, not a failure of the whole check.
func TestPathWithoutAKeyIsMismatched(t *testing.T) {
	t.Parallel()
	m := master(t, aliceHex)
	if fit, derived := pathOf(m, AgentRef{Address: m.Address()}, "a1b2c3d4"); fit != nil || !derived.IsZero() {
		t.Errorf("%v, %s", fit, derived)
	}
	if got := addressAt(MasterKey{}, Path{}); got != (address.Address{}) {
		t.Errorf("got %s", got)
	}
	if _, err := (MasterKey{}).Agent(Path{}); errors.Is(err, ErrSkipIndex) {
		t.Error("no master is not a skipped index")
	}
}
