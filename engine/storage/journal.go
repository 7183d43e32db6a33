package storage

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path/filepath"

	"osaurus/engine/internal/canonjson"
	"osaurus/engine/secret"
	"osaurus/engine/storage/dek"
)

// The kinds and phases of the journal (decisions D2).
const (
	kindPosture = "posture"
	kindRotate  = "rotate"
	kindImport  = "import"

	phasePrepare = "prepare" // nothing has changed: roll back
	phaseCommit  = "commit"  // go forward
	phaseDone    = "done"
)

// The states of an item. They are written with each phase; in between the
// files themselves tell.
const (
	itemPending = "pending"
	itemCopied  = "copied"
	itemRenamed = "renamed"
)

// item is a file that an operation replaces.
type item struct {
	Store string `json:"store"` // an ID, or "" for a sealed file
	Path  string `json:"path"`  // below the root, with slashes
	State string `json:"state"`
}

// journal is the record of an operation over more than one file. Its MACs
// prove that the one who asked had the key, so that a file put there by
// somebody else moves nothing.
type journal struct {
	V        int     `json:"v"`
	ID       string  `json:"id"`
	Kind     string  `json:"kind"`
	To       Posture `json:"to"`
	Phase    string  `json:"phase"`
	OldKeyID dek.ID  `json:"old_key_id"`
	NewKeyID dek.ID  `json:"new_key_id"`
	Items    []item  `json:"items"`
	MACOld   string  `json:"mac_old,omitempty"`
	MACNew   string  `json:"mac_new,omitempty"`
}

const journalVersion = 1

// maxJournal bounds the journal, in bytes: some 400,000 files.
const maxJournal = 64 << 20

// errJournal says that the journal is there and proves nothing.
var errJournal = errors.New("storage: the journal of an operation does not verify")

func (j journal) mac(key dek.Key) (string, error) {
	text, err := canonjson.Marshal(j)
	if err != nil {
		return "", err
	}
	return journalMAC(text, key)
}

func journalMAC(text []byte, key dek.Key) (string, error) {
	macKey := key.Journal()
	defer macKey.Destroy()
	return macOf(text, macKey, "mac_old", "mac_new")
}

// macOf authenticates all that text, a JSON object, says beside the MACs: what
// a newer host put into it too.
func macOf(text []byte, key secret.Bytes, macs ...string) (string, error) {
	var members map[string]json.RawMessage
	if err := canonjson.Unmarshal(text, &members); err != nil {
		return "", err
	}
	for _, name := range macs {
		delete(members, name)
	}
	signed, err := canonjson.Marshal(members)
	if err != nil {
		return "", err
	}
	h := hmac.New(sha256.New, key.Expose())
	h.Write(signed)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// putJournal makes j durable in a phase, with every item in a state.
func (s *Storage) putJournal(j *journal, phase, state string, from, to dek.Key) (err error) {
	j.Phase = phase
	for i := range j.Items {
		j.Items[i].State = state
	}
	if j.MACOld, err = j.mac(from); err != nil {
		return err
	}
	if j.MACNew, err = j.mac(to); err != nil {
		return err
	}
	text, err := canonjson.Marshal(j)
	if err != nil {
		return err
	}
	return s.disk.ReplaceBytes(s.file(journalFile), text)
}

// readJournal returns the journal if a key at hand proves it: fs.ErrNotExist
// or errJournal otherwise.
func (s *Storage) readJournal() (journal, error) {
	text, err := readBounded(s.file(journalFile), maxJournal)
	if err != nil {
		return journal{}, err
	}
	var j journal
	if err := canonjson.Unmarshal(text, &j); err != nil || j.V != journalVersion {
		return journal{}, errJournal
	}
	for _, it := range j.Items {
		if !filepath.IsLocal(filepath.FromSlash(it.Path)) {
			return journal{}, errJournal
		}
	}
	for _, key := range s.keys {
		want, err := journalMAC(text, key)
		if err != nil {
			return journal{}, err
		}
		if hmac.Equal([]byte(want), []byte(j.MACOld)) || hmac.Equal([]byte(want), []byte(j.MACNew)) {
			return j, nil
		}
	}
	return journal{}, errJournal
}

func (s *Storage) dropJournal() error {
	if err := s.disk.Remove(s.file(journalFile)); err != nil {
		return err
	}
	return s.disk.SyncDir(s.root)
}

// resume brings an operation that was cut off to an end: back if nothing was
// committed, forward if it was. The caller holds s.mu and has the keys.
func (s *Storage) resume(ctx context.Context) error {
	if s.keyState != KeyReady {
		return nil // without keys nothing moves
	}
	j, err := s.readJournal()
	switch {
	case missing(err):
		return s.sweep(ctx)
	case errors.Is(err, errJournal):
		s.log("storage.journal_refused")
		return errors.Join(s.sweep(ctx), s.dropJournal())
	case err != nil:
		return err
	}
	switch {
	case j.Kind == kindRotate && j.Phase == phasePrepare:
		err = s.rollBack(ctx)
	case j.Kind == kindRotate && j.Phase == phaseCommit:
		return s.rollForward(ctx, j)
	case j.Kind == kindPosture && j.To == PosturePlaintext && j.Phase == phaseCommit:
		err = s.turnPlain(ctx, j, nil)
	case j.Kind == kindImport && j.Phase == phaseCommit:
		err = s.resumeImport(j)
	case j.Phase == phaseDone:
		err = s.prune(ctx)
	}
	if err != nil {
		return err
	}
	return errors.Join(s.dropJournal(), s.sweep(ctx))
}
