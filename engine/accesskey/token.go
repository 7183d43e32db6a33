// Package accesskey mints, validates and revokes osk-v1 access keys: signed
// bearer tokens of the master or of one agent. PROTOCOL.md beside this file is
// its specification.
package accesskey

import (
	"strings"

	jsonv2 "github.com/go-json-experiment/json"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

// Prefix begins every token, PROTOCOL.md section 1.
const Prefix = "osk-v1"

// MaxToken bounds a token in bytes; a minted one has about 414.
const MaxToken = 4096

// Claims are the signed payload. Pointers are absent when nil.
type Claims struct {
	Audience address.Address
	Counter  uint64
	Expires  *int64 // Unix seconds; nil means never
	IssuedAt int64
	Issuer   address.Address
	Label    *string
	Nonce    string
}

// wireClaims has the wire's names.
type wireClaims struct {
	Audience *string `json:"aud"`
	Counter  *uint64 `json:"cnt"`
	Expires  *int64  `json:"exp,omitempty"`
	IssuedAt *int64  `json:"iat"`
	Issuer   *string `json:"iss"`
	Label    *string `json:"lbl,omitempty"`
	Nonce    *string `json:"nonce"`
}

// token is a parsed key whose signature has not been checked.
type token struct {
	payload   []byte // exactly as transmitted
	signature signature.Signature
	claims    Claims
}

// parse checks the form, in the order that fixes which error a peer sees:
// fault.TokenFormat, PayloadEncoding, SignatureEncoding, MalformedPayload, and
// the mismatch of an issuer or audience that is no address.
func parse(s string) (token, error) {
	var t token
	rest, ok := strings.CutPrefix(s, Prefix+".")
	payload, sig, two := strings.Cut(rest, ".")
	if len(s) > MaxToken || !ok || !two || strings.Contains(sig, ".") {
		return t, fault.TokenFormat
	}
	var err error
	if t.payload, err = base64url.Decode(payload); err != nil || len(t.payload) == 0 {
		return t, fault.PayloadEncoding
	}
	if t.signature, err = signature.Parse(sig); err != nil {
		return t, fault.SignatureEncoding
	}
	if t.claims, err = parseClaims(t.payload); err != nil {
		return t, err
	}
	return t, nil
}

func parseClaims(payload []byte) (Claims, error) {
	var w wireClaims
	if jsonv2.Unmarshal(payload, &w) != nil || w.Audience == nil || w.Counter == nil || w.IssuedAt == nil || w.Issuer == nil || w.Nonce == nil {
		return Claims{}, fault.MalformedPayload
	}
	iss, err := address.Parse(*w.Issuer)
	if err != nil {
		return Claims{}, fault.IssuerMismatch // nobody's signature recovers to it
	}
	aud, err := address.Parse(*w.Audience)
	if err != nil {
		return Claims{}, fault.AudienceMismatch
	}
	return Claims{Audience: aud, Counter: *w.Counter, Expires: w.Expires, IssuedAt: *w.IssuedAt, Issuer: iss, Label: w.Label, Nonce: *w.Nonce}, nil
}

// payload writes the claims with sorted keys, absent ones left out.
func (c Claims) payload() ([]byte, error) {
	aud, iss := c.Audience.String(), c.Issuer.String()
	return canonjson.Marshal(wireClaims{Audience: &aud, Counter: &c.Counter, Expires: c.Expires, IssuedAt: &c.IssuedAt, Issuer: &iss, Label: c.Label, Nonce: &c.Nonce})
}

func format(payload []byte, sig signature.Signature) []byte {
	out := make([]byte, 0, len(Prefix)+2+len(payload)*4/3+4+2*signature.Size)
	out = append(out, Prefix...)
	out = append(out, '.')
	out = append(out, base64url.Encode(payload)...)
	out = append(out, '.')
	return append(out, sig.Hex()...)
}

// verify recovers the signer and compares it with iss: fault.SignatureRecovery
// or fault.IssuerMismatch.
func (t token) verify() error {
	signer, err := signature.Recover(signature.SignedAccess.Digest(t.payload), t.signature)
	if err != nil {
		return fault.SignatureRecovery
	}
	if signer != t.claims.Issuer {
		return fault.IssuerMismatch
	}
	return nil
}

// Expiration is how long a new key lives.
type Expiration string

// The choices a person has.
const (
	Days30 Expiration = "30d"
	Days90 Expiration = "90d"
	Year   Expiration = "1y"
	Never  Expiration = "never"
)

const day = 24 * 60 * 60

// ParseExpiration reads one of the constants.
func ParseExpiration(s string) (Expiration, error) {
	switch e := Expiration(s); e {
	case Days30, Days90, Year, Never:
		return e, nil
	}
	return "", fault.WithText(fault.Usage, "expiration must be 30d, 90d, 1y or never")
}

// at returns the expiry for a key minted at now; nil for Never.
func (e Expiration) at(now int64) *int64 {
	days := map[Expiration]int64{Days30: 30, Days90: 90, Year: 365}[e]
	if days == 0 {
		return nil
	}
	exp := now + days*day
	return &exp
}

// Metadata is all that persists of a key: never the key itself.
type Metadata struct {
	ID         string          `json:"id"` // UUID
	Label      string          `json:"label"`
	Prefix     string          `json:"prefix"` // first 20 characters of the token
	Nonce      string          `json:"nonce"`
	Counter    uint64          `json:"cnt"`
	Issuer     address.Address `json:"iss"`
	Audience   address.Address `json:"aud"`
	CreatedAt  int64           `json:"createdAt"`
	Expiration Expiration      `json:"expiration"`
	ExpiresAt  int64           `json:"expiresAt,omitempty"` // 0 means never
	Revoked    bool            `json:"revoked"`
	Temporary  bool            `json:"temporary,omitempty"` // ends with the session
}

// Legacy reports an active, never-expiring key whose audience is no agent: the
// advice is to pair again.
func (m Metadata) Legacy(isAgent func(address.Address) bool) bool {
	return !m.Revoked && m.ExpiresAt == 0 && !isAgent(m.Audience)
}

// Inspect reads a token's claims without judging it: for a connector that
// was just given one. Errors are those of the form.
func Inspect(t secret.Bytes) (Claims, error) {
	parsed, err := parse(string(t.Expose()))
	return parsed.claims, err
}
