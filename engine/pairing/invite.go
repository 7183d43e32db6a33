package pairing

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

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

// Limits of invites.
const (
	MinInvite     = time.Minute
	MaxInvite     = 30 * 24 * time.Hour
	DefaultInvite = 7 * 24 * time.Hour
	MaxInvites    = 256 // that one agent has open

	maxLedger = 4096 // invites on record for one agent

	inviteBytes   = 32
	inviteVersion = 1
	invitePrefix  = "osaurus-agent-invite-v1:"
	inviteLabel   = "Invite – "
	keepExpired   = 30 * 24 * time.Hour
	maxFrom       = 64 // bytes of RedeemedFrom
	shortNonce    = 8
	mintText      = "Failed to mint access key" // unlike that of /pair
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
	URL     func(a address.Address) (string, error) // where the relay has the agent; an error while it has not
	Place   func(a address.Address) string          // where it would have it
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
	if agent.BuiltIn || agent.Address.IsZero() {
		return Invite{}, fault.WithText(fault.Usage, "an agent without an address cannot be reached, so nobody is invited to it")
	}
	var raw [inviteBytes]byte
	if _, err := io.ReadFull(v.c.Rand, raw[:]); err != nil {
		return Invite{}, err
	}
	in, err := v.sign(ctx, agent, base64url.Encode(raw[:]), v.c.Now().Add(lifetime).Unix())
	if err != nil {
		return Invite{}, err
	}
	if err := v.add(agent.ID, in); err != nil {
		return Invite{}, err
	}
	v.c.Log("invite_issued", slog.String("agentId", agent.ID), slog.Int64("expires", in.Exp))
	return in, nil
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
	if err != nil {
		return Invite{}, err
	}
	in.Sig = sig.Hex()
	return in, nil
}

// offer is a redemption whose form is right.
type offer struct {
	Invite
	pub   encPub
	agent InvitedAgent
}

// InviteReply is the body of a granted redemption.
type InviteReply struct {
	AgentAddress     address.Address `json:"agentAddress"`
	AgentName        string          `json:"agentName"`
	AgentDescription string          `json:"agentDescription,omitempty"`
	PQ               int             `json:"pq,omitempty"` // 1: the channel's post-quantum exchange
	RelayBaseURL     string          `json:"relayBaseURL"`
	APIKey           string          `json:"apiKey"` // always empty: the key travels sealed
	SealedAPIKey     Sealed          `json:"sealedApiKey"`
	SecureChannel    bool            `json:"secureChannel"`
}

// Redeem answers POST /pair-invite: the modes of PROTOCOL.md sections 5 and 6.
// from is what the relay says of the caller.
func (v *Invites) Redeem(ctx context.Context, body []byte, from string) (Granted, error) {
	var form members
	if canonjson.Unmarshal(body, &form) != nil || form == nil || form["team_redeem"] != nil {
		return Granted{}, fault.InvitePayload
	}
	if owner, ok := form["owner_redeem"]; ok {
		return v.redeemOwner(ctx, owner)
	}
	o, err := v.parse(form)
	if err != nil {
		return Granted{}, err
	}
	// A host that cannot sign spends nothing (decisions C1).
	signer, err := v.c.Signer(ctx, o.agent.Address)
	if err != nil {
		return Granted{}, signerFault(err)
	}
	if err := v.consume(o, from); err != nil {
		return Granted{}, err
	}
	return v.grant(ctx, signer, o)
}

func signerFault(err error) error {
	if errors.Is(err, fault.UnknownAgentAddress) {
		return fault.InviteAddress
	}
	return fault.New(fault.HostIdentityUnavailable, err)
}

// members are those of a JSON object, by their exact names.
type members map[string]json.RawMessage

// read takes members into what fields point to. It reports whether each of
// them is there and of its type.
func (m members) read(fields map[string]any) bool {
	for name, to := range fields {
		raw, there := m[name]
		if !there || string(raw) == "null" || json.Unmarshal(raw, to) != nil {
			return false
		}
	}
	return true
}

// optional is read for members that may be absent or null.
func (m members) optional(fields map[string]any) bool {
	for name, to := range fields {
		if raw, there := m[name]; there && json.Unmarshal(raw, to) != nil {
			return false
		}
	}
	return true
}

// parse is everything before the ledger is asked, in the order of PROTOCOL.md
// section 5.
func (v *Invites) parse(form members) (offer, error) {
	var o offer
	var public *string
	if !form.read(map[string]any{"v": &o.V, "addr": &o.Addr, "name": &o.Name, "url": &o.URL, "nonce": &o.Nonce, "exp": &o.Exp, "sig": &o.Sig}) ||
		!form.optional(map[string]any{"desc": &o.Desc, "encPub": &public}) {
		return o, fault.InvitePayload
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
	if public == nil {
		return o, fault.PairingEncryptionKey
	}
	if o.pub, err = parseEncPub(*public); err != nil {
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

// grant mints, seals and notes the key. Whatever fails revokes it and gives
// the invite back.
func (v *Invites) grant(ctx context.Context, signer identity.Signer, o offer) (Granted, error) {
	minted, err := v.mint(ctx, signer, accesskey.Year, inviteLabel, o.agent.Name, " ("+o.Nonce[:shortNonce]+")")
	if err != nil {
		v.undo(ctx, o, "")
		return Granted{}, err
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
		v.undo(ctx, o, minted.ID)
		if errors.Is(err, fault.InviteRevoked) {
			return Granted{}, err
		}
		return Granted{}, fault.New(fault.PairingFailed, err)
	}
	v.c.Log("invite_redeemed", slog.String("agentId", o.agent.ID), slog.String("keyId", minted.ID))
	return Granted{Body: body, Delivered: func(err error) {
		if err != nil {
			v.undo(ctx, o, minted.ID)
		}
	}}, nil
}

// mint makes a key labelled before+name+after. The name is cut to fit.
func (v *Invites) mint(ctx context.Context, signer identity.Signer, e accesskey.Expiration, before, name, after string) (accesskey.Minted, error) {
	runes, room := []rune(PeerName(name)), accesskey.MaxLabel-utf8.RuneCountInString(before+after)
	minted, err := v.c.Keys.Mint(ctx, signer, accesskey.MintRequest{Label: before + string(runes[:min(len(runes), room)]) + after, Expiration: e})
	switch {
	case errors.Is(err, fault.HostIdentityUnavailable):
		return minted, fault.New(fault.HostIdentityUnavailable, err)
	case err != nil:
		return minted, &fault.Error{Code: fault.PairingMint, Text: mintText, Cause: err}
	}
	return minted, nil
}

func (v *Invites) reply(agent InvitedAgent, url, description string, pub encPub, nonce string, minted accesskey.Minted) ([]byte, error) {
	sealed, err := seal(v.c.Rand, pub, sealInfo(agent.Address, nonce), minted.Token)
	if err != nil {
		return nil, err
	}
	return canonjson.Marshal(InviteReply{AgentAddress: agent.Address, AgentName: agent.Name, AgentDescription: description, PQ: hasPQ, RelayBaseURL: url, SealedAPIKey: sealed, SecureChannel: true})
}
