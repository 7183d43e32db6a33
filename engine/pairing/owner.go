package pairing

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
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

var deviceID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

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
}

// ownerChallenges are outstanding: one for each device and agent, the newest.
type ownerChallenges struct {
	mu      sync.Mutex
	pending map[ownerDevice]ownerChallenge
}

func (c *ownerChallenges) put(d ownerDevice, nonce string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, d)
	for len(c.pending) >= MaxOwnerChallenges {
		var oldest ownerDevice
		for k, v := range c.pending {
			if o, ok := c.pending[oldest]; !ok || v.expires.Before(o.expires) {
				oldest = k
			}
		}
		delete(c.pending, oldest)
	}
	c.pending[d] = ownerChallenge{nonce, now.Add(ChallengeTTL)}
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

// ownerRequest is the object under owner_redeem.
type ownerRequest struct {
	V            int     `json:"v"`
	AgentAddress string  `json:"agent_address"`
	DeviceID     string  `json:"device_id"`
	DeviceName   *string `json:"device_name"`
	Nonce        *string `json:"nonce"`
	Signature    *string `json:"wallet_signature"`
	EncPub       *string `json:"encPub"`

	agent address.Address
	name  string
}

func parseOwner(raw []byte) (ownerRequest, error) {
	var r ownerRequest
	if canonjson.Unmarshal(raw, &r) != nil || r.V != ownerVersion || !deviceID.MatchString(r.DeviceID) {
		return r, fault.InvitePayload
	}
	var err error
	if r.agent, err = address.Parse(r.AgentAddress); err != nil || r.agent.IsZero() {
		return r, fault.InvitePayload
	}
	if r.name = r.DeviceID; r.DeviceName != nil {
		if utf8.RuneCountInString(*r.DeviceName) > MaxDeviceName {
			return r, fault.InvitePayload
		}
		if name := PeerName(*r.DeviceName); name != "" {
			r.name = name
		}
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
	if r.Nonce == nil && r.Signature == nil {
		return v.challengeOwner(r)
	}
	if r.EncPub == nil {
		return Granted{}, fault.OwnerEncPub
	}
	pub, err := parseEncPub(*r.EncPub)
	if err != nil {
		return Granted{}, fault.OwnerEncPub
	}
	master, ready := v.c.Master()
	if !ready {
		return Granted{}, fault.HostIdentityUnavailable
	}
	if r.Nonce == nil || !v.owner.spend(ownerDevice{r.agent, r.DeviceID}, *r.Nonce, v.c.Now()) {
		return Granted{}, fault.OwnerNonce
	}
	if r.Signature == nil {
		return Granted{}, fault.OwnerSignature
	}
	sig, err := signature.Parse(*r.Signature)
	if err != nil || signature.Verify(signature.EthereumMessage.Digest(ownerText(r.agent, *r.Nonce)), sig, master) != nil {
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
	v.owner.put(ownerDevice{r.agent, r.DeviceID}, nonce, v.c.Now())
	body, err := canonjson.Marshal(map[string]any{"owner_challenge": map[string]any{"nonce": nonce, "expires_in": int(ChallengeTTL / time.Second)}})
	return Granted{Body: body, Delivered: func(error) {}}, err
}

// grantOwner mints a key of 90 days and revokes the one the device had for the
// agent. The record is written before the reply: what fails revokes the key.
func (v *Invites) grantOwner(ctx context.Context, r ownerRequest, agent InvitedAgent, pub encPub) (Granted, error) {
	signer, err := v.c.Signer(ctx, agent.Address)
	if err != nil {
		return Granted{}, fault.New(fault.PairingMint, err)
	}
	minted, err := v.c.Keys.Mint(ctx, signer, accesskey.MintRequest{Label: ownerLabel + r.name, Expiration: accesskey.Days90})
	if err != nil {
		return Granted{}, fault.New(fault.PairingMint, err)
	}
	defer minted.Token.Destroy()
	url, err := v.c.URL(agent.Address)
	if err != nil {
		url = "" // the device reached us another way
	}
	body, err := v.reply(agent, url, "", pub, *r.Nonce, minted)
	var replaced string
	if err == nil {
		replaced, err = v.noteDevice(OwnerDevice{agent.Address, r.DeviceID, r.name, minted.ID, v.c.Now().UTC().Truncate(time.Second)})
	}
	if err == nil && replaced != "" {
		err = v.c.Keys.Revoke(context.WithoutCancel(ctx), replaced)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		v.revoke(ctx, minted.ID)
		return Granted{}, fault.New(fault.PairingFailed, err)
	}
	v.c.Log("owner_device_redeemed", slog.String("agentId", agent.ID), slog.String("keyId", minted.ID))
	return Granted{Body: body, Delivered: func(err error) {
		if err != nil {
			v.revoke(ctx, minted.ID)
		}
	}}, nil
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

// noteDevice writes a record in place of the one the device had for the agent,
// and returns the key of that one.
func (v *Invites) noteDevice(d OwnerDevice) (replaced string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f, err := v.readDevices()
	if err != nil {
		return "", err
	}
	f.Devices = slices.DeleteFunc(f.Devices, func(old OwnerDevice) bool {
		same := old.AgentAddress == d.AgentAddress && old.DeviceID == d.DeviceID
		if same {
			replaced = old.AccessKeyID
		}
		return same
	})
	f.Devices = append(f.Devices, d)
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return "", err
	}
	return replaced, v.c.Devices.Write(append(text, '\n'))
}
