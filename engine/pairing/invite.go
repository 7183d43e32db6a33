package pairing

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/signature"
)

// Invite is what an owner hands to somebody who is not on the same network
// (PROTOCOL.md section 5). Only Addr, Nonce and Exp are signed: Name, Desc and
// URL are untrusted text to whoever receives it.
type Invite struct {
	V     int    `json:"v"`
	Addr  string `json:"addr"`
	Name  string `json:"name"`
	Desc  string `json:"desc,omitempty"`
	URL   string `json:"url"`
	Nonce string `json:"nonce"`
	Exp   int64  `json:"exp"` // Unix seconds
	Sig   string `json:"sig"` // 130 hex digits
}

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

// Limits of invites.
const (
	MinInvite     = time.Minute
	MaxInvite     = 30 * 24 * time.Hour
	DefaultInvite = 7 * 24 * time.Hour
	MaxInvites    = 256 // in the ledger of one agent

	inviteBytes   = 32
	inviteVersion = 1
	invitePrefix  = "osaurus-agent-invite-v1:"
	inviteLabel   = "Invite – "
	keepExpired   = 30 * 24 * time.Hour
	maxFrom       = 64 // bytes of RedeemedFrom
	shortNonce    = 8
)

// InvitedAgent is what an invite says of an agent.
type InvitedAgent struct {
	ID, Name, Description string
	Address               address.Address
	BuiltIn               bool
}

// InvitesConfig configures NewInvites. Everything but Now, Rand and Log is
// required.
type InvitesConfig struct {
	Agent   func(a address.Address) (InvitedAgent, bool)
	Signer  func(ctx context.Context, a address.Address) (identity.Signer, error)
	Keys    *accesskey.Keys
	Ledger  func(agentID string) atomicfile.Document
	Devices atomicfile.Document                     // identity/owner-devices.json
	Master  func() (address.Address, bool)          // false while it is not available
	URL     func(a address.Address) (string, error) // where the relay has the agent
	Now     func() time.Time
	Rand    io.Reader
	Log     func(event string, attrs ...slog.Attr)
}

// Invites issues and redeems invites, and lets the owner's other devices in.
// It is safe for concurrent use.
type Invites struct {
	c     InvitesConfig
	mu    sync.Mutex // one change of a ledger at a time
	owner ownerChallenges
}

// NewInvites returns invites over the ledgers of c.
func NewInvites(c InvitesConfig) *Invites {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = func(string, ...slog.Attr) {}
	}
	return &Invites{c: c, owner: ownerChallenges{pending: map[ownerDevice]ownerChallenge{}}}
}

func inviteText(addr, nonce string, exp int64) []byte {
	return fmt.Appendf(nil, "%s%s:%s:%d", invitePrefix, addr, nonce, exp)
}

// Issue makes an invite for an agent and puts it into the ledger before it is
// returned.
func (v *Invites) Issue(ctx context.Context, agent InvitedAgent, lifetime time.Duration) (Invite, error) {
	if lifetime < MinInvite || lifetime > MaxInvite {
		return Invite{}, fault.WithText(fault.Usage, fmt.Sprintf("an invite lasts between %s and %s", MinInvite, MaxInvite))
	}
	var raw [inviteBytes]byte
	if _, err := io.ReadFull(v.c.Rand, raw[:]); err != nil {
		return Invite{}, err
	}
	now := v.c.Now()
	in, err := v.sign(ctx, agent, base64url.Encode(raw[:]), now.Add(lifetime).Unix())
	if err != nil {
		return Invite{}, err
	}
	err = v.change(agent.ID, func(list []IssuedInvite) ([]IssuedInvite, error) {
		if len(list) >= MaxInvites {
			return nil, fault.WithText(fault.Usage, fmt.Sprintf("an agent has at most %d invites; revoke some first", MaxInvites))
		}
		return append(list, IssuedInvite{Nonce: in.Nonce, Exp: in.Exp, Status: InviteActive, IssuedAt: now.UTC().Truncate(time.Second)}), nil
	})
	if err == nil {
		v.c.Log("invite_issued", slog.String("agentId", agent.ID), slog.Int64("expires", in.Exp))
	}
	return in, err
}

// Again returns an invite that can still be redeemed: the signature over the
// same text is the same.
func (v *Invites) Again(ctx context.Context, agent InvitedAgent, nonce string) (Invite, error) {
	list, err := v.List(agent.ID)
	if err != nil {
		return Invite{}, err
	}
	i := slices.IndexFunc(list, func(in IssuedInvite) bool { return in.Nonce == nonce })
	if i < 0 || list[i].State(v.c.Now()) != InviteActive {
		return Invite{}, fault.WithText(fault.Usage, "no invite of this agent with this nonce can be redeemed")
	}
	return v.sign(ctx, agent, nonce, list[i].Exp)
}

func (v *Invites) sign(ctx context.Context, agent InvitedAgent, nonce string, exp int64) (Invite, error) {
	url, err := v.c.URL(agent.Address)
	if err != nil {
		return Invite{}, err
	}
	signer, err := v.c.Signer(ctx, agent.Address)
	if err != nil {
		return Invite{}, err
	}
	in := Invite{V: inviteVersion, Addr: agent.Address.String(), Name: PeerName(agent.Name), Desc: PeerName(agent.Description), URL: strings.TrimSuffix(url, "/"), Nonce: nonce, Exp: exp}
	sig, err := signer.Sign(ctx, signature.SignedInvite.Digest(inviteText(in.Addr, in.Nonce, in.Exp)))
	in.Sig = sig.Hex()
	return in, err
}

// List returns the ledger of an agent, oldest first.
func (v *Invites) List(agentID string) ([]IssuedInvite, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.read(agentID)
}

// Revoke ends an invite, and the key it was redeemed for.
func (v *Invites) Revoke(ctx context.Context, agentID, nonce string) error {
	key := ""
	err := v.change(agentID, func(list []IssuedInvite) ([]IssuedInvite, error) {
		i := slices.IndexFunc(list, func(in IssuedInvite) bool { return in.Nonce == nonce })
		if i < 0 {
			return nil, fault.WithText(fault.Usage, "no invite of this agent has this nonce")
		}
		key = list[i].AccessKeyID
		if list[i].Status != InviteRevoked {
			list[i].Status, list[i].RevokedAt = InviteRevoked, v.c.Now().UTC().Truncate(time.Second)
		}
		return list, nil
	})
	if err != nil {
		return err
	}
	v.c.Log("invite_revoked", slog.String("agentId", agentID))
	if key == "" {
		return nil
	}
	return v.c.Keys.Revoke(ctx, key)
}

func (v *Invites) read(agentID string) ([]IssuedInvite, error) {
	var list []IssuedInvite
	err := v.c.Ledger(agentID).Read(func(raw []byte) error {
		if canonjson.Unmarshal(raw, &list) != nil {
			return fault.New(fault.StateCorrupt, errors.New("a ledger of invites does not parse"))
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return list, err
}

// change rewrites a ledger, without what expired long ago.
func (v *Invites) change(agentID string, edit func([]IssuedInvite) ([]IssuedInvite, error)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	list, err := v.read(agentID)
	if err != nil {
		return err
	}
	old := v.c.Now().Add(-keepExpired).Unix()
	list = slices.DeleteFunc(list, func(in IssuedInvite) bool { return in.Exp < old })
	if list, err = edit(list); err != nil {
		return err
	}
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	return v.c.Ledger(agentID).Write(append(text, '\n'))
}

// offer is the body of an invite's redemption.
type offer struct {
	Invite
	EncPub *string `json:"encPub"`

	pub   encPub
	agent InvitedAgent
}

// InviteReply is the body of a granted redemption.
type InviteReply struct {
	AgentAddress     address.Address `json:"agentAddress"`
	AgentName        string          `json:"agentName"`
	AgentDescription string          `json:"agentDescription,omitempty"`
	RelayBaseURL     string          `json:"relayBaseURL"`
	APIKey           string          `json:"apiKey"` // always empty: the key travels sealed
	SealedAPIKey     Sealed          `json:"sealedApiKey"`
	SecureChannel    bool            `json:"secureChannel"`
}

// Redeem answers POST /pair-invite: the modes of PROTOCOL.md sections 5 and 6.
// from is what the relay says of the caller.
func (v *Invites) Redeem(ctx context.Context, body []byte, from string) (Granted, error) {
	var mode struct {
		Owner json.RawMessage `json:"owner_redeem"`
		Team  json.RawMessage `json:"team_redeem"`
	}
	if canonjson.Unmarshal(body, &mode) != nil || mode.Team != nil {
		return Granted{}, fault.InvitePayload
	}
	if mode.Owner != nil {
		return v.redeemOwner(ctx, mode.Owner)
	}
	o, err := v.parse(body)
	if err != nil {
		return Granted{}, err
	}
	if err := v.consume(o, from); err != nil {
		return Granted{}, err
	}
	granted, err := v.grant(ctx, o)
	if err != nil {
		return Granted{}, errors.Join(err, v.restore(o))
	}
	return granted, nil
}

// parse is everything before the ledger is asked, in the order of the
// specification.
func (v *Invites) parse(body []byte) (offer, error) {
	var o offer
	var form map[string]json.RawMessage
	if canonjson.Unmarshal(body, &o) != nil || canonjson.Unmarshal(body, &form) != nil {
		return o, fault.InvitePayload
	}
	for _, name := range []string{"v", "addr", "name", "url", "nonce", "exp", "sig"} {
		if raw, there := form[name]; !there || string(raw) == "null" {
			return o, fault.InvitePayload
		}
	}
	addr, err := address.Parse(o.Addr)
	if err != nil || addr.IsZero() {
		return o, fault.InvitePayload
	}
	if _, err := base64url.DecodeExact(o.Nonce, inviteBytes); err != nil {
		return o, fault.InvitePayload
	}
	if o.V != inviteVersion {
		return o, fault.InviteVersion
	}
	if o.EncPub == nil {
		return o, fault.PairingEncryptionKey
	}
	if o.pub, err = parseEncPub(*o.EncPub); err != nil {
		return o, fault.PairingEncryptionKey
	}
	if err := o.verify(addr); err != nil {
		return o, fault.PairingSignature
	}
	if v.c.Now().Unix() >= o.Exp {
		return o, fault.InviteExpired
	}
	var hosted bool
	if o.agent, hosted = v.c.Agent(addr); !hosted || o.agent.BuiltIn {
		return o, fault.InviteAddress
	}
	return o, nil
}

// verify compares the signature with the address it is about.
func (i Invite) verify(addr address.Address) error {
	sig, err := signature.Parse(i.Sig)
	if err != nil {
		return err
	}
	return signature.Verify(signature.SignedInvite.Digest(inviteText(i.Addr, i.Nonce, i.Exp)), sig, addr)
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
		list[i].Status, list[i].UsedAt, list[i].RedeemedFrom = InviteUsed, v.c.Now().UTC().Truncate(time.Second), PeerName(from[:min(len(from), maxFrom)])
		return list, nil
	})
}

// restore lets an invite that nobody got a key for be redeemed again, unless
// it was revoked meanwhile.
func (v *Invites) restore(o offer) error {
	return v.change(o.agent.ID, func(list []IssuedInvite) ([]IssuedInvite, error) {
		for i := range list {
			if list[i].Nonce == o.Nonce && list[i].Status == InviteUsed {
				list[i].Status, list[i].UsedAt, list[i].RedeemedFrom, list[i].AccessKeyID = InviteActive, time.Time{}, "", ""
			}
		}
		return list, nil
	})
}

// grant mints, seals and notes the key. What fails after minting revokes it.
func (v *Invites) grant(ctx context.Context, o offer) (Granted, error) {
	signer, err := v.c.Signer(ctx, o.agent.Address)
	if err != nil {
		return Granted{}, fault.New(fault.PairingMint, err)
	}
	label := inviteLabel + o.agent.Name + " (" + o.Nonce[:shortNonce] + ")"
	minted, err := v.c.Keys.Mint(ctx, signer, accesskey.MintRequest{Label: label, Expiration: accesskey.Year})
	if err != nil {
		return Granted{}, fault.New(fault.PairingMint, err)
	}
	defer minted.Token.Destroy()
	body, err := v.reply(o.agent, o.URL, o.agent.Description, o.pub, o.Nonce, minted)
	if err == nil {
		err = v.attach(o, minted.ID)
	}
	if err == nil {
		err = ctx.Err() // nobody is there to receive it
	}
	if err != nil {
		v.revoke(ctx, minted.ID)
		if errors.Is(err, fault.InviteRevoked) {
			return Granted{}, err
		}
		return Granted{}, fault.New(fault.PairingFailed, err)
	}
	v.c.Log("invite_redeemed", slog.String("agentId", o.agent.ID), slog.String("keyId", minted.ID))
	return Granted{Body: body, Delivered: func(err error) {
		if err != nil {
			v.revoke(ctx, minted.ID)
			if err := v.restore(o); err != nil {
				v.c.Log("invite_restore_failed", slog.String("agentId", o.agent.ID))
			}
		}
	}}, nil
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

func (v *Invites) reply(agent InvitedAgent, url, description string, pub encPub, nonce string, minted accesskey.Minted) ([]byte, error) {
	sealed, err := seal(v.c.Rand, pub, sealInfo(agent.Address, nonce), minted.Token)
	if err != nil {
		return nil, err
	}
	return canonjson.Marshal(InviteReply{AgentAddress: agent.Address, AgentName: agent.Name, AgentDescription: description, RelayBaseURL: url, SealedAPIKey: sealed, SecureChannel: true})
}

// revoke must not be stopped by the request that failed.
func (v *Invites) revoke(ctx context.Context, id string) {
	if err := v.c.Keys.Revoke(context.WithoutCancel(ctx), id); err != nil {
		v.c.Log("pairing_revoke_failed", slog.String("keyId", id))
	}
}
