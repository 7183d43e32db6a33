package accesskey

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/fault"
)

// Revocation tells who lost access, after it is durable.
type Revocation struct {
	keys      map[keyID]bool
	issuer    address.Address // all keys of this issuer up to the counter
	notBefore bool            // every key issued before a time
}

// Matches reports whether a holds access that ended. It may match a little
// more than what ended when a whole issuer was revoked; its streams end too.
func (r Revocation) Matches(a Access) bool {
	return r.notBefore || r.keys[keyID{a.Issuer, a.Nonce}] || !r.issuer.IsZero() && a.Issuer == r.issuer
}

// OnRevoked registers f, which is called after each revocation is durable and
// in force. f must not call back into Keys.
func (k *Keys) OnRevoked(f func(Revocation)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.observers = append(k.observers, f)
}

// Revoke ends one key. It is durable and in force when it returns nil.
func (k *Keys) Revoke(ctx context.Context, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.indexLocked(id)
	if i < 0 {
		return fault.WithText(fault.Usage, "no access key has this id")
	}
	return k.revokeLocked(ctx, func(m Metadata) bool { return m.ID == k.metadata[i].ID })
}

// RevokeAudience ends every active key for one address and returns how many
// there were.
func (k *Keys) RevokeAudience(ctx context.Context, aud address.Address) (int, error) {
	return k.revokeWhere(ctx, func(m Metadata) bool { return m.Audience == aud })
}

// RevokeStale ends the active keys with these ids in one step.
func (k *Keys) RevokeStale(ctx context.Context, ids []string) (int, error) {
	return k.revokeWhere(ctx, func(m Metadata) bool { return slices.Contains(ids, m.ID) })
}

func (k *Keys) revokeWhere(ctx context.Context, match func(Metadata) bool) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, m := range k.metadata {
		if !m.Revoked && match(m) {
			n++
		}
	}
	if n == 0 {
		return 0, k.unreadable
	}
	return n, k.revokeLocked(ctx, match)
}

// RevokeIssuer ends every key of an issuer up to the present counter, also
// those this host has no record of.
func (k *Keys) RevokeIssuer(ctx context.Context, iss address.Address) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	counter, err := k.counterLocked(ctx)
	if err != nil {
		return err
	}
	for _, m := range k.metadata { // a restored keystore may have lost the counter
		if m.Issuer == iss {
			counter = max(counter, m.Counter)
		}
	}
	next := k.state.clone()
	next.thresholds[iss] = max(next.thresholds[iss], counter)
	return k.commitLocked(ctx, next, Revocation{issuer: iss})
}

// Remembers reports whether any revocation is stored. Where none is after a
// restore, keys that were revoked elsewhere would be taken again.
func (k *Keys) Remembers() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.state.revoked)+len(k.state.thresholds) > 0 || k.state.notBefore > 0
}

// RefuseBefore ends every key issued before t: the answer to a restore that
// brought no revocation data (decisions C15). Keys know whole seconds only, so
// those of the second that t is in end too; Mint dates a new one after it.
func (k *Keys) RefuseBefore(ctx context.Context, t time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	limit := t.Unix()
	if t.Nanosecond() > 0 {
		limit++
	}
	next := k.state.clone()
	next.notBefore = max(next.notBefore, limit)
	return k.commitLocked(ctx, next, Revocation{notBefore: true})
}

// Delete revokes a key and forgets its metadata.
func (k *Keys) Delete(ctx context.Context, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.deleteLocked(ctx, id)
}

func (k *Keys) deleteLocked(ctx context.Context, id string) error {
	i := k.indexLocked(id)
	if i < 0 {
		return fault.WithText(fault.Usage, "no access key has this id")
	}
	id = k.metadata[i].ID
	if err := k.revokeLocked(ctx, func(m Metadata) bool { return m.ID == id }); err != nil {
		return err
	}
	gone := k.metadata[i]
	if err := k.saveMetadataLocked(ctx, slices.Delete(slices.Clone(k.metadata), i, i+1)); err != nil {
		return err
	}
	k.republishLocked()
	k.log("key_deleted", gone)
	return nil
}

// Forget drops all metadata and the whitelist but keeps the revocations:
// Reset identity. Active keys of the old identity die with their audience.
func (k *Keys) Forget(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unreadable != nil {
		return errors.Join(errNoStore, k.unreadable)
	}
	if err := k.revokeLocked(ctx, func(Metadata) bool { return true }); err != nil {
		return err
	}
	if err := k.saveMetadataLocked(ctx, nil); err != nil {
		return err
	}
	k.republishLocked()
	k.c.Log("keys_forgotten")
	return nil
}

func (k *Keys) indexLocked(id string) int {
	return slices.IndexFunc(k.metadata, func(m Metadata) bool { return m.ID == id || m.Nonce == id })
}

// revokeLocked revokes by nonce every key that matches.
func (k *Keys) revokeLocked(ctx context.Context, match func(Metadata) bool) error {
	next, ended := k.state.clone(), map[keyID]bool{}
	for _, m := range k.metadata {
		if match(m) {
			id := keyID{m.Issuer, m.Nonce}
			next.revoked[id], ended[id] = true, true
		}
	}
	return k.commitLocked(ctx, next, Revocation{keys: ended})
}

// commitLocked makes a revocation durable, then in force, then known: the
// revocation first, so that a crash can only lose the flag, which opening
// restores.
func (k *Keys) commitLocked(ctx context.Context, next revocations, r Revocation) error {
	if k.unreadable != nil {
		return errors.Join(errNoStore, k.unreadable)
	}
	if err := k.write(ctx, revocationService, revocationAccount, next.wire()); err != nil {
		return err
	}
	k.state = next
	k.republishLocked()
	marked := slices.Clone(k.metadata)
	for i, m := range marked {
		if !m.Revoked && next.covers(m) {
			marked[i].Revoked = true
			k.log("key_revoked", m)
		}
	}
	if !r.issuer.IsZero() {
		k.c.Log("issuer_revoked", slog.String("issuer", r.issuer.String()))
	}
	if r.notBefore {
		k.c.Log("keys_refused_before", slog.Time("issuedBefore", time.Unix(next.notBefore, 0).UTC()))
	}
	for _, f := range k.observers {
		f(r)
	}
	return k.saveMetadataLocked(ctx, marked)
}

func (r revocations) clone() revocations {
	return revocations{maps.Clone(r.revoked), maps.Clone(r.thresholds), r.notBefore}
}

// Whitelist returns the external addresses that may issue keys.
func (k *Keys) Whitelist() []Trusted {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.white)
}

// Trust lets issuer sign keys for audience, or for all when it is zero.
func (k *Keys) Trust(ctx context.Context, audience, issuer address.Address) error {
	if issuer.IsZero() {
		return fault.WithText(fault.Usage, "the zero address cannot be trusted")
	}
	e := Trusted{Issuer: issuer, Audience: audience}
	return k.editWhitelist(ctx, "issuer_trusted", e, func(w whitelist) whitelist {
		if slices.Contains(w, e) {
			return w
		}
		return append(w, e)
	})
}

// Distrust takes back what Trust gave.
func (k *Keys) Distrust(ctx context.Context, audience, issuer address.Address) error {
	e := Trusted{Issuer: issuer, Audience: audience}
	return k.editWhitelist(ctx, "issuer_distrusted", e, func(w whitelist) whitelist {
		return slices.DeleteFunc(w, func(x Trusted) bool { return x == e })
	})
}

func (k *Keys) editWhitelist(ctx context.Context, event string, e Trusted, edit func(whitelist) whitelist) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unreadable != nil {
		return errors.Join(errNoStore, k.unreadable)
	}
	next := edit(slices.Clone(k.white))
	if slices.Equal(next, k.white) {
		return nil
	}
	if err := k.write(ctx, whitelistService, whitelistAccount, next); err != nil {
		return err
	}
	k.white = next
	k.republishLocked()
	k.c.Log(event, slog.String("issuer", e.Issuer.String()), slog.String("audience", e.Audience.String()))
	if event == "issuer_distrusted" {
		for _, f := range k.observers {
			f(Revocation{issuer: e.Issuer})
		}
	}
	return nil
}
