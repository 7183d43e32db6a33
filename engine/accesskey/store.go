package accesskey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// Where the stores stand in the keystore, PROTOCOL.md section 6.
const (
	keyService        = "com.osaurus.access-keys"
	keyAccount        = "key-metadata"
	counterAccount    = "counter"
	whitelistService  = "com.osaurus.whitelist"
	whitelistAccount  = "whitelist-data"
	revocationService = "com.osaurus.revocations"
	revocationAccount = "revocation-data"
)

// MaxKeys bounds the metadata kept; minting beyond asks to delete old keys.
const MaxKeys = 10_000

// revocations is the memory form of revocation-data.
type revocations struct {
	revoked    map[keyID]bool
	thresholds map[address.Address]uint64
	notBefore  int64
}

// wireRevocations is the JSON of revocation-data.
type wireRevocations struct {
	Revoked    []string          `json:"revoked"`    // "0xaddress:nonce", lower case
	Thresholds map[string]uint64 `json:"thresholds"` // issuer -> counter
	NotBefore  int64             `json:"notBefore,omitempty"`
}

// Trusted is an external address that may issue keys for one audience, or for
// all when Audience is zero.
type Trusted struct {
	Issuer   address.Address `json:"issuer"`
	Audience address.Address `json:"audience"`
}

type whitelist []Trusted

func (k *Keys) loadLocked(ctx context.Context) {
	k.unreadable = nil
	k.state = revocations{revoked: map[keyID]bool{}, thresholds: map[address.Address]uint64{}}
	var w wireRevocations
	err := errors.Join(
		k.read(ctx, revocationService, revocationAccount, &w),
		k.read(ctx, keyService, keyAccount, &k.metadata),
		k.read(ctx, whitelistService, whitelistAccount, &k.white),
		k.state.load(w),
	)
	if err != nil {
		k.unreadable = fmt.Errorf("access keys are refused: %w", err)
		k.metadata, k.white = nil, nil
		return
	}
	// The revocation is written before the flag, so a crash between the two
	// leaves a flag to catch up.
	for i, m := range k.metadata {
		k.metadata[i].Revoked = m.Revoked || k.state.covers(m)
	}
}

// read leaves v alone when there is no such item.
func (k *Keys) read(ctx context.Context, service, account string, v any) error {
	raw, err := k.c.Vault.Get(ctx, service, account)
	if errors.Is(err, fault.KeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", service, err)
	}
	defer raw.Destroy()
	if err := json.Unmarshal(raw.Expose(), v); err != nil {
		return fault.New(fault.StateCorrupt, fmt.Errorf("%s/%s does not parse", service, account))
	}
	return nil
}

func (k *Keys) write(ctx context.Context, service, account string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	value := secret.Take(raw)
	defer value.Destroy()
	return k.c.Vault.Put(ctx, service, account, value)
}

func (r *revocations) load(w wireRevocations) error {
	for _, line := range w.Revoked {
		iss, nonce, ok := strings.Cut(line, ":")
		a, err := address.Parse(iss)
		if !ok || err != nil {
			return fault.New(fault.StateCorrupt, errors.New("a revocation does not parse"))
		}
		r.revoked[keyID{a, nonce}] = true
	}
	for iss, limit := range w.Thresholds {
		a, err := address.Parse(iss)
		if err != nil {
			return fault.New(fault.StateCorrupt, errors.New("a revocation threshold does not parse"))
		}
		r.thresholds[a] = limit
	}
	r.notBefore = w.NotBefore
	return nil
}

func (r *revocations) wire() wireRevocations {
	w := wireRevocations{Revoked: []string{}, Thresholds: map[string]uint64{}, NotBefore: r.notBefore}
	for id := range r.revoked {
		w.Revoked = append(w.Revoked, id.issuer.Lower()+":"+id.nonce)
	}
	for iss, limit := range r.thresholds {
		w.Thresholds[iss.Lower()] = limit
	}
	return w
}

func (r *revocations) covers(m Metadata) bool {
	limit, ok := r.thresholds[m.Issuer]
	return r.revoked[keyID{m.Issuer, m.Nonce}] || ok && m.Counter <= limit || m.CreatedAt < r.notBefore
}

// nextCounterLocked returns a counter that is on disk before it is used, so a
// crash can skip one but never hand it out again.
func (k *Keys) nextCounterLocked(ctx context.Context) (uint64, error) {
	var last uint64
	raw, err := k.c.Vault.Get(ctx, keyService, counterAccount)
	switch {
	case err == nil:
		defer raw.Destroy()
		if last, err = strconv.ParseUint(string(raw.Expose()), 10, 64); err != nil {
			return 0, fault.New(fault.StateCorrupt, errors.New("the access-key counter does not parse"))
		}
	case !errors.Is(err, fault.KeyNotFound):
		return 0, err
	}
	for _, m := range k.metadata {
		last = max(last, m.Counter)
	}
	next := last + 1
	return next, k.c.Vault.Put(ctx, keyService, counterAccount, secret.New(strconv.AppendUint(nil, next, 10)))
}

// counterLocked returns the highest counter handed out.
func (k *Keys) counterLocked(ctx context.Context) (uint64, error) {
	raw, err := k.c.Vault.Get(ctx, keyService, counterAccount)
	if errors.Is(err, fault.KeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer raw.Destroy()
	return strconv.ParseUint(string(raw.Expose()), 10, 64)
}
