package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/sealed"
	"osaurus/engine/storage/sqlcipher"
)

// rekeyed is what the copy of a file under the new key ends in until the
// rotation is committed.
const rekeyed = ".rekeyed"

// RotateOptions say where the new key comes from.
type RotateOptions struct {
	// Master, when set, derives the key from the identity's master key and a
	// fresh salt instead of drawing it (storage.md section 4).
	Master   secret.Bytes
	Progress func(Progress)
}

// Rotation is what a rotation did.
type Rotation struct {
	Old, New dek.ID
	Stores   int
	Files    int
	// Left are sealed files that no key at hand opens. They stay as they are.
	Left []string
}

// Rotate gives everything a new key (decisions D3): copies of all files are
// made and verified beside them, then put in their places. An error before
// that leaves everything as it was; a crash after it is finished at the next
// start. Stores that are locked stay locked; a damaged one refuses the
// rotation with its Issue.
func (s *Storage) Rotate(ctx context.Context, o RotateOptions) (done Rotation, err error) {
	err = s.exclusive(ctx, "rotate", func() error {
		if err := s.ready(ctx); err != nil {
			return err
		}
		r, err := s.planRotation()
		if err != nil {
			return err
		}
		r.report = newReport(o.Progress, r.total)
		return s.rotate(ctx, o, r, &done)
	})
	return done, err
}

// rotation is the work of one Rotate.
type rotation struct {
	stores   []rekey
	files    []sealedFile
	total    int64
	manifest manifest
	journal  journal
	from, to dek.Key
	report   *report
}

// rekey is one encrypted database and the key it has now.
type rekey struct {
	id   ID
	size int64
	key  dek.Key
}

func (s *Storage) planRotation() (*rotation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &rotation{from: s.keys[0], manifest: s.manifest}
	r.manifest.Stores = maps.Clone(s.manifest.Stores)
	ids, err := found(s.root)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		sit, err := s.look(id)
		if err != nil {
			return nil, Issue{id, IssueUnknown, err}
		}
		act, kind := decide(sit)
		switch {
		case act == refuse && kind == IssueLocked:
		case act == refuse:
			return nil, Issue{id, kind, nil}
		case act == openEncrypted || act == rekeyThen:
			key := s.provedKey(id)
			if key.IsZero() {
				key = s.keys[0]
			}
			_, size, err := sqlcipher.Detect(s.file(id.path()))
			if err != nil {
				return nil, Issue{id, IssueUnknown, err}
			}
			r.stores = append(r.stores, rekey{id, size, key})
			r.total += size
		}
	}
	files, err := s.sealedFiles()
	if err != nil {
		return nil, err
	}
	r.files = files
	for _, f := range files {
		if f.unsafe { // what is behind it would keep the old key, and nobody would know
			return nil, fault.WithText(fault.StoreUnsafePath, f.rel+" is no file or folder of this user with one name; nothing was changed")
		}
		r.total += f.size
	}
	return r, s.roomFor(r.total)
}

func (s *Storage) rotate(ctx context.Context, o RotateOptions, r *rotation, done *Rotation) (err error) {
	salt, err := s.newKey(o, r)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && !s.holds(r.to) {
			r.to.Destroy()
		}
	}()
	if err := s.vault.Stage(ctx, r.to); err != nil {
		return errors.Join(err, s.vault.Unstage(context.WithoutCancel(ctx)))
	}
	r.journal = journal{V: journalVersion, ID: fmt.Sprintf("%s-%s", r.from.ID(), r.to.ID()), Kind: kindRotate, To: s.Posture(), OldKeyID: r.from.ID(), NewKeyID: r.to.ID(), Items: []item{}}
	for _, st := range r.stores {
		r.journal.Items = append(r.journal.Items, item{Store: string(st.id), Path: st.id.path()})
	}
	for _, f := range r.files {
		r.journal.Items = append(r.journal.Items, item{Path: f.rel})
	}
	if salt != nil {
		r.journal.Items = append(r.journal.Items, item{Path: saltFile})
	}
	err = s.putJournal(&r.journal, phasePrepare, itemPending, r.from, r.to)
	if err == nil {
		err = s.rekeyAll(ctx, r, done)
	}
	if err == nil && salt != nil {
		err = s.disk.ReplaceBytes(s.file(saltFile)+rekeyed, salt)
	}
	if err == nil {
		err = s.vault.Retire(ctx, r.from)
	}
	if err == nil {
		err = s.putJournal(&r.journal, phaseCommit, itemCopied, r.from, r.to)
	}
	if err != nil {
		return errors.Join(err, s.afterFailure(context.WithoutCancel(ctx)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(slices.Clone(s.keys), r.to)
	if err := s.rollForward(context.WithoutCancel(ctx), r.journal); err != nil {
		return s.unfinished(err)
	}
	done.Old, done.New, done.Stores, done.Files = r.from.ID(), r.to.ID(), len(r.stores), len(r.files)-len(done.Left)
	s.log("storage.key_rotated", slog.String("oldKeyId", done.Old.String()), slog.String("newKeyId", done.New.String()))
	return nil
}

// newKey draws or derives the key to go to.
func (s *Storage) newKey(o RotateOptions, r *rotation) (salt []byte, err error) {
	if o.Master.IsZero() {
		r.to, err = dek.Generate(s.rand)
		return nil, err
	}
	random, err := secret.Random(s.rand, dek.SaltSize)
	if err != nil {
		return nil, err
	}
	defer random.Destroy()
	salt = slices.Clone(random.Expose())
	r.to, err = dek.Derive(o.Master, salt)
	return salt, err
}

// rekeyAll makes and verifies every copy, the manifest's too.
func (s *Storage) rekeyAll(ctx context.Context, r *rotation, done *Rotation) error {
	for _, st := range r.stores {
		path := s.file(st.id.path())
		src, dst := sqlcipher.File{Path: path, Key: st.key}, sqlcipher.File{Path: path + rekeyed, Key: r.to}
		if err := s.copyStore(ctx, src, dst, r.report.part(string(st.id), st.size)); err != nil {
			return Issue{st.id, issueOf(err, IssueUnknown), err}
		}
		row := r.manifest.Stores[st.id]
		if row.Path == "" {
			row = newRow(st.id, s.now())
		}
		row.Format, row.KeyID, row.State = PostureEncrypted, r.to.ID(), rowReady
		r.manifest.Stores[st.id] = row
		r.report.finish(string(st.id), st.size)
	}
	for _, f := range r.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		left, err := s.rekeyFile(f, r.to)
		if err != nil {
			return fmt.Errorf("%s: %w", f.rel, err)
		}
		if left {
			done.Left = append(done.Left, f.rel)
		}
		r.report.finish("files", f.size)
	}
	return r.manifest.write(s.disk, s.file(manifestFile)+rekeyed, r.to)
}

// rekeyFile seals a copy under another key; reading it back proves it. A file
// that does not open is left.
func (s *Storage) rekeyFile(f sealedFile, to dek.Key) (left bool, err error) {
	path := s.file(f.rel)
	pr, pw := io.Pipe()
	read := make(chan error, 1)
	go func() {
		_, _, err := sealed.CopyFile(pw, path, s.keys, f.label)
		_ = pw.CloseWithError(err) // never fails
		read <- err
	}()
	_, err = sealed.WriteFile(s.disk, path+rekeyed, to, f.label, pr)
	_ = pr.Close() // the copy ends, if it has not
	if unreadable := <-read; sealed.Refused(unreadable) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	_, _, err = sealed.CopyFile(io.Discard, path+rekeyed, sealed.Keys{to}, f.label)
	return false, err
}

// afterFailure undoes a rotation. A commit that failed on its way may stand on
// disk all the same; then it is taken back first.
func (s *Storage) afterFailure(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, err := s.readJournal()
	if err == nil && j.Phase == phaseCommit {
		if err := s.putJournal(&j, phasePrepare, itemPending, s.keys[0], s.keys[0]); err != nil {
			return s.unfinished(err)
		}
	}
	return errors.Join(s.rollBack(ctx), s.dropJournal())
}

// unfinished keeps everything closed until Prewarm has finished what is on
// disk: what was written meanwhile would be lost to it. The caller holds s.mu.
func (s *Storage) unfinished(err error) error {
	s.keyState, s.keyErr = KeyLocked, fmt.Errorf("an operation is not finished: %w", err)
	return s.keyErr
}

// holds reports whether k is one of the keys in use.
func (s *Storage) holds(k dek.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.keyByID(k.ID()).IsZero()
}

// rollBack removes what a rotation that was not committed left.
func (s *Storage) rollBack(ctx context.Context) error {
	return errors.Join(s.removeLeftovers(), s.vault.Unstage(ctx))
}

// rollForward finishes a committed rotation. Every step of it may have been
// done already. The caller holds s.mu, and s.keys has both keys.
func (s *Storage) rollForward(ctx context.Context, j journal) error {
	from, to := s.keyByID(j.OldKeyID), s.keyByID(j.NewKeyID)
	if from.IsZero() || to.IsZero() {
		s.keyState, s.keyErr = KeyLocked, errors.New("storage: a key of the unfinished rotation is not in the keystore")
		return nil
	}
	dirs := map[string]bool{}
	for _, it := range j.Items {
		path := s.file(it.Path)
		dirs[filepath.Dir(path)] = true
		if !exists(path+rekeyed) || !s.made(it, to) {
			continue // what is in its place keeps its key
		}
		if it.Store != "" {
			for _, side := range sqlcipher.Sidecars(path) {
				if err := s.disk.Remove(side); err != nil {
					return err
				}
			}
		}
		if err := s.disk.Rename(path+rekeyed, path); err != nil {
			return err
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if err := s.disk.SyncDir(dir); err != nil {
			return err
		}
	}
	if path := s.file(manifestFile); exists(path + rekeyed) {
		if err := errors.Join(s.disk.Rename(path+rekeyed, path), s.disk.SyncDir(s.root)); err != nil {
			return err
		}
	}
	if err := s.recordKeys(j, to); err != nil {
		return err
	}
	if err := s.settleSalt(ctx, j); err != nil {
		return err
	}
	if err := s.vault.Install(ctx, to); err != nil {
		return err
	}
	if err := s.vault.Unstage(ctx); err != nil {
		return err
	}
	if err := s.putJournal(&j, phaseDone, itemRenamed, from, to); err != nil {
		return err
	}
	s.keys = slices.Concat(sealed.Keys{to}, slices.DeleteFunc(slices.Clone(s.keys), func(k dek.Key) bool { return k.ID() == to.ID() }))
	s.loadRecords(ctx)
	return nil
}

// recordKeys puts on record which of the two keys each database of a rotation
// has, where that is not what the manifest says: a copy was gone.
func (s *Storage) recordKeys(j journal, to dek.Key) error {
	m, err := readManifest(s.file(manifestFile), s.keys)
	if err != nil {
		return nil //nolint:nilerr // it is made anew
	}
	changed := false
	for _, it := range j.Items {
		id := ID(it.Store)
		r, known := m.Stores[id]
		key := s.provingKey(id)
		if known && !key.IsZero() && key.ID() != r.KeyID {
			r.KeyID, changed = key.ID(), true
			m.Stores[id] = r
		}
	}
	if !changed {
		return nil
	}
	return m.write(s.disk, s.file(manifestFile), to)
}

// made reports whether the copy of it is what the rotation made: with the new
// key, by its beginning.
func (s *Storage) made(it item, to dek.Key) bool {
	copied := s.file(it.Path) + rekeyed
	switch {
	case it.Store != "":
		return sqlcipher.Proves(sqlcipher.File{Path: copied, Key: to})
	case it.Path == saltFile:
		return true
	}
	id, err := keyIDOf(copied)
	return err == nil && id == to.ID()
}

// settleSalt keeps the salt of a derived key in the keystore too, or forgets
// that of the key before. It is no secret.
func (s *Storage) settleSalt(ctx context.Context, j journal) error {
	if !slices.ContainsFunc(j.Items, func(it item) bool { return it.Path == saltFile }) {
		return errors.Join(s.vault.DropSalt(ctx), s.disk.Remove(s.file(saltFile)))
	}
	salt, err := readState(s.file(saltFile))
	if err != nil {
		return err
	}
	return s.vault.PutSalt(ctx, secret.New(salt))
}

func (s *Storage) keyByID(id dek.ID) dek.Key {
	for _, k := range s.keys {
		if k.ID() == id {
			return k
		}
	}
	return dek.Key{}
}
