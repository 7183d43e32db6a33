package pairing

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/signature"
)

// Agent is what pairing needs to know of an agent.
type Agent struct {
	ID        string
	Name      string
	Address   address.Address
	Available bool // advertised, not built in
}

// HostConfig configures NewHost. Everything but Now, Rand and Log is required.
type HostConfig struct {
	Agent  func(id string) (Agent, bool)
	Signer func(ctx context.Context, a address.Address) (identity.Signer, error)
	Keys   *accesskey.Keys
	Queue  *Queue
	Now    func() time.Time
	Rand   io.Reader
	Log    func(event string, attrs ...slog.Attr)
}

// Source is where a request came from.
type Source struct {
	Addr  netip.Addr
	Relay bool
}

// Host answers pairing requests: bytes in, bytes out. It is safe for
// concurrent use.
type Host struct {
	c          HostConfig
	challenges challenges
}

// NewHost returns a host with no challenge outstanding.
func NewHost(c HostConfig) *Host {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = func(string, ...slog.Attr) {}
	}
	return &Host{c: c, challenges: challenges{now: c.Now, rand: c.Rand, expires: map[string]time.Time{}}}
}

// Challenge answers GET /pair/challenge.
func (h *Host) Challenge() ([]byte, error) {
	nonce, err := h.challenges.issue()
	if err != nil {
		return nil, err
	}
	return canonjson.Marshal(map[string]string{"nonce": nonce})
}

// request is the body of POST /pair. Pointers tell absent from empty.
type request struct {
	ConnectorAddress *string `json:"connectorAddress"`
	AgentID          *string `json:"agentId"`
	Nonce            *string `json:"nonce"`
	Signature        *string `json:"signature"`
	EncPub           *string `json:"encPub"`
}

// hasPQ says that our channel has the post-quantum exchange (decisions C20).
const hasPQ = 1

// Reply is the body of a granted request.
type Reply struct {
	AgentAddress    address.Address `json:"agentAddress"`
	APIKey          string          `json:"apiKey"` // always empty: the key travels sealed
	IsPermanent     bool            `json:"isPermanent"`
	PQ              int             `json:"pq,omitempty"` // 1: the channel's post-quantum exchange
	ServerSignature string          `json:"serverSignature"`
	SealedAPIKey    Sealed          `json:"sealedApiKey"`
	SecureChannel   bool            `json:"secureChannel"`
}

// wanted is a request whose form is right.
type wanted struct {
	connector address.Address
	agentID   string
	nonce     string
	encPub    encPub
	encText   string
	signature signature.Signature
}

// parseRequest is step 1. Errors: fault.PairingRequest,
// fault.PairingEncryptionKey. The nonce is not spent.
func parseRequest(body []byte) (wanted, error) {
	var r request
	var w wanted
	if canonjson.Unmarshal(body, &r) != nil || r.ConnectorAddress == nil || r.AgentID == nil || r.Nonce == nil || r.Signature == nil {
		return w, fault.PairingRequest
	}
	var err error
	if w.connector, err = address.Parse(*r.ConnectorAddress); err != nil || w.connector.IsZero() {
		return w, fault.PairingRequest
	}
	if len(*r.AgentID) != 36 || uuid.Validate(*r.AgentID) != nil {
		return w, fault.PairingRequest
	}
	if r.EncPub == nil {
		return w, fault.PairingEncryptionKey
	}
	if w.encPub, err = parseEncPub(*r.EncPub); err != nil {
		return w, fault.PairingEncryptionKey
	}
	// A signature of the wrong form is one that does not verify (step 2).
	if w.signature, err = signature.Parse(*r.Signature); err != nil {
		return w, fault.PairingSignature
	}
	w.agentID, w.nonce, w.encText = *r.AgentID, *r.Nonce, *r.EncPub
	return w, nil
}

// Granted is a reply that has not been delivered yet. The caller must call
// Delivered exactly once: a reply that could not be written revokes the key.
type Granted struct {
	Body      []byte
	Delivered func(err error)
}

// Pair answers POST /pair in the order of PROTOCOL.md section 2. Errors are
// fault codes.
func (h *Host) Pair(ctx context.Context, body []byte, src Source) (Granted, error) {
	w, err := parseRequest(body)
	if err != nil {
		return Granted{}, err
	}
	text := []byte(w.nonce + ":" + w.encText)
	if signature.Verify(signature.SignedPairing.Digest(text), w.signature, w.connector) != nil {
		return Granted{}, fault.PairingSignature
	}
	if !h.challenges.consume(w.nonce) {
		return Granted{}, fault.PairingChallenge
	}
	agent, ok := h.c.Agent(w.agentID)
	if !ok || !agent.Available || agent.Address.IsZero() {
		return Granted{}, fault.PairingAgent
	}
	signer, err := h.c.Signer(ctx, agent.Address)
	if err != nil {
		return Granted{}, fault.New(fault.PairingAgent, err)
	}
	validity, err := h.approve(ctx, agent, w.connector, src)
	if err != nil {
		return Granted{}, err
	}
	return h.grant(ctx, signer, agent, w, validity)
}

// approve is step 5. A request through the relay is denied without a prompt.
func (h *Host) approve(ctx context.Context, agent Agent, connector address.Address, src Source) (Validity, error) {
	who := []slog.Attr{slog.String("agentId", agent.ID), slog.String("connector", connector.String()), slog.String("source", src.Addr.String())}
	if src.Relay {
		h.c.Log("pairing_denied", append(who, slog.String("reason", "relay"))...)
		return Deny, fault.PairingDenied
	}
	h.c.Log("pairing_asked", who...)
	v, err := h.c.Queue.Ask(ctx, Prompt{AgentID: agent.ID, AgentName: agent.Name, Connector: connector, Source: src.Addr.String()})
	switch {
	case errors.Is(err, ErrNoApprover):
		h.c.Log("pairing_denied", append(who, slog.String("reason", "no approver attached"))...)
		return Deny, fault.New(fault.PairingDenied, err)
	case err != nil:
		h.c.Log("pairing_denied", append(who, slog.String("reason", err.Error()))...)
		return Deny, err
	}
	h.c.Log("pairing_approved", append(who, slog.String("validity", v.String()))...)
	return v, nil
}

// Penalized reports whether a refusal costs the source the penalty: the owner
// was disturbed and did not agree (decisions C13: not where nobody was there).
func Penalized(err error) bool {
	return errors.Is(err, fault.PairingDenied) && !errors.Is(err, ErrNoApprover)
}

// grant is steps 6 and 7: mint, sign, seal. Any failure after minting revokes
// the key before it returns.
func (h *Host) grant(ctx context.Context, signer identity.Signer, agent Agent, w wanted, v Validity) (Granted, error) {
	expiration := accesskey.Days90
	if v == Permanent {
		expiration = accesskey.Never
	}
	minted, err := h.c.Keys.Mint(ctx, signer, accesskey.MintRequest{Label: labelPrefix + w.connector.Short(), Expiration: expiration, Temporary: v == SessionOnly})
	if err != nil {
		return Granted{}, fault.New(fault.PairingMint, err)
	}
	defer minted.Token.Destroy()
	body, err := h.reply(ctx, signer, agent, w, v, minted)
	if err == nil {
		err = ctx.Err() // nobody is there to receive it
	}
	if err != nil {
		h.revoke(ctx, minted.ID)
		return Granted{}, fault.New(fault.PairingFailed, err)
	}
	return Granted{Body: body, Delivered: func(err error) {
		if err != nil {
			h.revoke(ctx, minted.ID)
		}
	}}, nil
}

func (h *Host) reply(ctx context.Context, signer identity.Signer, agent Agent, w wanted, v Validity, minted accesskey.Minted) ([]byte, error) {
	sig, err := signer.Sign(ctx, signature.PairingServer.Digest(serverText(agent.Address, w.nonce)))
	if err != nil {
		return nil, err
	}
	sealed, err := seal(h.c.Rand, w.encPub, sealInfo(agent.Address, w.nonce), minted.Token)
	if err != nil {
		return nil, err
	}
	return canonjson.Marshal(Reply{AgentAddress: agent.Address, IsPermanent: v == Permanent, PQ: hasPQ, ServerSignature: sig.String(), SealedAPIKey: sealed, SecureChannel: true})
}

// revoke must not be stopped by the request that failed.
func (h *Host) revoke(ctx context.Context, id string) {
	if err := h.c.Keys.Revoke(context.WithoutCancel(ctx), id); err != nil {
		h.c.Log("pairing_revoke_failed", slog.String("keyId", id))
	}
}

func serverText(agent address.Address, nonce string) []byte {
	return []byte(serverTextPrefix + agent.Lower() + ":" + nonce)
}
