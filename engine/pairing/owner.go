package pairing

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"regexp"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/signature"
)

// What the protocol fixes for an owner's other devices, PROTOCOL.md section 6.
const (
	MaxOwnerChallenges = 256
	MaxDeviceID        = 64
	MaxDeviceName      = 80 // characters

	ownerVersion = 1
	ownerPrefix  = "osaurus-owner:redeem:"
	ownerLabel   = "Owner device – "
)

var deviceID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,` + strconv.Itoa(MaxDeviceID) + `}$`)

// OwnerDevice is a device of the owner that got a key for an agent.
type OwnerDevice struct {
	AgentAddress address.Address `json:"agent_address"`
	DeviceID     string          `json:"device_id"`
	DeviceName   string          `json:"device_name,omitempty"`
	AccessKeyID  string          `json:"access_key_id"`
	Redeemed     time.Time       `json:"redeemed_at"`
}

type ownerFile struct {
	Version int           `json:"version"`
	Devices []OwnerDevice `json:"devices"`
}

// ownerDevice is what a challenge is for.
type ownerDevice struct {
	agent  address.Address
	device string
}

type ownerChallenge struct {
	nonce   string
	expires time.Time
	order   uint64 // of issue
}

// ownerChallenges are outstanding: one for each device and agent, the newest.
type ownerChallenges struct {
	mu      sync.Mutex
	pending map[ownerDevice]ownerChallenge
	issued  uint64
}

func (c *ownerChallenges) put(d ownerDevice, nonce string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, d)
	for len(c.pending) >= MaxOwnerChallenges {
		var oldest ownerDevice
		for k, v := range c.pending {
			if o, ok := c.pending[oldest]; !ok || v.order < o.order {
				oldest = k
			}
		}
		delete(c.pending, oldest)
	}
	c.issued++
	c.pending[d] = ownerChallenge{nonce, now.Add(ChallengeTTL), c.issued}
}

// spend reports whether the nonce was outstanding. It is spent whatever the
// answer is.
func (c *ownerChallenges) spend(d ownerDevice, nonce string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	had, ok := c.pending[d]
	if !ok || had.nonce != nonce {
		return false
	}
	delete(c.pending, d)
	return had.expires.After(now)
}

// ownerRequest is the object under owner_redeem. Pointers tell absent from
// empty.
type ownerRequest struct {
	agent                    address.Address
	device, name             string
	nonce, signature, encPub *string
}

func parseOwner(raw []byte) (ownerRequest, error) {
	var r ownerRequest
	var form members
	var version int
	var addr string
	var name *string
	if canonjson.Unmarshal(raw, &form) != nil ||
		!form.read(map[string]any{"v": &version, "agent_address": &addr, "device_id": &r.device}) ||
		!form.optional(map[string]any{"device_name": &name, "nonce": &r.nonce, "wallet_signature": &r.signature, "encPub": &r.encPub}) ||
		version != ownerVersion || !deviceID.MatchString(r.device) {
		return r, fault.InvitePayload
	}
	var err error
	if r.agent, err = address.Parse(addr); err != nil || r.agent.IsZero() {
		return r, fault.InvitePayload
	}
	r.name = r.device
	if name != nil {
		if utf8.RuneCountInString(*name) > MaxDeviceName {
			return r, fault.InvitePayload
		}
		r.name = cmp.Or(PeerName(*name), r.device)
	}
	return r, nil
}

func ownerText(agent address.Address, nonce string) []byte {
	return []byte(ownerPrefix + agent.Lower() + ":" + nonce)
}

// redeemOwner answers both steps. The first says the same whether the agent
// exists or not.
func (v *Invites) redeemOwner(ctx context.Context, raw []byte) (Granted, error) {
	r, err := parseOwner(raw)
	if err != nil {
		return Granted{}, err
	}
	if r.nonce == nil && r.signature == nil {
		return v.challengeOwner(r)
	}
	if r.encPub == nil {
		return Granted{}, fault.OwnerEncPub
	}
	pub, err := parseEncPub(*r.encPub)
	if err != nil {
		return Granted{}, fault.OwnerEncPub
	}
	master, ready := v.c.Master()
	if !ready || master.IsZero() {
		return Granted{}, fault.HostIdentityUnavailable
	}
	if r.nonce == nil || !v.owner.spend(ownerDevice{r.agent, r.device}, *r.nonce, v.c.Now()) {
		return Granted{}, fault.OwnerNonce
	}
	if r.signature == nil {
		return Granted{}, fault.OwnerSignature
	}
	sig, err := signature.Parse(*r.signature)
	if err != nil || signature.Verify(signature.EthereumMessage.Digest(ownerText(r.agent, *r.nonce)), sig, master) != nil {
		return Granted{}, fault.OwnerSignature
	}
	agent, hosted := v.c.Agent(r.agent)
	switch {
	case !hosted:
		return Granted{}, fault.InviteAddress
	case agent.BuiltIn:
		return Granted{}, fault.OwnerBuiltIn
	}
	return v.grantOwner(ctx, r, agent, pub)
}

func (v *Invites) challengeOwner(r ownerRequest) (Granted, error) {
	var raw [challengeBytes]byte
	if _, err := io.ReadFull(v.c.Rand, raw[:]); err != nil {
		return Granted{}, err
	}
	nonce := hex.EncodeToString(raw[:])
	v.owner.put(ownerDevice{r.agent, r.device}, nonce, v.c.Now())
	body, err := canonjson.Marshal(map[string]any{"owner_challenge": map[string]any{"nonce": nonce, "expires_in": int(ChallengeTTL / time.Second)}})
	return Granted{Body: body, Delivered: func(error) {}}, err
}

// grantOwner mints a key of 90 days in place of the one the device had for the
// agent. The record is written before the reply: what fails revokes the key.
func (v *Invites) grantOwner(ctx context.Context, r ownerRequest, agent InvitedAgent, pub encPub) (Granted, error) {
	signer, err := v.c.Signer(ctx, agent.Address)
	if err != nil {
		return Granted{}, signerFault(err)
	}
	minted, err := v.mint(ctx, signer, accesskey.Days90, ownerLabel, r.name, "")
	if err != nil {
		return Granted{}, err
	}
	defer minted.Token.Destroy()
	body, err := v.reply(agent, v.c.Place(agent.Address), "", pub, *r.nonce, minted)
	if err == nil {
		err = v.noteDevice(ctx, OwnerDevice{agent.Address, r.device, r.name, minted.ID, v.second()})
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		v.undoOwner(ctx, minted.ID)
		return Granted{}, fault.New(fault.PairingFailed, err)
	}
	v.c.Log("owner_device_redeemed", slog.String("agentId", agent.ID), slog.String("keyId", minted.ID))
	return Granted{Body: body, Delivered: func(err error) {
		if err != nil {
			v.undoOwner(ctx, minted.ID)
		}
	}}, nil
}

// undoOwner ends a key that reached nobody, and its record.
func (v *Invites) undoOwner(ctx context.Context, keyID string) {
	if _, err := v.ForgetDevices(ctx, func(d OwnerDevice) bool { return d.AccessKeyID == keyID }); err != nil {
		v.c.Log("owner_device_not_forgotten", slog.String("keyId", keyID), slog.String("error", err.Error()))
	}
	if err := v.revokeKey(ctx, keyID); err != nil { // also where it was not on record yet
		v.c.Log("pairing_revoke_failed", slog.String("keyId", keyID))
	}
}

// Devices lists the owner's devices that got keys.
func (v *Invites) Devices() ([]OwnerDevice, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f, err := v.readDevices()
	return f.Devices, err
}

func (v *Invites) readDevices() (ownerFile, error) {
	f := ownerFile{Version: 1}
	err := v.c.Devices.Read(func(raw []byte) error {
		if canonjson.Unmarshal(raw, &f) != nil || f.Version != 1 {
			return fault.New(fault.StateCorrupt, errors.New("the list of the owner's devices does not parse"))
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return f, err
}

// noteDevice writes a record in place of the one the device had for the agent.
// The key of that one is revoked before: never two of them live.
func (v *Invites) noteDevice(ctx context.Context, d OwnerDevice) error {
	_, err := v.changeDevices(ctx, func(old OwnerDevice) bool { return old.AgentAddress == d.AgentAddress && old.DeviceID == d.DeviceID }, &d)
	return err
}

// ForgetDevices revokes the keys of the devices that match, then drops their
// records. It returns how many there were.
func (v *Invites) ForgetDevices(ctx context.Context, match func(OwnerDevice) bool) (int, error) {
	return v.changeDevices(ctx, match, nil)
}

func (v *Invites) changeDevices(ctx context.Context, match func(OwnerDevice) bool, add *OwnerDevice) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f, err := v.readDevices()
	if err != nil {
		return 0, err
	}
	kept := make([]OwnerDevice, 0, len(f.Devices)+1)
	for _, d := range f.Devices {
		if !match(d) {
			kept = append(kept, d)
		} else if err := v.revokeKey(ctx, d.AccessKeyID); err != nil {
			return 0, err
		}
	}
	gone := len(f.Devices) - len(kept)
	if add != nil {
		kept = append(kept, *add)
	} else if gone == 0 {
		return 0, nil
	}
	f.Devices = kept
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return 0, err
	}
	return gone, v.c.Devices.Write(append(text, '\n'))
}

// Retire ends what an agent's address was given to when it goes away: its open
// invites, and the records of the owner's devices (identity.md). The keys have
// been revoked with the address.
func (v *Invites) Retire(ctx context.Context, agentID string, a address.Address) error {
	_, err := v.ForgetDevices(ctx, func(d OwnerDevice) bool { return d.AgentAddress == a })
	return errors.Join(err, v.revokeAll(agentID))
}
