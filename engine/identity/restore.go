package identity

import (
	"context"
	"errors"
	"strings"

	"osaurus/engine/address"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// backupStamp is how a replaced master's account is dated (UTC).
const backupStamp = "20060102T150405.000000000Z"

// Restore makes the phrase's master this host's identity. stored are the
// agents on disk: a phrase that reproduces none of their addresses is refused
// with *ForeignPhraseError unless anyway is set. A replaced master is kept
// under a timestamped account until ConfirmReplacement.
func (a *Account) Restore(ctx context.Context, phrase secret.Bytes, stored []AgentRef, anyway bool) (address.Address, error) {
	master, err := ParsePhrase(phrase)
	if err != nil {
		return address.Address{}, err
	}
	defer master.Destroy()
	a.mu.Lock()
	defer a.mu.Unlock()
	r, err := a.record()
	if err != nil {
		return address.Address{}, err
	}
	own, err := belongs(master, stored, r.Address)
	if err != nil {
		return address.Address{}, err
	}
	if !own && !anyway {
		return address.Address{}, &ForeignPhraseError{Stored: r.Address, Phrase: master.Address()}
	}
	if err := a.confirmLocked(ctx, "restore the identity from its phrase"); err != nil {
		return address.Address{}, err
	}
	same, err := a.backupCurrent(ctx, master)
	if err != nil {
		return address.Address{}, err
	}
	if same && r.Address == master.Address() {
		return master.Address(), nil
	}
	if err := a.install(ctx, master); err != nil {
		return address.Address{}, err
	}
	// Who typed the phrase has it.
	r, err = a.record()
	if err != nil {
		return address.Address{}, err
	}
	r.Acknowledged = true
	return master.Address(), a.save(r)
}

// belongs decides whether master is this host's: it reproduces the address of
// at least one stored agent, or, where no agent has one, the address on
// record, if any.
func belongs(master MasterKey, stored []AgentRef, onRecord address.Address) (bool, error) {
	compared := false
	for _, s := range stored {
		if s.BuiltIn || s.Path == nil || s.Address.IsZero() {
			continue
		}
		got, err := addressAt(master, *s.Path)
		if err != nil {
			return false, err
		}
		if got == s.Address {
			return true, nil
		}
		compared = true
	}
	return !compared && (onRecord.IsZero() || onRecord == master.Address()), nil
}

// backupCurrent keeps the present master, if it is another one. Errors other
// than "none there" stop the restore: what cannot be read is not replaced.
func (a *Account) backupCurrent(ctx context.Context, next MasterKey) (same bool, err error) {
	old, err := a.c.Vault.Get(ctx, VaultService, VaultAccount)
	if errors.Is(err, fault.KeyNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer old.Destroy()
	if old.Equal(next.seed) {
		return true, nil
	}
	return false, a.c.Vault.Put(ctx, VaultService, backupAccount+a.c.Now().UTC().Format(backupStamp), old)
}

// ConfirmReplacement deletes the backups of replaced masters.
func (a *Account) ConfirmReplacement(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dropBackups(ctx)
}

func (a *Account) dropBackups(ctx context.Context) error {
	accounts, err := a.c.Vault.List(ctx, VaultService)
	if err != nil {
		return err
	}
	for _, name := range accounts {
		if strings.HasPrefix(name, backupAccount) {
			if err := a.c.Vault.Delete(ctx, VaultService, name); err != nil {
				return err
			}
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
	if err := a.dropBackups(ctx); err != nil {
		return err
	}
	if err := a.c.Vault.Delete(ctx, VaultService, VaultAccount); err != nil {
		return err
	}
	return atomicfile.Remove(a.recordPath())
}
