package agents

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/signature"
)

func TestAssignGivesOneAddress(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a := h.assigned("Ada")
	if a.Path == nil || *a.Path != (identity.Path{Index: 0, Scope: h.account.Device().ID}) {
		t.Fatalf("path %v", a.Path)
	}
	m := h.masterKey(aliceHex)
	key, err := m.Agent(*a.Path)
	if err != nil || key.Address() != a.Address {
		t.Errorf("address %s, %v", a.Address, err)
	}
	h.signs(a.Address)
	again, err := h.registry.Assign(t.Context(), a.ID)
	if err != nil || again.Address != a.Address || *again.Path != *a.Path {
		t.Errorf("assigned twice: %+v, %v", again, err)
	}
	if b := h.assigned("Bea"); b.Path.Index != 1 {
		t.Errorf("the next index is %d", b.Path.Index)
	}
	h.open()
	if got, ok := h.registry.ByAddress(a.Address); !ok || got.ID != a.ID {
		t.Error("the address did not survive")
	}
}

func TestAssignWithoutAnIdentity(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	a := h.create("Ada")
	if _, err := h.registry.Assign(t.Context(), a.ID); !errors.Is(err, fault.NoMaster) {
		t.Errorf("got %v", err)
	}
}

// A locked registry assigns, with the owner's consent, and stays locked.
func TestAssignWhileLocked(t *testing.T) {
	t.Parallel()
	h := restored(t)
	h.registry.Lock()
	a := h.assigned("Ada")
	if _, err := h.registry.Signer(t.Context(), a.Address); !errors.Is(err, fault.HostIdentityUnavailable) {
		t.Errorf("got %v", err)
	}
	if err := h.registry.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.signs(a.Address)
}

func TestIndexesThatDeriveNoKeyAreSkipped(t *testing.T) {
	t.Parallel()
	h := restored(t)
	h.registry.derive = func(m identity.MasterKey, p identity.Path) (identity.AgentKey, error) {
		if p.Index < 3 {
			return identity.AgentKey{}, identity.ErrSkipIndex
		}
		return m.Agent(p)
	}
	if a := h.assigned("Ada"); a.Path.Index != 3 {
		t.Errorf("index %d", a.Path.Index)
	}
	broken := errors.New("derivation failed")
	h.registry.derive = func(identity.MasterKey, identity.Path) (identity.AgentKey, error) { return identity.AgentKey{}, broken }
	if _, err := h.registry.Assign(t.Context(), h.create("Bea").ID); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// Even with the device's counter set back, a path that a record shows or
// showed is not used again.
func TestPathsInRecordsAreNeverReused(t *testing.T) {
	t.Parallel()
	h := restored(t)
	scope := h.account.Device().ID
	h.writeFile(id1+".json", recordOf(`,"path":{"index":4,"scope":"`+scope+`"},"retired":[{"address":"`+address1+`","path":{"index":9,"scope":"`+scope+`"},"at":1},{"address":"`+address1+`","path":{"index":90,"scope":"ffffffff"},"at":1}]`))
	h.open()
	if a := h.assigned("Bea"); a.Path.Index != 10 {
		t.Errorf("index %d, want 10", a.Path.Index)
	}
}

func TestNoIndexIsLeft(t *testing.T) {
	t.Parallel()
	h := restored(t)
	if _, err := h.account.AllocateIndex(math.MaxUint32); err != nil {
		t.Fatal(err)
	}
	if _, err := h.registry.Assign(t.Context(), h.create("Ada").ID); !errors.Is(err, identity.ErrIndexesUsedUp) {
		t.Errorf("got %v", err)
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a, b := h.assigned("Ada"), h.assigned("Bea")
	token, other := h.key(a.Address), h.key(b.Address)
	before, err := h.registry.Signer(t.Context(), a.Address)
	if err != nil {
		t.Fatal(err)
	}
	moved, err := h.registry.Rotate(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if moved.Address == a.Address || moved.Path.Index <= b.Path.Index || len(moved.Retired) != 1 || moved.Retired[0].Address != a.Address || *moved.Retired[0].Path != *a.Path {
		t.Errorf("%+v", moved)
	}
	if _, err := h.keys.Validate(token); err == nil {
		t.Error("a key for the old address is valid")
	}
	if _, err := h.keys.Validate(other); err != nil {
		t.Errorf("another agent's key: %v", err)
	}
	for _, m := range h.keys.List() {
		if m.Revoked != (m.Audience == a.Address) {
			t.Errorf("revoked=%v for %s", m.Revoked, m.Audience)
		}
	}
	if !slices.Equal(h.retired, []address.Address{a.Address}) {
		t.Errorf("retired %v", h.retired)
	}
	if _, err := h.registry.Signer(t.Context(), a.Address); !errors.Is(err, fault.UnknownAgentAddress) {
		t.Errorf("the old address: %v", err)
	}
	if _, err := before.Sign(t.Context(), signature.SecureChannel.Digest(nil)); !errors.Is(err, fault.HostIdentityUnavailable) {
		t.Errorf("a signer held over the rotation: %v", err)
	}
	h.signs(moved.Address)
	if _, err := h.keys.Validate(h.key(moved.Address)); err != nil {
		t.Errorf("a key for the new address rules the next request: %v", err)
	}
	if got := strings.Join(h.events, "\n"); !strings.Contains(got, "agent_rotated") || !strings.Contains(got, moved.Address.String()) {
		t.Errorf("events:\n%s", got)
	}
}

func TestRotateNeedsAnAddress(t *testing.T) {
	t.Parallel()
	h := restored(t)
	if _, err := h.registry.Rotate(t.Context(), h.create("Ada").ID); !errors.Is(err, fault.Usage) {
		t.Errorf("got %v", err)
	}
}

// While an address ends nobody can mint for it; when the change fails it goes
// on as before, only without its keys.
func TestAFailedRotationKeepsTheAddress(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a := h.assigned("Ada")
	token := h.key(a.Address)
	full := errors.New("no space left on device")
	h.registry.c.Retired = func(ctx context.Context, old address.Address) error {
		s, err := h.registry.Signer(ctx, old)
		if err != nil {
			return err
		}
		if _, err := h.keys.Mint(ctx, s, accesskey.MintRequest{Expiration: accesskey.Days30}); !errors.Is(err, fault.HostIdentityUnavailable) {
			t.Errorf("minting while the address ends: %v", err)
		}
		return full
	}
	if _, err := h.registry.Rotate(t.Context(), a.ID); !errors.Is(err, full) {
		t.Fatalf("got %v", err)
	}
	if now, _ := h.registry.Get(a.ID); now.Address != a.Address || len(now.Retired) != 0 {
		t.Errorf("%+v", now)
	}
	h.signs(a.Address)
	if _, err := h.keys.Validate(token); !errors.Is(err, fault.AccessRevoked) {
		t.Errorf("the old key: %v", err)
	}
}

func TestRevokeKeepsTheAgent(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a := h.assigned("Ada")
	token := h.key(a.Address)
	gone, err := h.registry.Revoke(t.Context(), a.ID)
	if err != nil || !gone.Address.IsZero() || gone.Path != nil || gone.Name != "Ada" || len(gone.Retired) != 1 {
		t.Fatalf("%+v, %v", gone, err)
	}
	if _, err := h.keys.Validate(token); err == nil {
		t.Error("the key is valid")
	}
	if !strings.Contains(strings.Join(h.events, "\n"), "agent_revoked[agentId="+a.ID+" address="+a.Address.String()+"]") {
		t.Errorf("events %v", h.events)
	}
	again, err := h.registry.Assign(t.Context(), a.ID)
	if err != nil || again.Address == a.Address || again.Path.Index <= a.Path.Index {
		t.Errorf("assigned again: %+v, %v", again, err)
	}
}

func TestDeleteRevokesFirst(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a := h.assigned("Ada")
	token := h.key(a.Address)
	if err := h.registry.Delete(t.Context(), strings.ToLower(a.ID)); err != nil {
		t.Fatal(err)
	}
	if _, ok := h.registry.Get(a.ID); ok {
		t.Error("the agent is still there")
	}
	if _, err := h.keys.Validate(token); err == nil {
		t.Error("the key is valid")
	}
	if list := h.keys.List(); len(list) != 1 || !list[0].Revoked {
		t.Errorf("%+v", list)
	}
	h.open()
	if _, ok := h.registry.Get(a.ID); ok {
		t.Error("the agent came back")
	}
	if b := h.assigned("Bea"); b.Path.Index <= a.Path.Index {
		t.Errorf("index %d was used before", b.Path.Index)
	}
}

// Changes, readers, signers and Lock beside each other.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	h := restored(t)
	a, b := h.assigned("Ada"), h.assigned("Bea")
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			d := signature.SecureChannel.Digest([]byte("x"))
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, addr := range append(h.registry.Addresses(), a.Address) {
					s, err := h.registry.Signer(context.Background(), addr)
					if err != nil {
						continue
					}
					sig, err := s.Sign(context.Background(), d)
					if err == nil && signature.Verify(d, sig, addr) != nil {
						t.Error("a signature by the wrong key")
					}
					if err != nil && !errors.Is(err, fault.HostIdentityUnavailable) {
						t.Error(err)
					}
				}
				_ = fmt.Sprint(h.registry.List(), h.registry.Health())
			}
		})
	}
	for _, work := range []func(){
		func() { _, _ = h.registry.Rotate(context.Background(), a.ID) },
		func() { _, _ = h.registry.Update(context.Background(), b.ID, func(d *Draft) { d.Model += "x" }) },
		func() { h.registry.Lock(); _ = h.registry.Unlock(context.Background()) },
	} {
		writers.Go(func() {
			for range 6 {
				work()
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if now, _ := h.registry.Get(a.ID); len(now.Retired) != 6 {
		t.Errorf("%d rotations", len(now.Retired))
	}
	if now, _ := h.registry.Get(b.ID); now.Model != "xxxxxx" {
		t.Errorf("model %q: an update was lost", now.Model)
	}
	for addr, n := range h.addresses() {
		if n != 1 {
			t.Errorf("%s was given out %d times", addr, n)
		}
	}
}
