package agents

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osaurus/engine/accesskey"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/signature"
)

func TestUnlockKeepsSignersAndZeroesTheMaster(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a := h.assigned("Ada")
	h.open()
	if _, err := h.registry.Signer(t.Context(), a.Address); !errors.Is(err, fault.HostIdentityUnavailable) || h.registry.Unlocked() {
		t.Errorf("before: %v", err)
	}
	m := h.masterKey(aliceHex)
	if err := h.registry.UnlockWith(m); err != nil {
		t.Fatal(err)
	}
	if !m.IsZero() || !h.registry.Unlocked() {
		t.Error("the master outlived the unlock")
	}
	h.signs(a.Address)
	if err := h.registry.UnlockWith(identity.MasterKey{}); err == nil {
		t.Error("unlocked with no master")
	}
	h.signs(a.Address)
}

func TestLockEndsSignersThatAreHeld(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a := h.assigned("Ada")
	held, err := h.registry.Signer(t.Context(), a.Address)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.registry.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := held.Sign(t.Context(), signature.SecureChannel.Digest(nil)); err != nil {
		t.Errorf("a second unlock ended a signer in use: %v", err)
	}
	h.registry.Lock()
	if _, err := held.Sign(t.Context(), signature.SecureChannel.Digest(nil)); !errors.Is(err, fault.HostIdentityUnavailable) {
		t.Errorf("after Lock: %v", err)
	}
	h.registry.Lock()
}

func TestUnlockWithoutAnIdentity(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if err := h.registry.Unlock(t.Context()); !errors.Is(err, fault.NoMaster) {
		t.Errorf("got %v", err)
	}
}

// An agent saved without its scope signs again, its record is completed once,
// and no key changes.
func TestALostScopeIsRestoredOnce(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a := h.assigned("Ada")
	token := h.key(a.Address)
	h.writeFile(a.ID+".json", strings.Replace(string(h.file(a.ID)), `"scope": "`+h.account.Device().ID+`"`, `"scope": ""`, 1))
	h.open()
	if got, _ := h.registry.Get(a.ID); got.Path.Scope != "" {
		t.Fatalf("the scope is still there: %v", got.Path)
	}
	h.events = nil
	for range 2 {
		if err := h.registry.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := h.registry.Get(a.ID)
	if *got.Path != *a.Path || got.Address != a.Address || len(got.Retired) != 0 {
		t.Errorf("%+v", got)
	}
	h.signs(a.Address)
	if health := h.registry.Health(); health.ScopesRestored != 1 || health.Drift.Any() || len(health.Drift.Recoverable) != 0 {
		t.Errorf("%+v", health)
	}
	if got := fmt.Sprint(h.events); got != "[agent_scopes_restored[agents=1]]" {
		t.Errorf("events %s", got)
	}
	if _, err := h.keys.Validate(token); err != nil {
		t.Errorf("its key: %v", err)
	}
	h.open()
	if err := h.registry.Unlock(t.Context()); err != nil || h.registry.Health().ScopesRestored != 0 {
		t.Errorf("reported again: %+v, %v", h.registry.Health(), err)
	}
}

func TestALostScopeOnADiskThatRefuses(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a := h.assigned("Ada")
	h.writeFile(a.ID+".json", strings.Replace(string(h.file(a.ID)), h.account.Device().ID, "", 1))
	h.open()
	h.k.at = 1
	if err := h.registry.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.signs(a.Address)
	if health := h.registry.Health(); len(health.Drift.Recoverable) != 1 || health.ScopesRestored != 0 {
		t.Errorf("%+v", health)
	}
}

// drifted has an agent of another master, one of the present master, and a
// stale key.
func drifted(t *testing.T) (h *host, foreign, own Agent, stale string) {
	t.Helper()
	h = restored(t)
	foreign = h.assigned("Foreign")
	stale = h.key(foreign.Address)
	master, err := h.account.Unlock(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.keys.Mint(t.Context(), master, accesskey.MintRequest{Label: "of the old master", Expiration: accesskey.Never}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.registry.Restore(t.Context(), text(bobPhrase), true); err != nil {
		t.Fatal(err)
	}
	own = h.assigned("Own")
	if err := h.registry.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h, foreign, own, stale
}

func TestDriftIsFoundAtUnlock(t *testing.T) {
	t.Parallel()
	h, foreign, own, _ := drifted(t)
	d := h.registry.Health().Drift
	if len(d.Mismatched) != 1 || d.Mismatched[0].ID != foreign.ID || len(d.StaleKeys) != 1 || !d.Any() {
		t.Errorf("%+v", d)
	}
	if _, err := h.registry.Signer(t.Context(), foreign.Address); !errors.Is(err, fault.HostIdentityUnavailable) {
		t.Errorf("a signer that does not derive: %v", err)
	}
	h.signs(own.Address)
}

func TestRepairForward(t *testing.T) {
	t.Parallel()
	h, foreign, own, token := drifted(t)
	keep := h.key(own.Address)
	done, err := h.registry.Repair(t.Context(), h.registry.Health().Drift)
	if err != nil || len(done.Moved) != 1 || done.KeysRevoked != 1 || len(done.Failed) != 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	now, _ := h.registry.Get(foreign.ID)
	if now.Address == foreign.Address || now.Address != done.Moved[0].Address || now.Retired[0].Address != foreign.Address {
		t.Errorf("%+v", now)
	}
	h.signs(now.Address)
	if unmoved, _ := h.registry.Get(own.ID); unmoved.Address != own.Address {
		t.Error("an agent in order was moved")
	}
	if _, err := h.keys.Validate(keep); err != nil {
		t.Errorf("its key: %v", err)
	}
	if _, err := h.keys.Validate(token); err == nil {
		t.Error("a key for the old address is valid")
	}
	if d := h.registry.Health().Drift; d.Any() {
		t.Errorf("left: %+v", d)
	}
	if done, err := h.registry.Repair(t.Context(), h.registry.Health().Drift); err != nil || len(done.Moved)+done.KeysRevoked != 0 {
		t.Errorf("again: %+v, %v", done, err)
	}
}

// Only what the owner confirmed is touched.
func TestRepairDoesNothingThatWasNotConfirmed(t *testing.T) {
	t.Parallel()
	h, foreign, _, _ := drifted(t)
	found := h.registry.Health().Drift
	other := found.Mismatched[0]
	other.Address[0]++
	for name, confirmed := range map[string]identity.Drift{
		"nothing":        {},
		"an older state": {Mismatched: []identity.AgentRef{other}, StaleKeys: []identity.KeyRef{{ID: id1}}},
	} {
		done, err := h.registry.Repair(t.Context(), confirmed)
		if err != nil || len(done.Moved)+done.KeysRevoked+len(done.Failed) != 0 {
			t.Errorf("%s: %+v, %v", name, done, err)
		}
	}
	if now, _ := h.registry.Get(foreign.ID); now.Address != foreign.Address {
		t.Error("the agent was moved")
	}
}

// One agent that cannot be repaired does not stop the others.
func TestRepairCollectsErrors(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a, b := h.assigned("Ada"), h.assigned("Bea")
	if _, err := h.registry.Restore(t.Context(), text(bobPhrase), true); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	h.registry.files = refusing{h.registry.files, h.registry.path(a.ID), refused}
	done, err := h.registry.Repair(t.Context(), h.registry.Health().Drift)
	if err != nil || len(done.Moved) != 1 || done.Moved[0].ID != b.ID || len(done.Failed) != 1 || done.Failed[0].ID != a.ID || !errors.Is(done.Failed[0].Err, refused) {
		t.Fatalf("%+v, %v", done, err)
	}
	if d := h.registry.Health().Drift; len(d.Mismatched) != 1 || d.Mismatched[0].ID != a.ID {
		t.Errorf("left: %+v", d)
	}
}

type refusing struct {
	files
	path string
	err  error
}

func (f refusing) Write(path string, data []byte) error {
	if path == f.path {
		return f.err
	}
	return f.files.Write(path, data)
}

func TestRepairWhileLockedStaysLocked(t *testing.T) {
	t.Parallel()
	h, foreign, _, _ := drifted(t)
	found := h.registry.Health().Drift
	h.registry.Lock()
	if _, err := h.registry.Repair(t.Context(), found); err != nil {
		t.Fatal(err)
	}
	now, _ := h.registry.Get(foreign.ID)
	if h.registry.Unlocked() || h.registry.Health().Drift.Any() || now.Address == foreign.Address {
		t.Errorf("unlocked=%v %+v", h.registry.Unlocked(), h.registry.Health())
	}
}

func TestRestoreEndsTheOldIdentity(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a := h.assigned("Ada")
	held, err := h.registry.Signer(t.Context(), a.Address)
	if err != nil {
		t.Fatal(err)
	}
	var foreign *identity.ForeignPhraseError
	if _, err := h.registry.Restore(t.Context(), text(bobPhrase), false); !errors.As(err, &foreign) || foreign.Stored == foreign.Phrase {
		t.Fatalf("a foreign phrase: %v", err)
	}
	h.signs(a.Address)
	if _, err := h.registry.Restore(t.Context(), text(bobPhrase), true); err != nil {
		t.Fatal(err)
	}
	if _, err := held.Sign(t.Context(), signature.SecureChannel.Digest(nil)); !errors.Is(err, fault.HostIdentityUnavailable) {
		t.Errorf("the old master's agent still signs: %v", err)
	}
	if _, err := h.registry.Restore(t.Context(), text(alicePhrase), false); err != nil {
		t.Fatalf("the agents' own master: %v", err)
	}
	h.signs(a.Address)
	if d := h.registry.Health().Drift; d.Any() {
		t.Errorf("%+v", d)
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a, b := h.assigned("Ada"), h.create("Bea")
	token := h.key(a.Address)
	master, err := h.account.Unlock(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	minted, err := h.keys.Mint(t.Context(), master, accesskey.MintRequest{Expiration: accesskey.Never})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.registry.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.registry.Unlocked() || len(h.registry.Addresses()) != 0 || len(h.keys.List()) != 0 || !h.account.Address().IsZero() {
		t.Error("something of the identity is left")
	}
	for _, id := range []string{a.ID, b.ID} {
		if got, ok := h.registry.Get(id); !ok || !got.Address.IsZero() || got.Path != nil {
			t.Errorf("%+v", got)
		}
	}
	// The same person comes back: what was revoked stays revoked.
	if _, err := h.registry.Restore(t.Context(), text(alicePhrase), false); err != nil {
		t.Fatal(err)
	}
	if _, err := h.keys.Validate(string(minted.Token.Expose())); !errors.Is(err, fault.AccessRevoked) {
		t.Errorf("a master key from before: %v", err)
	}
	again, err := h.registry.Assign(t.Context(), a.ID)
	if err != nil || again.Address == a.Address || again.Path.Index <= a.Path.Index {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := h.keys.Validate(token); err == nil {
		t.Error("an agent key from before is valid")
	}
}

// A refused confirmation changes nothing at all.
func TestResetAsksFirst(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a := h.assigned("Ada")
	token := h.key(a.Address)
	account, err := identity.OpenAccount(identity.AccountConfig{Vault: h.vault, Dir: filepath.Join(h.home, "identity"), Presence: refuser{}})
	if err != nil {
		t.Fatal(err)
	}
	h.registry.c.Account = account
	if err := h.registry.Reset(t.Context()); !errors.Is(err, fault.KeystoreDenied) {
		t.Fatalf("got %v", err)
	}
	if _, err := h.keys.Validate(token); err != nil {
		t.Errorf("a key died: %v", err)
	}
	h.signs(a.Address)
}

type refuser struct{}

func (refuser) Confirm(context.Context, string) error { return errors.New("cancelled") }

func TestNothingSecretIsLoggedOrStored(t *testing.T) {
	t.Parallel()
	h, _, own, token := drifted(t)
	if _, err := h.registry.Rotate(t.Context(), own.ID); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	all.WriteString(strings.Join(h.events, "\n"))
	for _, dir := range []string{"agents", "identity"} {
		entries, err := os.ReadDir(filepath.Join(h.home, dir))
		if err != nil || len(entries) == 0 {
			t.Fatal(err)
		}
		for _, e := range entries {
			raw, err := os.ReadFile(filepath.Join(h.home, dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			all.Write(raw)
		}
	}
	for _, hidden := range []string{aliceHex, aliceHex[:16], "mango", "crumble", token, "osk-v1."} {
		if strings.Contains(strings.ToLower(all.String()), hidden) {
			t.Errorf("%.8s… shows", hidden)
		}
	}
}
