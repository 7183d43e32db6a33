package control

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/agents"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/pairing"
)

// ledger gives an agent two open invites and a used one, as if they had been
// made while it was connected.
func (s served) ledger(t *testing.T, a agents.Agent, keyID string) (ids []string) {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	list := []pairing.IssuedInvite{
		{Nonce: nonce("aaaaaab"), Exp: now.Add(time.Hour).Unix(), Status: pairing.InviteActive, IssuedAt: now},
		{Nonce: nonce("aaaaaac"), Exp: now.Unix() - 1, Status: pairing.InviteActive, IssuedAt: now},
		{Nonce: nonce("bbbbbbb"), Exp: now.Add(time.Hour).Unix(), Status: pairing.InviteUsed, IssuedAt: now, UsedAt: now, RedeemedFrom: "203.0.113.1", AccessKeyID: keyID},
	}
	s.document(t, "agent-invites/"+a.ID+".json", list)
	return []string{"616161616161", "616161616161", "626262626262"}
}

func nonce(begin string) string {
	return base64url.Encode([]byte(begin + strings.Repeat("x", 32-len(begin))))
}

func (s served) document(t *testing.T, name string, v any) {
	t.Helper()
	raw, err := json.Marshal(v)
	if err == nil {
		err = s.engine.Storage.Document(name).Write(raw)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// agentWithKey makes an identity and returns its first agent with a key.
func (s served) agentWithKey(t *testing.T) (agents.Agent, NewKey) {
	t.Helper()
	if _, err := s.engine.CreateIdentity(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := NewServer(s.engine, func() {}).find("Assistant")
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.MintKey(t.Context(), MintKey{Agent: a.ID, Expiration: accesskey.Year})
	if err != nil {
		t.Fatal(err)
	}
	return a, k
}

func TestInviteOps(t *testing.T) {
	t.Parallel()
	s := serve(t)
	a, key := s.agentWithKey(t)
	if list, err := s.Invites(t.Context(), ""); err != nil || list == nil || len(list) != 0 {
		t.Error("none yet:", list, err)
	}
	_, err := s.CreateInvite(t.Context(), NewInvite{Agent: a.Name})
	refused(t, "without the relay", err, exitFailed)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != "not_on_relay" || !strings.Contains(e.Message, a.Name) {
		t.Errorf("%#v", err)
	}
	_, err = s.CreateInvite(t.Context(), NewInvite{Agent: "nobody"})
	refused(t, "no such agent", err, exitUsage)
	_, err = s.CreateInvite(t.Context(), NewInvite{Agent: a.Name, Lifetime: 31 * 24 * time.Hour})
	refused(t, "too long", err, exitUsage)

	ids := s.ledger(t, a, key.ID)
	list, err := s.Invites(t.Context(), a.ID)
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	for i, state := range []string{pairing.InviteActive, pairing.InviteExpired, pairing.InviteUsed} {
		if list[i].ID != ids[i] || list[i].State != state || list[i].Agent != a.Name || list[i].Link != "" {
			t.Errorf("%+v, want %s %s", list[i], ids[i], state)
		}
	}
	_, err = s.ShowInvite(t.Context(), "61")
	refused(t, "two begin like this", err, exitUsage)
	_, err = s.ShowInvite(t.Context(), "")
	refused(t, "no id", err, exitUsage)
	_, err = s.ShowInvite(t.Context(), nonce("aaaaaab"))
	refused(t, "open, but not connected", err, exitFailed)
	if in, err := s.ShowInvite(t.Context(), "6262"); err != nil || in.Link != "" || in.From != "203.0.113.1" || in.KeyID != key.ID {
		t.Errorf("%+v, %v", in, err)
	}
	if err := s.RevokeInvite(t.Context(), "62"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.engine.Keys.Validate(key.Token); err == nil {
		t.Error("the key outlives its invite")
	}
	refused(t, "no such invite", s.RevokeInvite(t.Context(), "ff"), exitUsage)
}

func TestDeviceOps(t *testing.T) {
	t.Parallel()
	s := serve(t)
	a, key := s.agentWithKey(t)
	if list, err := s.Devices(t.Context()); err != nil || list == nil || len(list) != 0 {
		t.Error("none yet:", list, err)
	}
	s.document(t, "identity/owner-devices.json", map[string]any{"version": 1, "devices": []pairing.OwnerDevice{{AgentAddress: a.Address, DeviceID: "mac-1", AccessKeyID: key.ID}}})
	if list, err := s.Devices(t.Context()); err != nil || len(list) != 1 || list[0].DeviceID != "mac-1" {
		t.Error(list, err)
	}
	_, err := s.ForgetDevice(t.Context(), ForgetDevice{Device: "mac-2"})
	refused(t, "no such device", err, exitUsage)
	_, err = s.ForgetDevice(t.Context(), ForgetDevice{Device: "mac-1", Agent: "nobody"})
	refused(t, "no such agent", err, exitUsage)
	if n, err := s.ForgetDevice(t.Context(), ForgetDevice{Device: "mac-1", Agent: a.Name}); err != nil || n.Keys != 1 {
		t.Error(n, err)
	}
	if _, err := s.engine.Keys.Validate(key.Token); err == nil {
		t.Error("the key of a forgotten device works")
	}
}

// TestRotationEndsInvites: what was given out for an address goes with it
// (identity.md).
func TestRotationEndsInvites(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"rotate", "revoke", "delete"} {
		s := serve(t)
		a, key := s.agentWithKey(t)
		s.ledger(t, a, key.ID)
		s.document(t, "identity/owner-devices.json", map[string]any{"version": 1, "devices": []pairing.OwnerDevice{{AgentAddress: a.Address, DeviceID: "mac-1", AccessKeyID: key.ID}}})
		if _, err := s.AgentAction(t.Context(), verb, a.ID); err != nil {
			t.Fatal(err)
		}
		ledger, err := s.engine.Invites.List(a.ID)
		if err != nil || ledger[0].Status != pairing.InviteRevoked || ledger[2].Status != pairing.InviteUsed {
			t.Errorf("%s: %+v, %v", verb, ledger, err)
		}
		if devices, err := s.Devices(t.Context()); err != nil || len(devices) != 0 {
			t.Errorf("%s: %v, %v", verb, devices, err)
		}
		if _, err := s.engine.Keys.Validate(key.Token); err == nil {
			t.Errorf("%s: the key works", verb)
		}
	}
	// Storage that cannot be read does not keep an owner from taking an address
	// away.
	s := serve(t)
	a, _ := s.agentWithKey(t)
	if err := s.engine.Storage.Document("agent-invites/" + a.ID + ".json").Write([]byte("{")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.AgentAction(t.Context(), "revoke", a.ID); err != nil || !got.Address.IsZero() {
		t.Error(got, err)
	}
}
