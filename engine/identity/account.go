package identity

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

// Where the master stands in the keystore, PROTOCOL.md section 3.
const (
	VaultService  = "com.osaurus.account"
	VaultAccount  = "master-key"
	backupAccount = VaultAccount + ".backup-"
)

// PresenceReuse is how long one confirmation by the owner serves.
const PresenceReuse = 300 * time.Second

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
	DeviceName string
	Now        func() time.Time // nil means time.Now
	Rand       io.Reader        // nil means crypto/rand
}

// Account is the life of the master on this machine. It is safe for
// concurrent use.
type Account struct {
	c      AccountConfig
	device *deviceStore

	mu        sync.Mutex
	confirmed time.Time
}

// State says what is known of the master without asking the owner.
type State uint8

// The states. A locked keystore never looks like None.
const (
	invalidState State = iota
	None               // the keystore answered: there is no master
	Ready
	Locked  // the keystore cannot be read right now
	Missing // a master is on record, but the keystore has none
)

var stateNames = [...]string{"invalid", "none", "ready", "locked", "missing"}

// String returns the state in one lower-case word.
func (s State) String() string { return stateNames[s] }

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

// record is identity/account.json: what must show while the keystore is
// locked. It is a copy; the keystore decides.
type record struct {
	Version      int             `json:"version"`
	Address      address.Address `json:"address"`
	Created      int64           `json:"created"`
	Acknowledged bool            `json:"acknowledged"`
}

// Created is a new master, shown once. The caller destroys both secrets.
type Created struct {
	Address      address.Address
	Phrase       secret.Bytes
	RecoveryCode secret.Bytes
	At           time.Time
}

// ForeignPhraseError says that a phrase belongs to another identity.
type ForeignPhraseError struct{ Stored, Phrase address.Address }

// Error shows both addresses.
func (e *ForeignPhraseError) Error() string {
	return fmt.Sprintf("the phrase belongs to %s, this host's identity is %s", e.Phrase, e.Stored)
}

// Unwrap makes errors.Is find fault.ForeignPhrase.
func (e *ForeignPhraseError) Unwrap() error { return fault.ForeignPhrase }

// OpenAccount reads the device and prepares the account. It does not touch
// the master.
func OpenAccount(c AccountConfig) (*Account, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if err := atomicfile.MkdirAll(c.Dir); err != nil {
		return nil, err
	}
	device, err := openDevice(c.Dir, c.DeviceName, c.Rand)
	if err != nil {
		return nil, err
	}
	return &Account{c: c, device: device}, nil
}

// Device returns this machine's device.
func (a *Account) Device() Device {
	a.device.mu.Lock()
	defer a.device.mu.Unlock()
	return a.device.state.Device
}

// AllocateIndex returns an agent index that this device never used before and
// that is not below atLeast. It is on disk before it is returned.
func (a *Account) AllocateIndex(atLeast uint64) (uint32, error) { return a.device.nextIndex(atLeast) }

// Status reports the state without asking the owner.
func (a *Account) Status(ctx context.Context) (Status, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
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
	if err != nil {
		s.State, s.Err = Locked, err
		return s, nil
	}
	present := false
	for _, name := range accounts {
		present = present || name == VaultAccount
		s.Replaced = s.Replaced || strings.HasPrefix(name, backupAccount)
	}
	switch {
	case present:
		s.State = Ready
	case r.Address.IsZero():
		s.State = None
	default:
		s.State = Missing
	}
	return s, nil
}

// Generate creates the master. An existing one is never replaced:
// fault.MasterExists; and where its presence cannot be determined the
// keystore's error comes back and nothing changes.
func (a *Account) Generate(ctx context.Context) (Created, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch old, err := a.c.Vault.Get(ctx, VaultService, VaultAccount); {
	case err == nil:
		old.Destroy()
		return Created{}, fault.MasterExists
	case !errors.Is(err, fault.KeyNotFound):
		return Created{}, fmt.Errorf("cannot tell whether a master exists: %w", err)
	}
	if r, err := a.record(); err != nil {
		return Created{}, err
	} else if !r.Address.IsZero() {
		return Created{}, fault.WithText(fault.MasterExists, "an identity is on record but its key is missing from the keystore; restore it from the phrase or reset")
	}
	master, err := a.newMaster()
	if err != nil {
		return Created{}, err
	}
	defer master.Destroy()
	code, err := newRecoveryCode(a.c.Rand)
	if err != nil {
		return Created{}, err
	}
	phrase, err := master.Phrase()
	if err != nil {
		return Created{}, err
	}
	if err := a.install(ctx, master); err != nil {
		phrase.Destroy()
		code.Destroy()
		return Created{}, err
	}
	return Created{Address: master.Address(), Phrase: phrase, RecoveryCode: code, At: a.c.Now()}, nil
}

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

// install writes the key first, then the record: a crash between the two
// leaves a master that Unlock puts on record, unacknowledged.
func (a *Account) install(ctx context.Context, master MasterKey) error {
	if err := a.c.Vault.Put(ctx, VaultService, VaultAccount, master.seed); err != nil {
		return err
	}
	return a.save(record{Version: 1, Address: master.Address(), Created: a.c.Now().Unix()})
}

// Unlock returns the master after the owner confirmed. The caller destroys
// it. Errors: fault.NoMaster, the keystore's, the presence check's.
func (a *Account) Unlock(ctx context.Context, reason string) (MasterKey, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unlockLocked(ctx, reason)
}

func (a *Account) unlockLocked(ctx context.Context, reason string) (MasterKey, error) {
	if err := a.confirmLocked(ctx, reason); err != nil {
		return MasterKey{}, err
	}
	seed, err := a.c.Vault.Get(ctx, VaultService, VaultAccount)
	if errors.Is(err, fault.KeyNotFound) {
		return MasterKey{}, fault.NoMaster
	}
	if err != nil {
		return MasterKey{}, err
	}
	defer seed.Destroy()
	master, err := NewMasterKey(seed)
	if err != nil {
		return MasterKey{}, fault.New(fault.KeystoreCorrupt, err)
	}
	r, err := a.record()
	if err == nil && r.Address.IsZero() {
		err = a.save(record{Version: 1, Address: master.Address(), Created: a.c.Now().Unix()})
	}
	if err != nil {
		master.Destroy()
		return MasterKey{}, err
	}
	return master, nil
}

func (a *Account) confirmLocked(ctx context.Context, reason string) error {
	now := a.c.Now()
	if a.c.Presence == nil || !a.confirmed.IsZero() && now.Sub(a.confirmed) < PresenceReuse && !now.Before(a.confirmed) {
		return nil
	}
	if err := a.c.Presence.Confirm(ctx, reason); err != nil {
		return fault.New(fault.KeystoreDenied, err)
	}
	a.confirmed = now
	return nil
}

// Phrase returns the recovery phrase again, but only until the owner
// acknowledged that it is saved. The caller destroys it.
func (a *Account) Phrase(ctx context.Context) (secret.Bytes, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	master, err := a.unlockLocked(ctx, "show the recovery phrase")
	if err != nil {
		return secret.Bytes{}, err
	}
	defer master.Destroy()
	if r, err := a.record(); err != nil {
		return secret.Bytes{}, err
	} else if r.Acknowledged {
		return secret.Bytes{}, fault.WithText(fault.Usage, "the phrase was acknowledged as saved and is not shown again")
	}
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
	r.Acknowledged = true
	return a.save(r)
}

// record returns the zero record when there is none.
func (a *Account) record() (record, error) {
	raw, err := os.ReadFile(a.recordPath())
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil || r.Version != 1 {
		return record{}, fault.New(fault.StateCorrupt, fmt.Errorf("%s does not parse; move it away and restart to rebuild it from the keystore", a.recordPath()))
	}
	return r, nil
}

func (a *Account) save(r record) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(a.recordPath(), append(raw, '\n'))
}

func (a *Account) recordPath() string { return filepath.Join(a.c.Dir, "account.json") }
