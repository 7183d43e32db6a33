package pairing

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/identity"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

// Errors of the connector's side. None repeats what the host sent, except the
// text of a Refused.
var (
	ErrWrongAgent      = errors.New("pairing: the host answered for another address than the one pinned")
	ErrServerSignature = errors.New("pairing: the host could not prove that it holds the agent's key")
	ErrNotSealed       = errors.New("pairing: the host did not seal the access key; it must be upgraded")
	ErrBadReply        = errors.New("pairing: the host's answer does not follow the protocol")
)

// Refused is the host's own refusal.
type Refused struct {
	Status int
	Text   string // the host's words: untrusted, printable, at most 200 bytes
}

// Error shows status and words.
func (e *Refused) Error() string { return fmt.Sprintf("the host refused (%d): %s", e.Status, e.Text) }

// Target is the agent to pair with. Address comes from its TXT record or was
// typed by the owner; without one nothing can be pinned, so it is required.
type Target struct {
	BaseURL *url.URL
	AgentID string
	Address address.Address
	PQ      bool // the TXT record says so
}

// Paired is the outcome. The caller destroys Key.
type Paired struct {
	Address   address.Address
	Permanent bool
	Expires   int64 // Unix seconds; 0 means never
	PQ        bool  // its channel has the post-quantum exchange
	Key       secret.Bytes
}

// Pair asks the host for an access key and checks everything it answers. It
// blocks while the owner over there decides, ctx permitting.
func Pair(ctx context.Context, client *http.Client, key identity.Signer, t Target, random io.Reader) (Paired, error) {
	if t.Address.IsZero() {
		return Paired{}, ErrWrongAgent
	}
	if random == nil {
		random = rand.Reader
	}
	ctx, cancel := context.WithTimeout(ctx, connectorDeadline)
	defer cancel()
	nonce, err := fetchChallenge(ctx, client, t.BaseURL)
	if err != nil {
		return Paired{}, err
	}
	own, pub, err := newRecipient(random)
	if err != nil {
		return Paired{}, err
	}
	defer own.private.Destroy()
	body, err := pairRequest(ctx, key, t.AgentID, nonce, pub)
	if err != nil {
		return Paired{}, err
	}
	raw, err := exchange(ctx, client, http.MethodPost, t.BaseURL.JoinPath("pair"), body)
	if err != nil {
		return Paired{}, err
	}
	return checkReply(raw, t.Address, nonce, own)
}

func fetchChallenge(ctx context.Context, client *http.Client, base *url.URL) (string, error) {
	raw, err := exchange(ctx, client, http.MethodGet, base.JoinPath("pair", "challenge"), nil)
	if err != nil {
		return "", err
	}
	var c struct {
		Nonce string `json:"nonce"`
	}
	if canonjson.Unmarshal(raw, &c) != nil || len(c.Nonce) == 0 || len(c.Nonce) > 256 || strings.ContainsFunc(c.Nonce, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", ErrBadReply
	}
	return c.Nonce, nil
}

func pairRequest(ctx context.Context, key identity.Signer, agentID, nonce string, pub encPub) ([]byte, error) {
	text := base64urlOf(pub)
	sig, err := key.Sign(ctx, signature.SignedPairing.Digest([]byte(nonce+":"+text)))
	if err != nil {
		return nil, err
	}
	return canonjson.Marshal(map[string]string{
		"connectorAddress": key.Address().String(), "agentId": agentID, "nonce": nonce, "signature": sig.String(), "encPub": text,
	})
}

// checkReply trusts nothing: the address must be the pinned one, the
// signature its own, the key sealed to us and minted for that agent.
func checkReply(raw []byte, pinned address.Address, nonce string, own recipient) (Paired, error) {
	var r Reply
	if canonjson.Unmarshal(raw, &r) != nil {
		return Paired{}, ErrBadReply
	}
	if r.AgentAddress != pinned {
		return Paired{}, ErrWrongAgent
	}
	sig, err := signature.Parse(r.ServerSignature)
	if err != nil || signature.Verify(signature.PairingServer.Digest(serverText(pinned, nonce)), sig, pinned) != nil {
		return Paired{}, ErrServerSignature
	}
	if r.APIKey != "" || r.SealedAPIKey.CT == "" {
		return Paired{}, ErrNotSealed
	}
	token, err := own.open(r.SealedAPIKey, sealInfo(pinned, nonce))
	if err != nil {
		return Paired{}, err
	}
	claims, err := accesskey.Inspect(token)
	if err != nil || claims.Audience != pinned {
		token.Destroy()
		return Paired{}, ErrBadReply
	}
	p := Paired{Address: pinned, Permanent: r.IsPermanent, PQ: r.PQ == hasPQ, Key: token}
	if claims.Expires != nil {
		p.Expires = *claims.Expires
	}
	return p, nil
}

// exchange sends one request and returns the body of a 200.
func exchange(ctx context.Context, client *http.Client, method string, u *url.URL, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end or given up
	raw, err := io.ReadAll(io.LimitReader(resp.Body, MaxReply+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > MaxReply {
		return nil, ErrBadReply
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &Refused{resp.StatusCode, RefusalText(raw)}
	}
	return raw, nil
}

// RefusalText takes the host's sentence out of whichever error shape it used
// and keeps only what is safe to print.
func RefusalText(raw []byte) string {
	var e struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
	}
	text := ""
	if json.Unmarshal(raw, &e) == nil {
		var inner struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(e.Error, &text) != nil && json.Unmarshal(e.Error, &inner) == nil {
			text = inner.Message
		}
		if e.Message != "" {
			text = e.Message
		}
	} else {
		text = string(raw)
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, text)
	return text[:min(len(text), 200)]
}
