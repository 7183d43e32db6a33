package identity

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"osaurus/engine/address"
	"osaurus/engine/fault"
)

// agentOf is a stored agent of a master.
func agentOf(t testing.TB, m MasterKey, p Path) AgentRef {
	t.Helper()
	return AgentRef{ID: p.String(), Name: "agent " + p.String(), Path: &p, Address: addressAt(m, p)}
}

func TestRestoreOnAnEmptyHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	got, err := a.Restore(t.Context(), text(alicePhrase), nil, false)
	if err != nil || got.String() != aliceAddress {
		t.Fatalf("%s, %v", got, err)
	}
	s, err := a.Status(t.Context())
	if err != nil || s.State != Ready || !s.Acknowledged || s.Replaced || s.Address != got {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestRestoreJudgesThePhrase(t *testing.T) {
	t.Parallel()
	alice, bob := master(t, aliceHex), master(t, bobHex)
	w0 := newWorld(t)
	scope := w0.open(t).Device().ID
	lost := agentOf(t, alice, Path{3, scope})
	lost.Path = &Path{Index: 3}
	builtIn := agentOf(t, bob, Path{0, ""})
	builtIn.BuiltIn = true
	for name, c := range map[string]struct {
		present string // scalar in the keystore
		phrase  string
		agents  []AgentRef
		want    error
	}{
		"the same master":                          {aliceHex, alicePhrase, nil, nil},
		"another master, no agents":                {aliceHex, bobPhrase, nil, fault.ForeignPhrase},
		"another master, its agents":               {aliceHex, bobPhrase, []AgentRef{agentOf(t, alice, Path{1, "ab"})}, fault.ForeignPhrase},
		"the agents' master":                       {bobHex, alicePhrase, []AgentRef{agentOf(t, alice, Path{1, "ab"})}, nil},
		"one of two agents":                        {bobHex, alicePhrase, []AgentRef{agentOf(t, bob, Path{1, "ab"}), agentOf(t, alice, Path{2, ""})}, nil},
		"an agent that lost its scope":             {bobHex, alicePhrase, []AgentRef{lost}, nil},
		"a built-in agent proves nothing":          {aliceHex, bobPhrase, []AgentRef{builtIn}, fault.ForeignPhrase},
		"empty keystore, agents of another":        {"", bobPhrase, []AgentRef{agentOf(t, alice, Path{1, "ab"})}, fault.ForeignPhrase},
		"empty keystore, its agents":               {"", alicePhrase, []AgentRef{agentOf(t, alice, Path{1, "ab"})}, nil},
		"empty keystore, an agent without address": {"", bobPhrase, []AgentRef{{ID: "x"}}, nil},
		"a bad phrase":                             {aliceHex, "not a phrase", nil, fault.InvalidPhrase},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.rand = &scripted{} // the same device as w0
			if c.present != "" {
				w.with(t, c.present)
			}
			a := w.open(t)
			_, err := a.Restore(t.Context(), text(c.phrase), c.agents, false)
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want != nil && c.present != "" && !w.vault.holds(VaultAccount, c.present) {
				t.Error("a refused phrase changed the keystore")
			}
			var foreign *ForeignPhraseError
			if !errors.As(err, &foreign) {
				return
			}
			if foreign.Phrase.String() != bobAddress || c.present != "" && foreign.Stored.String() != aliceAddress || c.present == "" && !foreign.Stored.IsZero() {
				t.Errorf("the error names %+v", foreign)
			}
			if !strings.Contains(err.Error(), bobAddress) {
				t.Errorf("text %q", err)
			}
			if _, err := a.Restore(t.Context(), text(c.phrase), c.agents, true); err != nil {
				t.Errorf("anyway: %v", err)
			}
			if a.Address().String() != bobAddress {
				t.Error("anyway did not install")
			}
		})
	}
}

func TestAReplacedMasterIsKeptUntilConfirmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	a := w.open(t)
	for _, phrase := range []string{bobPhrase, alicePhrase, bobPhrase} { // at one instant: names must not collide
		if _, err := a.Restore(t.Context(), text(phrase), nil, true); err != nil {
			t.Fatal(err)
		}
	}
	kept := backups(slices.Collect(maps.Keys(w.vault.items)))
	if len(kept) != 3 || kept[0] != "master-key.backup-20270115T080000.000000000Z" {
		t.Fatalf("kept %v", kept)
	}
	if s, _ := a.Status(t.Context()); !s.Replaced || s.Address.String() != bobAddress {
		t.Errorf("%+v", s)
	}
	if err := a.ConfirmReplacement(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, _ := a.Status(t.Context()); s.Replaced || len(w.vault.items) != 1 {
		t.Errorf("%+v, %d items", s, len(w.vault.items))
	}
}

// The backup is all that is left when the new master cannot be read.
func TestConfirmReplacementReadsTheNewMasterFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	a := w.open(t)
	if _, err := a.Restore(t.Context(), text(bobPhrase), nil, true); err != nil {
		t.Fatal(err)
	}
	w.vault.items[VaultAccount] = []byte("damaged")
	if err := a.ConfirmReplacement(t.Context()); !errors.Is(err, fault.KeystoreCorrupt) || !w.vault.holds(backupAccount, aliceHex) {
		t.Errorf("got %v", err)
	}
	delete(w.vault.items, VaultAccount)
	if err := a.ConfirmReplacement(t.Context()); !errors.Is(err, fault.NoMaster) || !w.vault.holds(backupAccount, aliceHex) {
		t.Errorf("got %v", err)
	}
}

func TestUndoReplacement(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	a := w.open(t)
	if _, err := a.UndoReplacement(t.Context()); !errors.Is(err, fault.NoMaster) {
		t.Errorf("nothing replaced: %v", err)
	}
	if _, err := a.Restore(t.Context(), text(bobPhrase), nil, true); err != nil {
		t.Fatal(err)
	}
	back, err := a.UndoReplacement(t.Context())
	if err != nil || back.String() != aliceAddress {
		t.Fatalf("%s, %v", back, err)
	}
	if s, _ := a.Status(t.Context()); s.State != Ready || s.Address != back || s.Replaced || s.Acknowledged {
		t.Errorf("%+v", s)
	}
	if len(w.vault.items) != 1 || !w.vault.holds(VaultAccount, aliceHex) {
		t.Error("the keystore holds something else")
	}
}

func TestRestoreOfTheSameMasterChangesOnlyTheAcknowledgement(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	w.vault.fail = func(call string) error {
		if call == "put" || call == "delete" {
			t.Errorf("the keystore saw a %s", call)
		}
		return nil
	}
	a := w.open(t)
	if _, err := a.Restore(t.Context(), text(alicePhrase), nil, false); err != nil {
		t.Fatal(err)
	}
	if s, _ := a.Status(t.Context()); !s.Acknowledged || !s.Created.Equal(epoch) {
		t.Errorf("%+v", s)
	}
}

func TestWhatCannotBeReadIsNotReplaced(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"list", "get"} {
		w := newWorld(t).with(t, aliceHex)
		w.vault.fail = func(c string) error {
			if c == call {
				return fault.KeystoreLocked
			}
			return nil
		}
		if _, err := w.open(t).Restore(t.Context(), text(bobPhrase), nil, true); !errors.Is(err, fault.KeystoreLocked) {
			t.Errorf("%s: %v", call, err)
		}
		if !w.vault.holds(VaultAccount, aliceHex) || len(w.vault.items) != 1 {
			t.Errorf("%s: the keystore changed", call)
		}
	}
}

// A stored master that is no key is still kept: those bytes may be worth
// something to somebody.
func TestRestoreOverADamagedMasterKeepsItsBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.vault.items[VaultAccount] = []byte("damaged")
	if _, err := w.open(t).Restore(t.Context(), text(alicePhrase), nil, false); err != nil {
		t.Fatal(err)
	}
	if !w.vault.holds(backupAccount, "64616d61676564") || !w.vault.holds(VaultAccount, aliceHex) {
		t.Error("the old bytes are gone")
	}
}

func TestResetKeepsTheDeviceAndItsCounters(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, aliceHex)
	a := w.open(t)
	if _, err := a.Restore(t.Context(), text(bobPhrase), nil, true); err != nil {
		t.Fatal(err)
	}
	before := a.Device()
	if _, err := a.AllocateIndex(0); err != nil {
		t.Fatal(err)
	}
	if err := a.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.vault.items) != 0 {
		t.Errorf("%d items are left in the keystore", len(w.vault.items))
	}
	a = w.open(t)
	if s, err := a.Status(t.Context()); err != nil || s.State != None || s.Acknowledged || s.Address != (address.Address{}) {
		t.Errorf("%+v, %v", s, err)
	}
	if a.Device() != before {
		t.Error("the device changed")
	}
	if _, err := a.Restore(t.Context(), text(alicePhrase), nil, false); err != nil {
		t.Fatal(err)
	}
	if index, err := a.AllocateIndex(0); err != nil || index != 1 {
		t.Errorf("index %d, %v: used twice", index, err)
	}
	if err := a.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Reset(t.Context()); err != nil {
		t.Errorf("a second reset: %v", err)
	}
}
