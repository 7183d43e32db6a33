package storage

import (
	"context"
	"errors"
	"log/slog"

	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sqlcipher"
)

// Conversion is what Converge or SetPosture did.
type Conversion struct {
	Converted []ID
	Issues    []Issue // stores that stay as they are, and why
}

// Converge brings every plaintext store an older host left, and every one
// with an older key, to what the posture wants, with progress. Opening a store
// does the same for that store alone, so a run that is cut off loses nothing.
func (s *Storage) Converge(ctx context.Context, progress func(Progress)) (done Conversion, err error) {
	if s.Posture() != PostureEncrypted || !s.converges() {
		return done, nil
	}
	err = s.exclusive(ctx, "encrypt", func() error { return s.converge(ctx, progress, &done) })
	return done, err
}

// converges reports whether a store waits for Converge.
func (s *Storage) converges() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids, err := found(s.root)
	if err != nil {
		return false // opening each store tells why
	}
	for _, id := range ids {
		if sit, err := s.look(id); err == nil {
			if act, _ := decide(sit); act == encryptThen || act == rekeyThen {
				return true
			}
		}
	}
	return false
}

func (s *Storage) converge(ctx context.Context, progress func(Progress), done *Conversion) error {
	ids, err := found(s.root)
	if err != nil {
		return err
	}
	total := s.sizeOf(ids)
	r := newReport(progress, total)
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		size := s.sizeOf([]ID{id})
		converted, err := s.convergeStore(ctx, id, r.part(string(id), size))
		s.note(id, err)
		var issue Issue
		switch {
		case errors.As(err, &issue):
			done.Issues = append(done.Issues, issue)
		case err != nil:
			return err
		case converted:
			done.Converted = append(done.Converted, id)
		}
		r.finish(string(id), size)
	}
	return nil
}

func (s *Storage) sizeOf(ids []ID) int64 {
	var total int64
	for _, id := range ids {
		if info, err := disk.Regular(s.file(id.path())); err == nil {
			total += info.Size()
		}
	}
	return total
}

func (s *Storage) convergeStore(ctx context.Context, id ID, p sqlcipher.Progress) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sit, err := s.look(id)
	if err != nil {
		return false, Issue{id, IssueUnknown, err}
	}
	act, kind := decide(sit)
	var from dek.Key
	switch act {
	case refuse:
		return false, Issue{id, kind, s.keyError()}
	case rekeyThen:
		from = s.provedKey(id)
	case encryptThen:
	case create, openPlain, openEncrypted:
		return false, nil
	}
	if err := s.ensureKey(ctx); err != nil {
		return false, Issue{id, IssueLocked, err}
	}
	converts := from.ID() != s.keys[0].ID() // or only the record was wrong
	if converts {
		err = s.convert(ctx, id, from, s.keys[0], p)
	}
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		return false, Issue{id, issueOf(err, IssueMigration), err}
	}
	return converts, s.record(id, func(r *row) { r.Format, r.KeyID, r.State = PostureEncrypted, s.keys[0].ID(), rowReady })
}

// SetPosture changes how databases are kept, and brings those that exist to
// it. Turning to plaintext is the owner's explicit wish: the journal proves it
// with the key, so that a start after a crash may go on, and the record is
// changed last (decisions D4). Sealed files stay sealed in both.
func (s *Storage) SetPosture(ctx context.Context, to Posture, progress func(Progress)) (done Conversion, err error) {
	err = s.exclusive(ctx, string(to), func() error {
		if err := s.ready(ctx); err != nil {
			return err
		}
		if to == PostureEncrypted {
			s.mu.Lock()
			err := s.putPosture(ctx, to)
			s.mu.Unlock()
			if err != nil {
				return err
			}
			return s.converge(ctx, progress, &done)
		}
		return s.setPlain(ctx, progress, &done)
	})
	if err == nil {
		s.log("storage.posture", slog.String("mode", string(to)))
	}
	return done, err
}

func (s *Storage) setPlain(ctx context.Context, progress func(Progress), done *Conversion) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids, err := found(s.root)
	if err != nil {
		return err
	}
	key := s.keys[0]
	j := journal{V: journalVersion, ID: "plaintext-" + key.ID().String(), Kind: kindPosture, To: PosturePlaintext, OldKeyID: key.ID(), NewKeyID: key.ID(), Items: []item{}}
	for _, id := range ids {
		sit, err := s.look(id)
		if err != nil {
			return Issue{id, IssueUnknown, err}
		}
		act, kind := decide(sit)
		switch act {
		case refuse: // nothing is left behind half known
			return Issue{id, kind, s.keyError()}
		case openEncrypted, rekeyThen:
			j.Items = append(j.Items, item{Store: string(id), Path: id.path()})
			done.Converted = append(done.Converted, id)
		case create, openPlain, encryptThen:
		}
	}
	if err := s.roomFor(2 * s.sizeOf(ids)); err != nil {
		return err
	}
	err = s.putJournal(&j, phaseCommit, itemPending, key, key)
	if err == nil {
		err = s.turnPlain(ctx, j, progress)
	}
	if err == nil {
		err = s.dropJournal()
	}
	if err != nil {
		return s.unfinished(err)
	}
	return nil
}

// turnPlain decrypts what a journal lists. Every step may have been done
// already. The caller holds s.mu.
func (s *Storage) turnPlain(ctx context.Context, j journal, progress func(Progress)) error {
	ids := make([]ID, len(j.Items))
	for i, it := range j.Items {
		ids[i] = ID(it.Store)
	}
	r := newReport(progress, s.sizeOf(ids))
	for _, id := range ids {
		if id.path() == "" {
			return errJournal
		}
		size := s.sizeOf([]ID{id})
		if err := s.turnStorePlain(ctx, id, r.part(string(id), size)); err != nil {
			return err
		}
		r.finish(string(id), size)
	}
	return s.putPosture(ctx, PosturePlaintext)
}

func (s *Storage) turnStorePlain(ctx context.Context, id ID, p sqlcipher.Progress) error {
	switch format := s.detect(id); format {
	case sqlcipher.Encrypted:
		err := errNoKeyFits
		for _, key := range s.keys {
			if err = s.convert(ctx, id, key, dek.Key{}, p); !errors.Is(err, sqlcipher.ErrKey) {
				break
			}
		}
		if err != nil {
			return Issue{id, issueOf(err, IssueMigration), err}
		}
	case sqlcipher.Plaintext:
	default:
		return Issue{id, IssueCorrupt, nil}
	}
	return s.record(id, func(r *row) { r.Format, r.KeyID, r.State = PosturePlaintext, dek.ID{}, rowReady })
}
