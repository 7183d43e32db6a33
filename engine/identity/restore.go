package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// backupAccount begins the account of a replaced master; a UTC time follows
// that sorts as text.
const (
	backupAccount = VaultAccount + ".backup-"
	backupStamp   = "20060102T150405.000000000Z"
)

// ForeignPhraseError says that a phrase belongs to another identity. Stored
// is zero when this host has agents but no master on record.
type ForeignPhraseError struct{ Stored, Phrase address.Address }

// Error shows both addresses.
func (e *ForeignPhraseError) Error() string {
	stored := "on this host is unknown"
	if !e.Stored.IsZero() {
		stored = "of this host is " + e.Stored.String()
	}
	return fmt.Sprintf("the phrase belongs to %s; the identity %s", e.Phrase, stored)
}

// Unwrap makes errors.Is find fault.ForeignPhrase.
func (e *ForeignPhraseError) Unwrap() error { return fault.ForeignPhrase }

// Restore makes the phrase's master this host's identity. stored are the
// agents on disk: a phrase that is neither the present master's nor reproduces
// the address of any of them is refused with *ForeignPhraseError unless anyway
// is set. A replaced master is kept under a dated account until
// ConfirmReplacement. Errors also: *PhraseError, the keystore's.
func (a *Account) Restore(ctx context.Context, phrase secret.Bytes, stored []AgentRef, anyway bool) (address.Address, error) {
	master, err := ParsePhrase(phrase)
	if err != nil {
		return address.Address{}, err
	}
	defer master.Destroy()
	a.mu.Lock()
	defer a.mu.Unlock()
	old, err := a.readLocked(ctx, "restore the identity from its phrase")
	if err != nil && !errors.Is(err, fault.NoMaster) {
		return address.Address{}, err // what cannot be read is not replaced
	}
	defer old.Destroy()
	r, err := a.record()
	if err != nil {
		return address.Address{}, err
	}
	present := addressOf(old, r.Address)
	if !anyway && !belongs(master, stored, present, a.Device().ID) {
		return address.Address{}, &ForeignPhraseError{Stored: present, Phrase: master.Address()}
	}
	if err := a.replace(ctx, old, master, r); err != nil {
		return address.Address{}, err
	}
	a.log("identity_restored", master.Address())
	return master.Address(), nil
}

// replace keeps the old master, then installs the new one. Who typed the
// phrase has it, so it counts as acknowledged.
func (a *Account) replace(ctx context.Context, old secret.Bytes, master MasterKey, r record) error {
	if old.Equal(master.seed) {
		if r.Address != master.Address() {
			r = record{Address: master.Address(), Created: a.c.Now().Unix()}
		}
		r.Acknowledged = true
		return a.save(r)
	}
	if !old.IsZero() {
		if err := a.backup(ctx, old); err != nil {
			return err
		}
	}
	return a.install(ctx, master, true)
}

// addressOf returns the address of a stored master, or what is on record when
// there is none to read it from.
func addressOf(seed secret.Bytes, onRecord address.Address) address.Address {
	master, err := NewMasterKey(seed)
	if err != nil {
		return onRecord
	}
	defer master.Destroy()
	return master.Address()
}

// belongs decides whether master is this host's: the present one, or one that
// reproduces the address of a stored agent; and anybody's where nothing is
// stored yet.
func belongs(master MasterKey, stored []AgentRef, present address.Address, scope string) bool {
	compared := false
	for _, s := range stored {
		if s.BuiltIn || s.Address.IsZero() {
			continue
		}
		compared = true
		if fit, _ := pathOf(master, s, scope); fit != nil {
			return true
		}
	}
	return present == master.Address() || !compared && present.IsZero()
}

// backup writes under an account that no earlier backup has.
func (a *Account) backup(ctx context.Context, old secret.Bytes) error {
	accounts, err := a.c.Vault.List(ctx, VaultService)
	if err != nil {
		return err
	}
	at := a.c.Now().UTC()
	for slices.Contains(accounts, backupAccount+at.Format(backupStamp)) {
		at = at.Add(time.Nanosecond)
	}
	return a.c.Vault.Put(ctx, VaultService, backupAccount+at.Format(backupStamp), old)
}

// ConfirmReplacement deletes the backups of replaced masters, once the present
// one has been read back.
func (a *Account) ConfirmReplacement(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	master, err := a.unlockLocked(ctx, "delete the replaced identity")
	if err != nil {
		return err
	}
	defer master.Destroy()
	if err := a.dropBackups(ctx); err != nil {
		return err
	}
	a.log("identity_replacement_confirmed", master.Address())
	return nil
}

// UndoReplacement brings the last replaced master back and returns its
// address. The one it displaces is not kept: its phrase was typed. Errors:
// fault.NoMaster when nothing was replaced.
func (a *Account) UndoReplacement(ctx context.Context) (address.Address, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	accounts, err := a.c.Vault.List(ctx, VaultService)
	if err != nil {
		return address.Address{}, err
	}
	kept := backups(accounts)
	if len(kept) == 0 {
		return address.Address{}, fault.WithText(fault.NoMaster, "no replaced identity is kept")
	}
	if err := a.confirmLocked(ctx, "bring the replaced identity back"); err != nil {
		return address.Address{}, err
	}
	last := kept[len(kept)-1]
	seed, err := a.c.Vault.Get(ctx, VaultService, last)
	if err != nil {
		return address.Address{}, err
	}
	defer seed.Destroy()
	master, err := NewMasterKey(seed)
	if err != nil {
		return address.Address{}, fault.New(fault.KeystoreCorrupt, err)
	}
	defer master.Destroy()
	if err := a.install(ctx, master, false); err != nil {
		return address.Address{}, err
	}
	a.log("identity_replacement_undone", master.Address())
	return master.Address(), a.c.Vault.Delete(ctx, VaultService, last)
}

func (a *Account) dropBackups(ctx context.Context) error {
	accounts, err := a.c.Vault.List(ctx, VaultService)
	if err != nil {
		return err
	}
	for _, name := range backups(accounts) {
		if err := a.c.Vault.Delete(ctx, VaultService, name); err != nil {
			return err
		}
	}
	return nil
}

// Reset deletes the master, its backups and the acknowledgement. The device
// and its counters stay. It can be repeated after a crash; the record goes
// last, so an interrupted reset shows as a missing key and not as none.
func (a *Account) Reset(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.confirmLocked(ctx, "delete the identity of this host"); err != nil {
		return err
	}
	gone := a.Address()
	if err := a.dropBackups(ctx); err != nil {
		return err
	}
	if err := a.c.Vault.Delete(ctx, VaultService, VaultAccount); err != nil {
		return err
	}
	if err := a.files.Remove(a.recordPath()); err != nil {
		return err
	}
	a.log("identity_reset", gone)
	return nil
}
