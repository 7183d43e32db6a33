package pairing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/internal/canonjson"
)

// The states of an invite. "expired" is computed, never stored.
const (
	InviteActive  = "active"
	InviteUsed    = "used"
	InviteRevoked = "revoked"
	InviteExpired = "expired"
)

// IssuedInvite is one invite in an agent's ledger. Its nonce identifies it and
// redeems nothing without the signature.
type IssuedInvite struct {
	Nonce        string    `json:"nonce"`
	Exp          int64     `json:"exp"`
	Status       string    `json:"status"`
	IssuedAt     time.Time `json:"issuedAt"`
	UsedAt       time.Time `json:"usedAt,omitzero"`
	RevokedAt    time.Time `json:"revokedAt,omitzero"`
	AccessKeyID  string    `json:"accessKeyId,omitzero"`
	RedeemedFrom string    `json:"redeemedFrom,omitzero"` // what the relay says; for display
}

// State is Status, or InviteExpired.
func (i IssuedInvite) State(now time.Time) string {
	if i.Status == InviteActive && now.Unix() >= i.Exp {
		return InviteExpired
	}
	return i.Status
}

// valid refuses what we would not have written: an unknown state must not read
// as one that may be redeemed.
func (i IssuedInvite) valid() bool {
	_, err := base64url.DecodeExact(i.Nonce, inviteBytes)
	return err == nil && (i.Status == InviteActive || i.Status == InviteUsed || i.Status == InviteRevoked)
}

// List returns the ledger of an agent, oldest first.
func (v *Invites) List(agentID string) ([]IssuedInvite, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.read(agentID)
}

// Revoke ends an invite, and the key it was redeemed for. The key goes first:
// a crash in between leaves an invite that says used and a key that is dead.
func (v *Invites) Revoke(ctx context.Context, agentID, nonce string) error {
	err := v.change(agentID, func(list []IssuedInvite) ([]IssuedInvite, error) {
		i := slices.IndexFunc(list, func(in IssuedInvite) bool { return in.Nonce == nonce })
		if i < 0 {
			return nil, fault.WithText(fault.Usage, "no invite of this agent has this nonce")
		}
		if err := v.revokeKey(ctx, list[i].AccessKeyID); err != nil {
			return nil, err
		}
		if list[i].Status != InviteRevoked {
			list[i].Status, list[i].RevokedAt = InviteRevoked, v.second()
		}
		return list, nil
	})
	if err == nil {
		v.c.Log("invite_revoked", slog.String("agentId", agentID))
	}
	return err
}

// revokeAll ends the invites of an agent that can still be redeemed. Keys are
// not its business.
func (v *Invites) revokeAll(agentID string) error {
	return v.change(agentID, func(list []IssuedInvite) ([]IssuedInvite, error) {
		open := false
		for i := range list {
			if list[i].State(v.c.Now()) == InviteActive {
				list[i].Status, list[i].RevokedAt, open = InviteRevoked, v.second(), true
			}
		}
		if !open {
			return nil, errUnchanged
		}
		return list, nil
	})
}

// second is now as the files keep it.
func (v *Invites) second() time.Time { return v.c.Now().UTC().Truncate(time.Second) }

// read returns a ledger without what expired keepExpired ago. One that does
// not parse, or holds what we never write, is an error: nothing is redeemed.
func (v *Invites) read(agentID string) ([]IssuedInvite, error) {
	var list []IssuedInvite
	err := v.c.Ledger(agentID).Read(func(raw []byte) error {
		if canonjson.Unmarshal(raw, &list) != nil || slices.ContainsFunc(list, func(i IssuedInvite) bool { return !i.valid() }) {
			return fault.New(fault.StateCorrupt, errors.New("a ledger of invites does not parse"))
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	old := v.c.Now().Add(-keepExpired).Unix()
	return slices.DeleteFunc(list, func(in IssuedInvite) bool { return in.Exp <= old }), nil
}

// errUnchanged ends a change that has nothing to write.
var errUnchanged = errors.New("pairing: nothing to write")

// change rewrites a ledger.
func (v *Invites) change(agentID string, edit func([]IssuedInvite) ([]IssuedInvite, error)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	list, err := v.read(agentID)
	if err != nil {
		return err
	}
	if list, err = edit(list); errors.Is(err, errUnchanged) {
		return nil
	} else if err != nil {
		return err
	}
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	return v.c.Ledger(agentID).Write(append(text, '\n'))
}

// add notes a new invite.
func (v *Invites) add(agentID string, in Invite) error {
	return v.change(agentID, func(list []IssuedInvite) ([]IssuedInvite, error) {
		open := 0
		for _, x := range list {
			if x.State(v.c.Now()) == InviteActive {
				open++
			}
		}
		switch {
		case open >= MaxInvites:
			return nil, fault.WithText(fault.Usage, fmt.Sprintf("an agent has at most %d open invites; revoke some first", MaxInvites))
		case len(list) >= maxLedger:
			return nil, fault.WithText(fault.Usage, fmt.Sprintf("the agent's ledger holds %d invites; old ones leave it 30 days after they expire", maxLedger))
		}
		return append(list, IssuedInvite{Nonce: in.Nonce, Exp: in.Exp, Status: InviteActive, IssuedAt: v.second()}), nil
	})
}

// consume marks the invite as used, durably, before anything is minted: a
// crash afterwards costs an invite, never a second key.
func (v *Invites) consume(o offer, from string) error {
	return v.change(o.agent.ID, func(list []IssuedInvite) ([]IssuedInvite, error) {
		i := slices.IndexFunc(list, func(in IssuedInvite) bool { return in.Nonce == o.Nonce && in.Exp == o.Exp })
		if i < 0 {
			return nil, fault.InviteUnknown
		}
		switch list[i].State(v.c.Now()) {
		case InviteUsed:
			return nil, fault.InviteRedeemed
		case InviteRevoked:
			return nil, fault.InviteRevoked
		case InviteExpired:
			return nil, fault.InviteExpired
		}
		list[i].Status, list[i].UsedAt, list[i].RedeemedFrom = InviteUsed, v.second(), PeerName(from[:min(len(from), maxFrom)])
		return list, nil
	})
}

// attach notes the key, so that revoking the invite revokes it too. An invite
// that was revoked meanwhile gets none.
func (v *Invites) attach(o offer, keyID string) error {
	return v.change(o.agent.ID, func(list []IssuedInvite) ([]IssuedInvite, error) {
		i := slices.IndexFunc(list, func(in IssuedInvite) bool { return in.Nonce == o.Nonce })
		if i < 0 || list[i].Status != InviteUsed {
			return nil, fault.InviteRevoked
		}
		list[i].AccessKeyID = keyID
		return list, nil
	})
}

// undo lets an invite whose key, if any, reached nobody be redeemed again. The
// key must be dead before: while it cannot be revoked the invite stays used.
// One that was revoked meanwhile stays so.
func (v *Invites) undo(ctx context.Context, o offer, keyID string) {
	err := v.revokeKey(ctx, keyID)
	if err == nil {
		err = v.change(o.agent.ID, func(list []IssuedInvite) ([]IssuedInvite, error) {
			for i := range list {
				if list[i].Nonce == o.Nonce && list[i].Status == InviteUsed {
					list[i].Status, list[i].UsedAt, list[i].RedeemedFrom, list[i].AccessKeyID = InviteActive, time.Time{}, "", ""
				}
			}
			return list, nil
		})
	}
	if err != nil {
		v.c.Log("invite_not_restored", slog.String("agentId", o.agent.ID), slog.String("keyId", keyID), slog.String("error", err.Error()))
	}
}

// revokeKey ends a key, if it is one that still lives. The request that failed
// must not stop it.
func (v *Invites) revokeKey(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	_, err := v.c.Keys.RevokeStale(context.WithoutCancel(ctx), []string{id})
	return err
}
