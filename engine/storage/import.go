package storage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"osaurus/engine/storage/archive"
	"osaurus/engine/storage/blob"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sealed"
	"osaurus/engine/storage/sqlcipher"
)

// imported is what a file from an export ends in until the import is
// committed.
const imported = ".imported"

// The records that are sealed (decisions D7): files, and folders of files.
var (
	sealedPaths = []string{"identity/owner-devices.json", "identity/peers.json", "tasks.json"}
	sealedDirs  = []string{"agent-invites", "providers"}
)

// newestSchema is the version of each store that this program writes
// (decisions D6). A newer history of chats opens all the same.
var newestSchema = map[ID]int64{Memory: 9, Methods: 1, ToolIndex: 2, Scheduler: 1}

const newestAgentSchema = 1

// ImportOptions say what is imported.
type ImportOptions struct {
	Source   *archive.Source
	Partial  bool // take an export that says it is not complete
	Progress func(Progress)
}

// Imported is what an import put in place.
type Imported struct {
	Stores   []ID
	Blobs    int
	Files    int
	Replaced []string       // folders of the quarantine with what was there before
	Missing  []archive.Item // what the export did not hold
}

// Import puts a whole export in place of what there is (decisions D8): every
// file is read and compared with its hash before anything is written, copied
// encrypted beside its place and verified, and only then do all take their
// places; what they replace is set aside. An error before that leaves
// everything as it was, a crash after it is finished at the next start.
func (s *Storage) Import(ctx context.Context, o ImportOptions) (done Imported, err error) {
	size, err := o.Source.Size()
	if err != nil {
		return done, err
	}
	reading := newReport(o.Progress, 2*size)
	m, err := o.Source.Verify(ctx, func(n int64) { reading.to(Progress{"reading", min(n, size), 2 * size}) })
	if err != nil {
		return done, err
	}
	if done.Missing = m.Failed(); !m.Complete && !o.Partial {
		return done, archive.ErrIncomplete
	}
	err = s.exclusive(ctx, "import", func() error {
		if err := s.ready(ctx); err != nil {
			return err
		}
		i := &importing{s: s, ctx: ctx, done: &done, report: newReport(o.Progress, 2*size), key: s.importKey()}
		i.report.done = size
		if err := i.plan(m); err != nil {
			return err
		}
		return i.run(o.Source)
	})
	if err == nil {
		s.log("storage.imported", slog.Int("stores", len(done.Stores)), slog.Int("files", done.Files), slog.Int("attachments", done.Blobs))
	}
	return done, err
}

// importKey is what databases are encrypted with; none in plaintext posture.
func (s *Storage) importKey() dek.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.posture == PosturePlaintext {
		return dek.Key{}
	}
	return s.keys[0]
}

// importing is one run of Import.
type importing struct {
	s       *Storage
	ctx     context.Context
	key     dek.Key
	journal journal
	blobs   []blob.Hash // that were not there before
	report  *report
	done    *Imported
}

// plan refuses what has no place here and lists the files to be replaced.
func (i *importing) plan(m archive.Manifest) error {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	id := i.s.keys[0].ID()
	i.journal = journal{V: journalVersion, ID: "import-" + m.Created.UTC().Format("20060102T150405Z"), Kind: kindImport, To: i.s.posture, OldKeyID: id, NewKeyID: id, Items: []item{}}
	var total, largest int64
	for _, it := range m.Items {
		if it.Error != "" {
			continue
		}
		total += it.Bytes
		switch it.Kind {
		case archive.Database:
			if err := i.s.fits(it); err != nil {
				return err
			}
			largest = max(largest, it.Bytes)
			i.journal.Items = append(i.journal.Items, item{Store: it.Store, Path: it.Rel()})
		case archive.Config:
			place, _, ok := placeOf(it.Rel())
			if !ok {
				return fmt.Errorf("%w: %s has no place here", archive.ErrNotExport, it.Path)
			}
			if err := i.s.unlinked(place); err != nil {
				return err
			}
			i.journal.Items = append(i.journal.Items, item{Path: place})
		case archive.Blob:
		}
	}
	return i.s.roomFor(total + largest)
}

// fits refuses a database of no store, of a newer version, or whose place is
// not safe. The caller holds s.mu.
func (s *Storage) fits(it archive.Item) error {
	id := ID(it.Store)
	if id.path() == "" || id.path() != it.Rel() {
		return fmt.Errorf("%w: %s is the database of no store", archive.ErrNotExport, it.Path)
	}
	newest, known := newestSchema[id]
	if strings.HasPrefix(it.Store, agentPrefix) {
		newest, known = newestAgentSchema, true
	}
	if known && it.SchemaVersion > newest {
		return Issue{id, IssueForwardVersion, nil}
	}
	sit, err := s.look(id)
	if err != nil {
		return Issue{id, IssueUnknown, err}
	}
	if sit.unsafe {
		return Issue{id, IssueUnsafePath, nil}
	}
	return nil
}

// placeOf is where a file of an export's config belongs below the root, and
// whether it is sealed there.
func placeOf(rel string) (place string, seal, ok bool) {
	top, _, below := strings.Cut(rel, "/")
	if slices.Contains(sealedPaths, rel) || below && slices.Contains(sealedDirs, top) && path.Ext(rel) == ".json" {
		return rel + sealed.Ext, true, true
	}
	return rel, false, below && slices.Contains(configDirs, top) && !isDatabase(rel) && path.Ext(rel) != sealed.Ext
}

// unlinked refuses a place that is reached through a link, or is no file.
func (s *Storage) unlinked(rel string) error {
	if err := s.safeDir(path.Dir(rel)); err != nil {
		return err
	}
	if _, err := disk.Regular(s.file(rel)); err != nil && !missing(err) {
		return err
	}
	return nil
}

func (i *importing) run(src *archive.Source) (err error) {
	s := i.s
	err = s.putJournal(&i.journal, phasePrepare, itemPending, s.keys[0], s.keys[0])
	if err == nil {
		err = src.Each(i.ctx, i.take)
	}
	if err == nil {
		err = s.putJournal(&i.journal, phaseCommit, itemCopied, s.keys[0], s.keys[0])
	}
	ctx := context.WithoutCancel(i.ctx)
	if err != nil {
		return errors.Join(err, s.Blobs().Remove(i.blobs...), s.afterFailure(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	replaced, err := s.importForward(i.journal)
	if err == nil {
		err = s.dropJournal()
	}
	if err != nil {
		return s.unfinished(err)
	}
	i.done.Replaced = replaced
	return nil
}

// take stages one file of the export.
func (i *importing) take(it archive.Item, r io.Reader) (err error) {
	label := string(it.Kind)
	switch it.Kind {
	case archive.Database:
		label = it.Store
		err = i.takeStore(it, r)
		i.done.Stores = append(i.done.Stores, ID(it.Store))
	case archive.Blob:
		label = "attachments"
		err = i.takeBlob(blob.Hash(it.Rel()), r)
		i.done.Blobs++
	case archive.Config:
		label = "settings"
		err = i.takeConfig(it, r)
		i.done.Files++
	}
	i.report.finish(label, it.Bytes)
	return err
}

func (i *importing) takeBlob(h blob.Hash, r io.Reader) error {
	added, err := i.s.Blobs().Take(h, r)
	if added {
		i.blobs = append(i.blobs, h)
	}
	return err
}

func (i *importing) takeConfig(it archive.Item, r io.Reader) error {
	place, seal, _ := placeOf(it.Rel())
	name := i.s.file(place)
	if err := i.s.disk.MkdirAll(filepath.Dir(name)); err != nil {
		return err
	}
	if it.Bytes > maxDocument {
		return fmt.Errorf("%w: %s is too large", archive.ErrNotExport, it.Path)
	}
	if seal {
		_, err := sealed.WriteFile(i.s.disk, name+imported, i.s.keys[0], sealed.Label{Purpose: sealed.JSON, Name: it.Rel()}, r)
		return err
	}
	return i.s.disk.Replace(name+imported, func(dst io.Writer) error {
		_, err := io.Copy(dst, r)
		return err
	})
}

// takeStore copies a database beside its place, encrypted page by page where
// its pages have room for it, and proves the copy. Only a database without
// that room lies on disk readable for the length of its conversion.
func (i *importing) takeStore(it archive.Item, r io.Reader) (err error) {
	id := ID(it.Store)
	name := i.s.file(id.path())
	staged := sqlcipher.File{Path: name + imported, Key: i.key}
	if err := i.s.disk.MkdirAll(filepath.Dir(name)); err != nil {
		return err
	}
	in := bufio.NewReaderSize(r, sqlcipher.PageSize)
	head, err := in.Peek(int(min(sqlcipher.PageSize, it.Bytes)))
	if err != nil {
		return err
	}
	progress := i.report.part(string(id), it.Bytes)
	switch {
	case !staged.Encrypted():
		err = i.write(staged.Path, in)
	case sqlcipher.Sealable(head, it.Bytes):
		err = i.fill(staged.Path, func(dst io.Writer) error {
			return sqlcipher.WriteSealed(i.ctx, dst, in, it.Bytes, staged.Key, progress)
		})
	default:
		plain := sqlcipher.File{Path: disk.TempName(name)}
		if err = i.write(plain.Path, in); err == nil {
			err = i.s.engine.Export(i.ctx, plain, staged, progress)
		}
		err = errors.Join(err, i.s.disk.Remove(plain.Path))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", it.Path, err)
	}
	got, err := i.s.engine.Verify(i.ctx, staged)
	if err == nil && (got.UserVersion != it.SchemaVersion || !maps.Equal(got.Rows, it.Tables)) {
		err = archive.ErrDiffers
	}
	if err != nil {
		return fmt.Errorf("%s: %w", it.Path, err)
	}
	return nil
}

func (i *importing) write(name string, src io.Reader) error {
	return i.fill(name, func(dst io.Writer) error {
		_, err := io.Copy(dst, src)
		return err
	})
}

func (i *importing) fill(name string, fill func(io.Writer) error) error {
	f, err := i.s.disk.Create(name)
	if err != nil {
		return err
	}
	if err := fill(f); err != nil {
		return errors.Join(err, f.Abandon())
	}
	return f.Close()
}

// importForward puts what a committed import staged in place. Every step may
// have been done already. The caller holds s.mu.
func (s *Storage) importForward(j journal) (replaced []string, err error) {
	for _, it := range j.Items {
		name := s.file(it.Path)
		if exists(name + imported) {
			for _, rel := range []string{it.Path, strings.TrimSuffix(it.Path, sealed.Ext)} {
				folder, err := s.moveAside(ID(it.Store), rel, "replaced by an import")
				if err != nil {
					return replaced, err
				}
				if folder != "" {
					replaced = append(replaced, folder)
				}
			}
			if err := errors.Join(s.disk.Rename(name+imported, name), s.disk.SyncDir(filepath.Dir(name))); err != nil {
				return replaced, err
			}
		}
		if it.Store == "" || !exists(name) {
			continue
		}
		delete(s.issues, ID(it.Store))
		err := s.record(ID(it.Store), func(r *row) {
			r.Format, r.KeyID, r.State = j.To, dek.ID{}, rowReady
			if j.To == PostureEncrypted {
				r.KeyID = j.NewKeyID
			}
		})
		if err != nil {
			return replaced, err
		}
	}
	return replaced, nil
}

// resumeImport finishes a committed import. The caller holds s.mu.
func (s *Storage) resumeImport(j journal) error {
	if err := s.settleQuarantine(); err != nil {
		return err
	}
	_, err := s.importForward(j)
	return err
}
