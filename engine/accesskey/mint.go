package accesskey

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

// MaxLabel bounds a label in characters.
const MaxLabel = 80

// prefixLength is how much of a token its metadata keeps.
const prefixLength = 20

// MintRequest describes a new key. A Temporary one lives 90 days at most and
// is revoked when the engine stops.
type MintRequest struct {
	Label      string
	Expiration Expiration
	Temporary  bool
}

// Minted is a new key. The caller destroys Token after showing or sealing it.
type Minted struct {
	Metadata
	Token secret.Bytes
}

// Mint signs a key whose issuer and audience are the signer's address. The
// counter, the tracking of a temporary key and the metadata are durable
// before it returns.
func (k *Keys) Mint(ctx context.Context, signer identity.Signer, r MintRequest) (Minted, error) {
	label, err := cleanLabel(r.Label)
	if err != nil {
		return Minted{}, err
	}
	if _, err := ParseExpiration(string(r.Expiration)); err != nil {
		return Minted{}, err
	}
	if r.Temporary {
		r.Expiration = Days90
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unreadable != nil {
		return Minted{}, errors.Join(errNoStore, k.unreadable)
	}
	if len(k.metadata) >= MaxKeys {
		return Minted{}, fault.WithText(fault.Usage, fmt.Sprintf("there are %d access keys; delete some first", MaxKeys))
	}
	id, nonce, err := k.newIDs()
	if err != nil {
		return Minted{}, err
	}
	if r.Temporary {
		if err := k.trackLocked(id); err != nil {
			return Minted{}, err
		}
	}
	counter, err := k.nextCounterLocked(ctx)
	if err != nil {
		return Minted{}, err
	}
	now := max(k.c.Now().Unix(), k.state.notBefore) // see RefuseBefore
	claims := Claims{Audience: signer.Address(), Issuer: signer.Address(), Counter: counter, IssuedAt: now, Expires: r.Expiration.at(now), Nonce: nonce}
	if label != "" {
		claims.Label = &label
	}
	text, err := sign(ctx, signer, claims)
	if err != nil {
		return Minted{}, err
	}
	m := Metadata{ID: id, Label: label, Prefix: string(text.Expose()[:prefixLength]), Nonce: nonce, Counter: counter,
		Issuer: claims.Issuer, Audience: claims.Audience, CreatedAt: now, Expiration: r.Expiration, Temporary: r.Temporary}
	if claims.Expires != nil {
		m.ExpiresAt = *claims.Expires
	}
	if err := k.saveMetadataLocked(ctx, append(slices.Clone(k.metadata), m)); err != nil {
		text.Destroy()
		return Minted{}, err
	}
	k.republishLocked()
	k.log("key_minted", m)
	return Minted{m, text}, nil
}

func sign(ctx context.Context, signer identity.Signer, c Claims) (secret.Bytes, error) {
	payload, err := c.payload()
	if err != nil {
		return secret.Bytes{}, err
	}
	sig, err := signer.Sign(ctx, signature.SignedAccess.Digest(payload))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("signing the access key: %w", err)
	}
	return secret.Take(format(payload, sig)), nil
}

// newIDs returns the UUID of the metadata and the nonce of the token: 32 hex
// characters of another random UUID.
func (k *Keys) newIDs() (id, nonce string, err error) {
	var raw [32]byte
	if _, err := io.ReadFull(k.c.Rand, raw[:]); err != nil {
		return "", "", err
	}
	a, err := uuid.NewRandomFromReader(strings.NewReader(string(raw[:16])))
	if err != nil {
		return "", "", err
	}
	b, err := uuid.NewRandomFromReader(strings.NewReader(string(raw[16:])))
	if err != nil {
		return "", "", err
	}
	return strings.ToUpper(a.String()), strings.ReplaceAll(b.String(), "-", ""), nil
}

// cleanLabel trims and collapses white space.
func cleanLabel(s string) (string, error) {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) }) {
		return "", fault.WithText(fault.Usage, "a label must be plain text")
	}
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) > MaxLabel {
		return "", fault.WithText(fault.Usage, fmt.Sprintf("a label has at most %d characters", MaxLabel))
	}
	return s, nil
}

func (k *Keys) saveMetadataLocked(ctx context.Context, next []Metadata) error {
	if err := k.write(ctx, keyService, keyAccount, next); err != nil {
		return err
	}
	k.metadata = next
	return nil
}
