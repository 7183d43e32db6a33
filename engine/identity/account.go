package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

// Vault is what identity needs of the keystore; keystore.Store satisfies it.
type Vault interface {
	Get(ctx context.Context, service, account string) (secret.Bytes, error)
	Put(ctx context.Context, service, account string, value secret.Bytes) error
	Delete(ctx context.Context, service, account string) error
	List(ctx context.Context, service string) ([]string, error)
}

// Presence asks the person at the machine to confirm (Touch ID, password).
type Presence interface {
	Confirm(ctx context.Context, reason string) error
}

// AccountConfig configures OpenAccount. Vault and Dir are required.
type AccountConfig struct {
	Vault      Vault
	Dir        string   // <home>/identity, created when missing
	Presence   Presence // nil: the keystore alone decides
	Hardware   Hardware // nil: a new device is a software one
	DeviceName string
	Now        func() time.Time                       // nil means time.Now
	Rand       io.Reader                              // nil means crypto/rand
	Log        func(event string, attrs ...slog.Attr) // nil drops events
}

// Account is the life of the master on this machine. It is safe for
// concurrent use; one change runs at a time, and Status, Address and Device
// never wait for the owner.
type Account struct {
	c      AccountConfig
	files  files
	device *deviceStore

	mu        sync.Mutex // held over a change, while the owner is asked too
	confirmed time.Time
}

// State says what is known of the master without asking the owner.
type State uint8

// The states. A keystore that cannot be read never looks like None.
const (
	invalidState State = iota
	None               // the keystore answered: there is no master
	Ready
	Locked  // the keystore cannot be read right now; Status.Err says why
	Missing // a master is on record, but the keystore has none
)

var stateNames = [...]string{"invalid", "none", "ready", "locked", "missing"}

// String returns the state in one lower-case word.
func (s State) String() string {
	if int(s) >= len(stateNames) {
		s = invalidState
	}
	return stateNames[s]
}

// Status is what shows without unlocking anything.
type Status struct {
	State        State
	Address      address.Address
	Created      time.Time
	Acknowledged bool  // the owner said that the phrase is saved
	Replaced     bool  // a replaced master is still kept as a backup
	Err          error // why State is Locked
	Device       Device
}

// Created is a new master, shown once. The caller destroys both secrets.
type Created struct {
	Address      address.Address
	Phrase       secret.Bytes
	RecoveryCode secret.Bytes
	At           time.Time
}

// OpenAccount reads the device and prepares the account. It does not touch
// the master.
func OpenAccount(c AccountConfig) (*Account, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = func(string, ...slog.Attr) {}
	}
	if err := atomicfile.MkdirAll(c.Dir); err != nil {
		return nil, err
	}
	a := &Account{c: c, files: disk{}}
	device, err := openDevice(a.files, c)
	if err != nil {
		return nil, err
	}
	a.device = device
	return a, nil
}

// Device returns this machine's device.
func (a *Account) Device() Device { return a.device.current() }

// AllocateIndex returns an agent index that this device never used before and
// that is not below atLeast. It is on disk as used before it is returned.
// Errors: ErrIndexesUsedUp.
func (a *Account) AllocateIndex(atLeast uint64) (uint32, error) { return a.device.nextIndex(atLeast) }

// Address returns the address on record, which shows without unlocking; zero
// when there is none or the record cannot be read.
func (a *Account) Address() address.Address {
	r, err := a.record()
	if err != nil {
		return address.Address{}
	}
	return r.Address
}

// Status reports the state without asking the owner.
func (a *Account) Status(ctx context.Context) (Status, error) {
	s := Status{Device: a.Device()}
	r, err := a.record()
	if err != nil {
		return s, err
	}
	s.Address, s.Acknowledged = r.Address, r.Acknowledged
	if r.Created != 0 {
		s.Created = time.Unix(r.Created, 0)
	}
	accounts, err := a.c.Vault.List(ctx, VaultService)
	switch {
	case err != nil:
		s.State, s.Err = Locked, err
	case slices.Contains(accounts, VaultAccount):
		s.State = Ready
	case r.Address.IsZero():
		s.State = None
	default:
		s.State = Missing
	}
	s.Replaced = len(backups(accounts)) > 0
	return s, nil
}

// Generate creates the master. An existing one is never replaced:
// fault.MasterExists; and where its presence cannot be determined the
// keystore's error comes back and nothing changes.
func (a *Account) Generate(ctx context.Context) (Created, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.absentLocked(ctx); err != nil {
		return Created{}, err
	}
	master, err := a.newMaster()
	if err != nil {
		return Created{}, err
	}
	defer master.Destroy()
	made := Created{Address: master.Address(), At: a.c.Now()}
	if made.RecoveryCode, err = newRecoveryCode(a.c.Rand); err != nil {
		return Created{}, err
	}
	if made.Phrase, err = master.Phrase(); err == nil {
		err = a.install(ctx, master, false)
	}
	if err != nil {
		made.Phrase.Destroy()
		made.RecoveryCode.Destroy()
		return Created{}, err
	}
	a.log("identity_created", made.Address)
	return made, nil
}

// absentLocked returns nil only when it is certain that there is no master:
// the list has none, reading it finds none, and none is on record.
func (a *Account) absentLocked(ctx context.Context) error {
	accounts, err := a.c.Vault.List(ctx, VaultService)
	if err != nil {
		return fmt.Errorf("cannot tell whether a master exists: %w", err)
	}
	if slices.Contains(accounts, VaultAccount) {
		return fault.MasterExists
	}
	switch old, err := a.c.Vault.Get(ctx, VaultService, VaultAccount); {
	case err == nil:
		old.Destroy()
		return fault.MasterExists
	case !errors.Is(err, fault.KeyNotFound):
		return fmt.Errorf("cannot tell whether a master exists: %w", err)
	}
	r, err := a.record()
	if err == nil && !r.Address.IsZero() {
		err = fault.WithText(fault.MasterExists, missingText)
	}
	return err
}

const missingText = "an identity is on record but its key is missing from the keystore; restore it from the phrase, or reset"

// newMaster draws scalars until one is valid.
func (a *Account) newMaster() (MasterKey, error) {
	for {
		seed, err := secret.Random(a.c.Rand, signature.ScalarSize)
		if err != nil {
			return MasterKey{}, err
		}
		master, err := NewMasterKey(seed)
		seed.Destroy()
		if err == nil {
			return master, nil
		}
	}
}

// install writes the key first, then the record: after a crash between the
// two, Unlock puts the key on record.
func (a *Account) install(ctx context.Context, master MasterKey, acknowledged bool) error {
	if err := a.c.Vault.Put(ctx, VaultService, VaultAccount, master.seed); err != nil {
		return err
	}
	return a.save(record{Address: master.Address(), Created: a.c.Now().Unix(), Acknowledged: acknowledged})
}

// Unlock returns the master after the owner confirmed. The caller destroys
// it. Errors: fault.NoMaster, fault.KeystoreDenied, the keystore's.
func (a *Account) Unlock(ctx context.Context, reason string) (MasterKey, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unlockLocked(ctx, reason)
}

func (a *Account) unlockLocked(ctx context.Context, reason string) (MasterKey, error) {
	seed, err := a.readLocked(ctx, reason)
	if err != nil {
		return MasterKey{}, err
	}
	defer seed.Destroy()
	master, err := NewMasterKey(seed)
	if err != nil {
		return MasterKey{}, fault.New(fault.KeystoreCorrupt, err)
	}
	r, err := a.record()
	if err == nil && r.Address != master.Address() {
		err = a.save(record{Address: master.Address(), Created: a.c.Now().Unix()})
	}
	if err != nil {
		master.Destroy()
		return MasterKey{}, err
	}
	return master, nil
}

// readLocked returns the stored master as it is. Errors: fault.NoMaster when
// there certainly is none.
func (a *Account) readLocked(ctx context.Context, reason string) (secret.Bytes, error) {
	accounts, err := a.c.Vault.List(ctx, VaultService)
	if err != nil {
		return secret.Bytes{}, err
	}
	if !slices.Contains(accounts, VaultAccount) {
		if !a.Address().IsZero() {
			return secret.Bytes{}, fault.WithText(fault.NoMaster, missingText)
		}
		return secret.Bytes{}, fault.NoMaster
	}
	if err := a.confirmLocked(ctx, reason); err != nil {
		return secret.Bytes{}, err
	}
	return a.c.Vault.Get(ctx, VaultService, VaultAccount)
}

// Confirm asks the owner, unless a confirmation still serves. Errors:
// fault.KeystoreDenied.
func (a *Account) Confirm(ctx context.Context, reason string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.confirmLocked(ctx, reason)
}

func (a *Account) confirmLocked(ctx context.Context, reason string) error {
	now := a.c.Now()
	age := now.Sub(a.confirmed)
	if a.c.Presence == nil || !a.confirmed.IsZero() && age >= 0 && age < PresenceReuse {
		return nil
	}
	if err := a.c.Presence.Confirm(ctx, reason); err != nil {
		return fault.New(fault.KeystoreDenied, err)
	}
	a.confirmed = now
	return nil
}

// Lock ends the time in which a confirmation serves again.
func (a *Account) Lock() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.confirmed = time.Time{}
}

// Phrase returns the recovery phrase again, but only until the owner
// acknowledged that it is saved. The caller destroys it.
func (a *Account) Phrase(ctx context.Context) (secret.Bytes, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r, err := a.record(); err != nil {
		return secret.Bytes{}, err
	} else if r.Acknowledged {
		return secret.Bytes{}, fault.WithText(fault.Usage, "the phrase was acknowledged as saved and is not shown again")
	}
	master, err := a.unlockLocked(ctx, "show the recovery phrase")
	if err != nil {
		return secret.Bytes{}, err
	}
	defer master.Destroy()
	return master.Phrase()
}

// Acknowledge records that the owner saved the phrase.
func (a *Account) Acknowledge(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, err := a.record()
	if err != nil {
		return err
	}
	if r.Address.IsZero() {
		return fault.NoMaster
	}
	if r.Acknowledged {
		return nil
	}
	r.Acknowledged = true
	if err := a.save(r); err != nil {
		return err
	}
	a.log("phrase_acknowledged", r.Address)
	return nil
}

func (a *Account) log(event string, addr address.Address) {
	a.c.Log(event, slog.String("address", addr.String()))
}

// backups returns the accounts of replaced masters, oldest first.
func backups(accounts []string) []string {
	var found []string
	for _, name := range accounts {
		if strings.HasPrefix(name, backupAccount) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}
