package storage

import (
	"osaurus/engine/fault"
	"osaurus/engine/storage/sqlcipher"
)

// Posture says how new databases are kept.
type Posture string

// The postures. Sealed files are sealed in both.
const (
	PostureEncrypted Posture = "encrypted"
	PosturePlaintext Posture = "plaintext"
)

// KeyState is what is known of the storage key.
type KeyState string

// The states of the key.
const (
	KeyReady   KeyState = "ready"
	KeyFresh   KeyState = "none"    // there is none and nothing needs one yet
	KeyLocked  KeyState = "locked"  // the keystore does not answer now
	KeyMissing KeyState = "missing" // the keystore has none but encrypted data exists
)

// IssueKind says why a store stays closed (storage.md section 11).
type IssueKind string

// The kinds of issues.
const (
	IssueLocked              IssueKind = "locked"
	IssueCorrupt             IssueKind = "corrupt"
	IssueMissing             IssueKind = "missing"
	IssueUnexpectedPlaintext IssueKind = "unexpected-plaintext"
	IssueUnsafePath          IssueKind = "unsafe-path"
	IssueMigration           IssueKind = "migration"
	IssueForwardVersion      IssueKind = "forwardVersion"
	IssueUnknown             IssueKind = "unknown"
)

func (k IssueKind) code() fault.Code {
	switch k {
	case IssueLocked:
		return fault.StorageLocked
	case IssueMissing:
		return fault.StoreMissing
	case IssueUnexpectedPlaintext:
		return fault.StorePlaintext
	case IssueUnsafePath:
		return fault.StoreUnsafePath
	case IssueForwardVersion:
		return fault.StoreForwardVersion
	case IssueCorrupt:
		return fault.StoreDamaged
	case IssueMigration, IssueUnknown:
	}
	return fault.Internal
}

// action is what opening a store comes to.
type action uint8

const (
	refuse        action = iota
	create               // a new file in the posture's format
	openPlain            // as it is
	openEncrypted        // with the key the row names, or any that fits
	encryptThen          // encrypt the plaintext file, then open it
	rekeyThen            // bring the file to the current key, then open it
)

// situation is all that the choice depends on (storage.md section 12,
// decisions D5).
type situation struct {
	posture  Posture
	key      KeyState
	format   sqlcipher.Format
	unsafe   bool // the path is no regular file of ours
	beside   bool // a log or a half-done copy lies beside a missing file
	recorded bool // there is a row, and its file was ready once
	sealed   bool // the row says encrypted
	rowKey   rowKey
	// trusted: the manifest verified, or nothing was ever recorded (first
	// start, tree of an older host). Otherwise plaintext may have been put
	// there by somebody else.
	trusted bool
}

// rowKey says what is known of the key a row names.
type rowKey uint8

const (
	rowKeyNone    rowKey = iota // no row, or of a plaintext file
	rowKeyCurrent               // the current key
	rowKeyOther                 // another key that the keystore still has
	rowKeyUnknown               // a key that nobody has
)

// decide is the opening table. The kind says why, when the action is refuse.
func decide(s situation) (action, IssueKind) {
	if s.unsafe {
		return refuse, IssueUnsafePath
	}
	switch s.format {
	case sqlcipher.Missing, sqlcipher.Empty:
		return decideMissing(s)
	case sqlcipher.Plaintext:
		return decidePlaintext(s)
	case sqlcipher.Encrypted, sqlcipher.Foreign:
		return decideEncrypted(s)
	}
	return refuse, IssueUnknown
}

func decideMissing(s situation) (action, IssueKind) {
	switch {
	case s.recorded || s.beside:
		return refuse, IssueMissing
	case s.posture == PosturePlaintext || s.key == KeyReady || s.key == KeyFresh:
		return create, ""
	}
	return refuse, IssueLocked
}

func decidePlaintext(s situation) (action, IssueKind) {
	switch {
	case s.recorded && s.sealed:
		return refuse, IssueUnexpectedPlaintext
	case s.posture == PosturePlaintext:
		return openPlain, ""
	case !s.trusted && (!s.recorded || s.key == KeyReady): // what a record without proof says is no reason
		return refuse, IssueUnexpectedPlaintext
	case s.key == KeyReady || s.key == KeyFresh:
		return encryptThen, ""
	}
	return openPlain, "" // a missing key never blocks a plaintext store
}

func decideEncrypted(s situation) (action, IssueKind) {
	switch {
	case s.key != KeyReady || s.rowKey == rowKeyUnknown:
		return refuse, IssueLocked
	case s.rowKey == rowKeyOther && s.format == sqlcipher.Encrypted:
		return rekeyThen, ""
	}
	return openEncrypted, ""
}
