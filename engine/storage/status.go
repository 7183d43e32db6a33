package storage

import (
	"context"
	"errors"
	"slices"

	"osaurus/engine/keystore"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/sqlcipher"
)

// Status is what people may know of the stores (decisions D25).
type Status struct {
	Posture   Posture       `json:"posture"`
	Key       KeyStatus     `json:"key"`
	Operation string        `json:"operation,omitempty"` // what keeps every store closed now
	Stores    []StoreStatus `json:"stores"`
}

// KeyStatus is the storage key without the key.
type KeyStatus struct {
	State    KeyState `json:"state"`
	ID       string   `json:"id,omitempty"`
	Keystore string   `json:"keystore"` // how strong the keystore is (decisions D10)
	Next     string   `json:"next,omitempty"`
}

// The states of a store in a Status.
const (
	StateNew      = "new"      // nothing was stored yet
	StateReady    = "ready"    // opens
	StateConverts = "converts" // is encrypted, or given the present key, at its next use
	StateRefused  = "refused"  // stays closed; the issue says why
)

// StoreStatus is one store. Next is what its owner can type.
type StoreStatus struct {
	ID     ID        `json:"id"`
	Path   string    `json:"path"`
	Bytes  int64     `json:"bytes"`
	Format string    `json:"format"`
	State  string    `json:"state"`
	Issue  IssueKind `json:"issue,omitempty"`
	Next   string    `json:"next,omitempty"`
}

// Probe opens every store that should open as it is, and every record, so that
// Status knows those that do not. While an operation runs it does nothing.
func (s *Storage) Probe(ctx context.Context) error {
	if s.gate.shutOrShutting() {
		return nil
	}
	s.mu.Lock()
	ids, err := found(s.root)
	ids = slices.DeleteFunc(ids, func(id ID) bool {
		sit, err := s.look(id)
		act, _ := decide(sit)
		return s.isOpen(id) || err != nil || act != openEncrypted && act != openPlain
	})
	s.mu.Unlock()
	err = errors.Join(err, s.probeRecords())
	for _, id := range ids {
		var issue Issue
		if e := s.try(ctx, id); e != nil && !errors.As(e, &issue) { // an issue is noted
			err = errors.Join(err, e)
		}
	}
	return err
}

// Status looks at every store without opening any. While an operation runs it
// is what was before it.
func (s *Storage) Status() (Status, error) {
	if before := s.running.Load(); before != nil {
		return *before, nil
	}
	key := s.Key()
	out := Status{Posture: s.Posture(), Key: KeyStatus{State: key.State, Keystore: key.Keystore.String()}, Stores: []StoreStatus{}}
	if key.ID != (dek.ID{}) {
		out.Key.ID = key.ID.String()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Key.Next = s.nextForKey()
	ids, err := s.known()
	if err != nil {
		return Status{}, err
	}
	for _, id := range ids {
		out.Stores = append(out.Stores, s.statusOf(id))
	}
	out.Stores = append(out.Stores, s.statusOfRecords()...)
	return out, nil
}

// known lists the stores that exist once and all others that are on disk or on
// record, sorted. The caller holds s.mu.
func (s *Storage) known() ([]ID, error) {
	ids, err := found(s.root)
	if err != nil {
		return nil, err
	}
	for id := range corePaths {
		ids = append(ids, id)
	}
	for id, r := range s.manifest.Stores {
		if id.path() != "" && r.State == rowReady {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func (s *Storage) statusOf(id ID) StoreStatus {
	st := StoreStatus{ID: id, Path: id.path(), State: StateReady}
	sit, err := s.look(id)
	st.Bytes = s.sizeOf([]ID{id})
	st.Format = sit.format.String()
	act, kind := decide(sit)
	switch {
	case err != nil:
		act, kind = refuse, IssueUnknown
	case s.issues[id].Kind != "" && act != create:
		act, kind = refuse, s.issues[id].Kind
	}
	switch act {
	case create:
		st.State = StateNew
	case encryptThen, rekeyThen:
		st.State, st.Next = StateConverts, "osaurus storage encrypt"
	case refuse:
		st.State, st.Issue, st.Next = StateRefused, kind, kind.next(id, s.nextForKey())
	case openPlain, openEncrypted:
	}
	return st
}

// nextForKey is the command that helps with a key that is not at hand. The
// caller holds s.mu.
func (s *Storage) nextForKey() string {
	switch s.keyState {
	case KeyLocked:
		return nextUnlocked(s.vault.Store.Strength())
	case KeyMissing:
		if exists(s.file(saltFile)) { // the identity gives it again
			return "osaurus storage recover --from-identity"
		}
		return "bring back " + keystoreName + ", then: osaurus storage recover --retry; if it is lost for good: osaurus storage recover --start-over"
	case KeyReady, KeyFresh:
	}
	return ""
}

// nextUnlocked is how the owner gets at a locked keystore of a kind.
func nextUnlocked(kind keystore.Strength) string {
	if kind == keystore.Passphrase {
		return "osaurus storage recover --retry --passphrase-fd 0"
	}
	return "unlock the keyring or keychain of this login, then: osaurus storage recover --retry"
}

// keystoreName is how people are told of the keystore.
const keystoreName = "the keystore this home was made with"

// Explain says in plain words what is the matter with the key.
func (k KeyState) Explain() string {
	switch k {
	case KeyLocked:
		return "The keystore does not answer now. What is stored stays closed until it does."
	case KeyMissing:
		return "Encrypted data is here, but the keystore has no key for it. Nothing is written, so that nothing is lost."
	case KeyReady, KeyFresh:
	}
	return ""
}

// Waits reports whether the store is closed only because there is no key: it
// holds nothing yet.
func (st StoreStatus) Waits() bool {
	empty := st.Format == sqlcipher.Missing.String() || st.Format == sqlcipher.Empty.String()
	return st.Issue == IssueLocked && empty
}

// Record reports whether it is a record, which is a sealed file, and no
// database.
func (st StoreStatus) Record() bool { return st.ID.path() == "" }

// Explain says in plain words what is the matter.
func (st StoreStatus) Explain() string {
	switch {
	case st.Waits():
		return "It holds nothing yet; it starts when the key is back."
	case st.State == StateConverts && st.Format == sqlcipher.Plaintext.String():
		return "An older host left it in plaintext. It is encrypted at its next use."
	case st.State == StateConverts:
		return "It has an older key. It gets the present one at its next use."
	case st.Record() && st.Issue != IssueLocked:
		return "It does not open, or does not parse. Nothing was changed in it; until it is set aside, what it lists counts for nothing."
	}
	return st.Issue.Explain()
}

// Explain says in plain words what is the matter.
func (k IssueKind) Explain() string {
	switch k {
	case IssueLocked:
		return "It is encrypted with a key that is not at hand."
	case IssueCorrupt:
		return "It does not open with its key, or is no database. Nothing was changed in it."
	case IssueMissing:
		return "It is on record, but its file is gone."
	case IssueUnexpectedPlaintext:
		return "It was encrypted, and now a plaintext file lies in its place."
	case IssueUnsafePath:
		return "Its path is a link, a folder, or another person's file."
	case IssueForwardVersion:
		return "It was written by a newer version."
	case IssueMigration:
		return "It could not be brought to this version. Nothing was lost; there may be too little room on the disk."
	case IssueUnknown:
	}
	return "It could not be opened."
}

// next is the command that helps. Nothing that could lose data is named
// before what cannot; forKey, if any, brings the key back.
func (k IssueKind) next(id ID, forKey string) string {
	switch k {
	case IssueLocked, IssueCorrupt, IssueMissing:
		if forKey != "" {
			return forKey
		}
	case IssueUnexpectedPlaintext, IssueUnsafePath, IssueForwardVersion, IssueMigration, IssueUnknown:
	}
	switch k {
	case IssueLocked:
		return "osaurus storage recover " + string(id) + " --retry"
	case IssueUnexpectedPlaintext:
		return "osaurus storage recover " + string(id) + " --accept (if you put it there), or --reset"
	case IssueForwardVersion:
		return "use the newer version this store was written by"
	case IssueUnsafePath:
		return "put a regular file of your own at its path"
	case IssueCorrupt, IssueMissing:
		return "osaurus storage import BACKUP, or: osaurus storage recover " + string(id) + " --reset"
	case IssueMigration, IssueUnknown:
	}
	return "osaurus storage recover " + string(id) + " --retry"
}
