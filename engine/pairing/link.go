package pairing

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/identity"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/signature"
)

// Errors of a link, before anything is sent.
var (
	ErrLink        = errors.New("pairing: not an invite link")
	ErrLinkVersion = errors.New("pairing: the invite is of a version this host does not know")
	ErrLinkSigned  = errors.New("pairing: the invite was not signed by the agent it names")
	ErrLinkExpired = errors.New("pairing: the invite has expired")
	ErrLinkHost    = errors.New("pairing: the invite names a place that is not the agent's at the relay")
)

const (
	linkScheme = "osaurus"
	maxLink    = 16 << 10
)

// LocalDomain is where a relay on this machine is found, without TLS.
const LocalDomain = "localhost"

// Link is the invite as a link: osaurus://<address>?pair=<base64url(JSON)>.
func (i Invite) Link() (string, error) {
	raw, err := canonjson.Marshal(i)
	if err != nil {
		return "", err
	}
	return linkScheme + "://" + strings.ToLower(i.Addr) + "?pair=" + base64url.Encode(raw), nil
}

// ParseLink reads a link and checks all that can be checked before anything is
// sent: version, expiry, signature, and that the place it names is the agent's
// own at the relay with the given domain. Without an error every field but
// Name and Desc may be relied on.
func ParseLink(link, domain string, now time.Time) (Invite, address.Address, error) {
	raw, host, err := openLink(link)
	var in Invite
	if err != nil || canonjson.Unmarshal(raw, &in) != nil {
		return Invite{}, address.Address{}, ErrLink
	}
	if in.V != inviteVersion {
		return Invite{}, address.Address{}, ErrLinkVersion
	}
	addr, err := address.Parse(in.Addr)
	if err != nil || addr.IsZero() || !strings.EqualFold(host, addr.Lower()) {
		return Invite{}, address.Address{}, ErrLink
	}
	if _, err := base64url.DecodeExact(in.Nonce, inviteBytes); err != nil {
		return Invite{}, address.Address{}, ErrLink
	}
	switch {
	case in.verify(addr) != nil:
		return Invite{}, address.Address{}, ErrLinkSigned
	case now.Unix() >= in.Exp:
		return Invite{}, address.Address{}, ErrLinkExpired
	}
	if _, err := PlaceOf(in.URL, addr, domain); err != nil {
		return Invite{}, address.Address{}, err
	}
	return in, addr, nil
}

// openLink takes the JSON and the host out of a link: one pair member, and
// nothing that a person reading the link could take for another host.
func openLink(link string) (raw []byte, host string, err error) {
	link = strings.TrimSpace(link)
	if len(link) > maxLink || !plainASCII(link) {
		return nil, "", ErrLink
	}
	u, err := url.Parse(link)
	if err != nil || u.Scheme != linkScheme || u.User != nil || u.Opaque != "" || (u.Path != "" && u.Path != "/") || u.Fragment != "" {
		return nil, "", ErrLink
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil || len(q["pair"]) != 1 {
		return nil, "", ErrLink
	}
	raw, err = base64url.Decode(q["pair"][0])
	return raw, u.Host, err
}

// plainASCII keeps out what only looks like, or folds to, a letter.
func plainASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// PlaceOf accepts the one URL an agent has at the relay of a domain, in any
// case: https://<address>.<domain>, or http where the domain is this machine's.
// Without an error the URL it returns is in lower case.
func PlaceOf(text string, addr address.Address, domain string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSuffix(text, "/"))
	host := strings.ToLower(addr.Lower() + "." + domain)
	if err != nil || addr.IsZero() || !plainASCII(text) || strings.ContainsAny(text, "?#@") || u.Path != "" || u.Opaque != "" || strings.ToLower(u.Host) != host {
		return nil, ErrLinkHost
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !Local(domain)) {
		return nil, ErrLinkHost
	}
	return &url.URL{Scheme: u.Scheme, Host: host}, nil
}

// Local reports whether a relay's domain is of this machine: localhost or a
// name below it, with any port (RFC 6761 section 6.3).
func Local(domain string) bool {
	name := domain
	if host, _, err := net.SplitHostPort(domain); err == nil {
		name = host
	}
	name = strings.ToLower(name)
	return name == LocalDomain || strings.HasSuffix(name, "."+LocalDomain)
}

// Accepted is what a redeemed invite brought. The caller destroys Key.
type Accepted struct {
	Paired
	Name string // untrusted, made printable
	URL  *url.URL
}

// Accept redeems an invite that ParseLink took. client speaks the Secure
// Channel with the address of the invite: nothing is sent outside it
// (decisions C2).
func Accept(ctx context.Context, client *http.Client, in Invite, addr address.Address, domain string, random io.Reader) (Accepted, error) {
	place, err := PlaceOf(in.URL, addr, domain)
	if err != nil {
		return Accepted{}, err
	}
	r, err := newRedemption(random)
	if err != nil {
		return Accepted{}, err
	}
	defer r.own.private.Destroy()
	body, err := canonjson.Marshal(offerBody{in, r.encPub})
	if err != nil {
		return Accepted{}, err
	}
	return r.post(ctx, client, place, body, addr, in.Nonce)
}

// offerBody is the invite exactly as it stood in the link, and a public key.
type offerBody struct {
	Invite
	EncPub string `json:"encPub"`
}

// redemption is one key pair for one delivery.
type redemption struct {
	own    recipient
	encPub string
}

func newRedemption(random io.Reader) (redemption, error) {
	if random == nil {
		random = rand.Reader
	}
	own, pub, err := newRecipient(random)
	return redemption{own, base64urlOf(pub)}, err
}

// post sends a redemption and trusts nothing of the answer: the address must
// be the pinned one, the key sealed to us and minted for that agent.
func (r redemption) post(ctx context.Context, client *http.Client, place *url.URL, body []byte, addr address.Address, nonce string) (Accepted, error) {
	ctx, cancel := context.WithTimeout(ctx, redeemDeadline)
	defer cancel()
	raw, err := exchange(ctx, client, http.MethodPost, place.JoinPath("pair-invite"), body)
	if err != nil {
		return Accepted{}, err
	}
	var reply InviteReply
	if canonjson.Unmarshal(raw, &reply) != nil {
		return Accepted{}, ErrBadReply
	}
	if reply.AgentAddress != addr {
		return Accepted{}, ErrWrongAgent
	}
	if reply.APIKey != "" || reply.SealedAPIKey.CT == "" {
		return Accepted{}, ErrNotSealed
	}
	token, err := r.own.open(reply.SealedAPIKey, sealInfo(addr, nonce))
	if err != nil {
		return Accepted{}, err
	}
	claims, err := accesskey.Inspect(token)
	if err != nil || claims.Audience != addr {
		token.Destroy()
		return Accepted{}, ErrBadReply
	}
	got := Accepted{Paired: Paired{Address: addr, PQ: reply.PQ == hasPQ, Key: token}, Name: PeerName(reply.AgentName), URL: place}
	if claims.Expires != nil {
		got.Expires = *claims.Expires
	}
	return got, nil
}

// redeemDeadline bounds a redemption (relay.md section 11.5).
const redeemDeadline = 60 * time.Second

// Device is this device as the owner's other hosts know it.
type Device struct{ ID, Name string }

// RedeemOwner gets a key for an agent of another host with the same master.
// master signs the challenge of that host; client speaks the Secure Channel
// with the agent's address.
func RedeemOwner(ctx context.Context, client *http.Client, master identity.Signer, place *url.URL, addr address.Address, d Device, random io.Reader) (Accepted, error) {
	ctx, cancel := context.WithTimeout(ctx, redeemDeadline)
	defer cancel()
	ask := map[string]any{"v": ownerVersion, "agent_address": addr.String(), "device_id": d.ID}
	if d.Name != "" {
		ask["device_name"] = d.Name
	}
	body, err := canonjson.Marshal(map[string]any{"owner_redeem": ask})
	if err != nil {
		return Accepted{}, err
	}
	raw, err := exchange(ctx, client, http.MethodPost, place.JoinPath("pair-invite"), body)
	if err != nil {
		return Accepted{}, err
	}
	var c struct {
		Challenge struct {
			Nonce string `json:"nonce"`
		} `json:"owner_challenge"`
	}
	nonce := ""
	if json.Unmarshal(raw, &c) == nil {
		nonce = c.Challenge.Nonce
	}
	if len(nonce) == 0 || len(nonce) > 256 || strings.ContainsFunc(nonce, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Accepted{}, ErrBadReply
	}
	sig, err := master.Sign(ctx, signature.EthereumMessage.Digest(ownerText(addr, nonce)))
	if err != nil {
		return Accepted{}, err
	}
	r, err := newRedemption(random)
	if err != nil {
		return Accepted{}, err
	}
	defer r.own.private.Destroy()
	ask["nonce"], ask["wallet_signature"], ask["encPub"] = nonce, sig.String(), r.encPub
	if body, err = canonjson.Marshal(map[string]any{"owner_redeem": ask}); err != nil {
		return Accepted{}, err
	}
	return r.post(ctx, client, place, body, addr, nonce)
}
