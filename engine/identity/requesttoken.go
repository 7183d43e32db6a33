package identity

import (
	"context"
	"crypto/sha256"
	"strings"
	"unicode/utf8"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

// RequestClaims are the signed payload of a request token. Agent is set when
// an agent signs.
type RequestClaims struct {
	Issuer   address.Address
	Agent    *AgentClaim
	Device   string // 8 hex digits
	Counter  uint64
	IssuedAt int64 // Unix seconds
	Expires  int64
	Audience string // host name of whom the request is for
	Action   string // such as "GET /v1/models"
}

// AgentClaim ties an agent's token to its master.
type AgentClaim struct {
	Parent address.Address // the master
	Index  uint32
}

// TokenRequest is what a new request token is for.
type TokenRequest struct {
	Audience, Action string
	Agent            *AgentClaim // set when an agent signs
}

// RequestToken is a token whose form was checked and nothing else.
type RequestToken struct {
	Claims    RequestClaims
	payload   []byte // exactly as transmitted
	signature signature.Signature
	assertion []byte // empty for a software device
}

// requestPayload has the wire's names, sorted when written.
type requestPayload struct {
	Action   *string `json:"act"`
	Audience *string `json:"aud"`
	Counter  *uint64 `json:"cnt"`
	Device   *string `json:"dev"`
	Expires  *int64  `json:"exp"`
	IssuedAt *int64  `json:"iat"`
	Index    *uint32 `json:"idx,omitempty"`
	Issuer   *string `json:"iss"`
	Parent   *string `json:"par,omitempty"`
}

// ParseRequestToken reads header.payload.signature.assertion. Errors:
// *TokenError with Step Shape, Header or Payload.
func ParseRequestToken(s string) (RequestToken, error) {
	var t RequestToken
	parts := strings.Split(s, ".")
	if len(s) > maxRequestToken || len(parts) != 4 {
		return t, refuse(StepShape)
	}
	header, err := base64url.Decode(parts[0])
	if err != nil {
		return t, refuse(StepShape)
	}
	if t.payload, err = base64url.Decode(parts[1]); err != nil {
		return t, refuse(StepShape)
	}
	if t.signature, err = signature.Parse(parts[2]); err != nil {
		return t, refuse(StepShape)
	}
	if t.assertion, err = base64url.Decode(parts[3]); err != nil {
		return t, refuse(StepShape)
	}
	if string(header) != requestHeader {
		return t, refuse(StepHeader)
	}
	if t.Claims, err = parseRequestPayload(t.payload); err != nil {
		return t, err
	}
	return t, nil
}

func parseRequestPayload(payload []byte) (RequestClaims, error) {
	var w requestPayload
	if canonjson.Unmarshal(payload, &w) != nil || !w.complete() {
		return RequestClaims{}, refuse(StepPayload)
	}
	issuer, err := address.Parse(*w.Issuer)
	if err != nil || !validDeviceID(*w.Device) || !fits(*w.Audience, maxAudience) || !fits(*w.Action, maxAction) {
		return RequestClaims{}, refuse(StepPayload)
	}
	c := RequestClaims{Issuer: issuer, Device: *w.Device, Counter: *w.Counter, IssuedAt: *w.IssuedAt,
		Expires: *w.Expires, Audience: *w.Audience, Action: *w.Action}
	if w.Parent == nil {
		return c, nil
	}
	parent, err := address.Parse(*w.Parent)
	if err != nil {
		return RequestClaims{}, refuse(StepPayload)
	}
	c.Agent = &AgentClaim{Parent: parent, Index: *w.Index}
	return c, nil
}

// complete wants every field, and par and idx together or not at all.
func (w *requestPayload) complete() bool {
	return w.Action != nil && w.Audience != nil && w.Counter != nil && w.Device != nil && w.Expires != nil &&
		w.IssuedAt != nil && w.Issuer != nil && (w.Parent == nil) == (w.Index == nil)
}

func fits(s string, limit int) bool {
	return s != "" && len(s) <= limit && utf8.ValidString(s)
}

func (c RequestClaims) payload() ([]byte, error) {
	issuer := c.Issuer.String()
	w := requestPayload{Action: &c.Action, Audience: &c.Audience, Counter: &c.Counter, Device: &c.Device,
		Expires: &c.Expires, IssuedAt: &c.IssuedAt, Issuer: &issuer}
	if c.Agent != nil {
		parent := c.Agent.Parent.String()
		w.Parent, w.Index = &parent, &c.Agent.Index
	}
	return canonjson.Marshal(w)
}

// String returns the token as it is sent.
func (t RequestToken) String() string {
	return strings.Join([]string{
		base64url.Encode([]byte(requestHeader)), base64url.Encode(t.payload), t.signature.Hex(), base64url.Encode(t.assertion),
	}, ".")
}

// MintRequestToken signs a token that lives 60 seconds. Its counter is on disk
// before it is signed. The caller destroys it.
func (a *Account) MintRequestToken(ctx context.Context, signer Signer, r TokenRequest) (secret.Bytes, error) {
	if !fits(r.Audience, maxAudience) || !fits(r.Action, maxAction) {
		return secret.Bytes{}, fault.WithText(fault.Usage, "a request token needs a host name and an action such as \"GET /v1/models\"")
	}
	count, err := a.device.nextCount()
	if err != nil {
		return secret.Bytes{}, err
	}
	now, device := a.c.Now().Unix(), a.Device()
	t := RequestToken{Claims: RequestClaims{Issuer: signer.Address(), Agent: r.Agent, Device: device.ID, Counter: count,
		IssuedAt: now, Expires: now + requestLifetime, Audience: r.Audience, Action: r.Action}}
	if t.payload, err = t.Claims.payload(); err != nil {
		return secret.Bytes{}, err
	}
	if t.signature, err = signer.Sign(ctx, signature.SignedMessage.Digest(t.payload)); err != nil {
		return secret.Bytes{}, err
	}
	if device.Hardware {
		if a.c.Hardware == nil {
			return secret.Bytes{}, fault.WithText(fault.Unsupported, "the key of this device is in hardware that cannot be reached")
		}
		if t.assertion, err = a.c.Hardware.Assert(sha256.Sum256(t.payload)); err != nil {
			return secret.Bytes{}, err
		}
	}
	return secret.Take([]byte(t.String())), nil
}
