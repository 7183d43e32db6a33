package storage

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sealed"
	"osaurus/engine/storage/sqlcipher"
)

// Quarantined is a database that was set aside (decisions D9). Nothing here is
// ever deleted by itself.
type Quarantined struct {
	Store   ID        `json:"store"`
	Path    string    `json:"path"` // where it was, below the root
	Reason  string    `json:"reason"`
	Format  string    `json:"format"`
	KeyID   dek.ID    `json:"key_id"`
	MovedAt time.Time `json:"moved_at"`

	// Folder is where it lies, below the root. Its info.json does not say.
	Folder string `json:"folder,omitempty"`
}

const quarantineInfo = "info.json"

var notInNames = regexp.MustCompile(`[^A-Za-z0-9.-]`)

// setAside moves a database and its sidecars into a folder of the quarantine.
// The store starts empty at its next use. It must not be open.
func (s *Storage) setAside(ctx context.Context, id ID, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := s.moveAside(id, id.path(), reason); err != nil {
		return err
	}
	return s.lose(id)
}

// moveAside moves the file rel and what lies beside it, as far as they exist,
// into a folder of the quarantine, the file last: until then a start undoes
// the move. id is "" for what is no database. The caller holds s.mu.
func (s *Storage) moveAside(id ID, rel, reason string) (folder string, err error) {
	file := s.file(rel)
	parts := slices.DeleteFunc(append(sqlcipher.Sidecars(file), file), func(path string) bool { return !exists(path) })
	if len(parts) == 0 {
		return "", nil
	}
	suffix := make([]byte, 4)
	_, _ = rand.Read(suffix) // never fails
	now := s.now().UTC()
	q := Quarantined{Store: id, Path: rel, Reason: reason, MovedAt: now.Truncate(time.Second)}
	name := string(id)
	if id != "" {
		q.Format, q.KeyID = s.detect(id).String(), s.manifest.Stores[id].KeyID
	} else {
		name = path.Base(rel)
		q.Format, q.KeyID = formatOfFile(file)
	}
	folder = path.Join(quarantineDir, now.Format("20060102T150405Z")+"-"+notInNames.ReplaceAllString(name, "_")+"-"+hex.EncodeToString(suffix))
	text, err := canonjson.Marshal(q)
	if err != nil {
		return "", err
	}
	dir := s.file(folder)
	if err := s.disk.MkdirAll(dir); err != nil {
		return "", err
	}
	if err := s.disk.ReplaceBytes(filepath.Join(dir, quarantineInfo), text); err != nil {
		return "", err
	}
	for _, from := range parts {
		if err := s.disk.Rename(from, filepath.Join(dir, filepath.Base(from))); err != nil {
			return "", err
		}
	}
	if err := errors.Join(s.disk.SyncDir(dir), s.disk.SyncDir(filepath.Dir(file))); err != nil {
		return "", err
	}
	s.log("storage.quarantined", slog.String("path", rel), slog.String("folder", folder))
	return folder, nil
}

// shed sets aside the logs beside a database that hold pages of another one:
// they would be written over it. Nobody may have it open.
func (s *Storage) shed(f sqlcipher.File) error {
	foreign, err := sqlcipher.ForeignLogs(f)
	if err != nil {
		return err
	}
	for _, path := range foreign {
		rel, err := filepath.Rel(s.root, path)
		if err != nil {
			return err
		}
		if _, err := s.moveAside("", filepath.ToSlash(rel), "a log of another database"); err != nil {
			return err
		}
	}
	return nil
}

// formatOfFile is the format of a file that is no database, and the key it
// names.
func formatOfFile(file string) (string, dek.ID) {
	if isLog(file) {
		return sqlcipher.Foreign.String(), dek.ID{} // it may need any key
	}
	if !strings.HasSuffix(file, sealed.Ext) {
		return sqlcipher.Plaintext.String(), dek.ID{}
	}
	id, _ := keyIDOf(file) //nolint:errcheck // a file that does not say needs any key
	return sqlcipher.Encrypted.String(), id
}

// lose lets a store start empty.
func (s *Storage) lose(id ID) error {
	delete(s.issues, id)
	if _, known := s.manifest.Stores[id]; !known {
		return nil
	}
	return s.record(id, func(r *row) { r.State = rowLost })
}

// Quarantine lists what was set aside, oldest first.
func (s *Storage) Quarantine() ([]Quarantined, error) { return s.quarantined() }

func (s *Storage) quarantined() ([]Quarantined, error) {
	entries, err := os.ReadDir(s.file(quarantineDir))
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Quarantined
	for _, e := range entries {
		var q Quarantined
		if text, err := readState(s.file(path.Join(quarantineDir, e.Name(), quarantineInfo))); err == nil {
			_ = canonjson.Unmarshal(text, &q) // one that does not parse is still listed
		}
		q.Folder = path.Join(quarantineDir, e.Name())
		all = append(all, q)
	}
	slices.SortFunc(all, func(a, b Quarantined) int { return strings.Compare(a.Folder, b.Folder) })
	return all, nil
}

// settleQuarantine undoes a move that was cut off: the database has not left
// its place. The caller holds s.mu, and no database is open.
func (s *Storage) settleQuarantine() error {
	all, err := s.quarantined()
	if err != nil {
		return err
	}
	for _, q := range all {
		if !filepath.IsLocal(filepath.FromSlash(q.Path)) || q.Store != "" && q.Store.path() != q.Path {
			// Only an empty folder goes: nothing had been moved into it.
			if entries, err := os.ReadDir(s.file(q.Folder)); err == nil && len(entries) == 0 {
				if err := s.disk.Remove(s.file(q.Folder)); err != nil {
					return err
				}
			}
			continue
		}
		dir, file := s.file(q.Folder), s.file(q.Path)
		if exists(filepath.Join(dir, filepath.Base(file))) || !exists(file) {
			if r, known := s.manifest.Stores[q.Store]; known && r.State == rowReady && !exists(file) {
				if err := s.lose(q.Store); err != nil {
					return err
				}
			}
			continue
		}
		for _, side := range sqlcipher.Sidecars(file) {
			moved := filepath.Join(dir, filepath.Base(side))
			if exists(moved) && !exists(side) {
				if err := s.disk.Rename(moved, side); err != nil {
					return err
				}
			}
		}
		if err := errors.Join(s.disk.SyncDir(filepath.Dir(file)), s.disk.Remove(filepath.Join(dir, quarantineInfo)), s.disk.Remove(dir)); err != nil {
			return err
		}
	}
	return nil
}

// Reset sets a store aside, whatever is the matter with it, and lets it start
// empty; a record only if it cannot be read.
func (s *Storage) Reset(ctx context.Context, id ID) error {
	const reason = "reset by the owner"
	rel := recordOf(id)
	if id.path() == "" && rel == "" {
		return fault.WithText(fault.Usage, "no such store")
	}
	return s.exclusive(ctx, "reset", func() error {
		if rel != "" {
			return s.setRecordAside(ctx, rel, reason)
		}
		return s.setAside(ctx, id, reason)
	})
}

// Accept takes a plaintext database that is not on record as such for the
// owner's: it is encrypted at its next use.
func (s *Storage) Accept(ctx context.Context, id ID) error {
	return s.exclusive(ctx, "accept", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.detect(id) != sqlcipher.Plaintext {
			return fault.WithText(fault.Usage, "the store is no plaintext database")
		}
		if err := s.ensureKey(ctx); err != nil {
			return err
		}
		delete(s.issues, id)
		return s.record(id, func(r *row) { r.Format, r.KeyID, r.State = PosturePlaintext, dek.ID{}, rowReady })
	})
}

// Retry asks the keystore again and opens a store again.
func (s *Storage) Retry(ctx context.Context, id ID) error {
	if err := s.Prewarm(ctx); err != nil && !errors.Is(err, fault.StorageKeyMissing) {
		return err
	}
	if rel := recordOf(id); rel != "" {
		return s.retryRecord(ctx, rel)
	}
	if id.path() == "" {
		return fault.WithText(fault.Usage, "no such store")
	}
	return s.try(ctx, id)
}

// try opens a store, which notes what stands in its way.
func (s *Storage) try(ctx context.Context, id ID) error {
	s.mu.Lock()
	st := s.stores[id]
	s.mu.Unlock()
	if st != nil {
		return st.Use(ctx, func(*sqlcipher.DB) error { return nil })
	}
	st = &Store{s: s, id: id} // nobody uses it yet
	return errors.Join(st.Use(ctx, func(*sqlcipher.DB) error { return nil }), st.close())
}

// sweep removes what a killed process left and lets a staged key that no
// journal speaks of be forgotten with the retired ones. The caller holds s.mu.
func (s *Storage) sweep(ctx context.Context) error {
	if err := errors.Join(s.removeLeftovers(), s.settleQuarantine()); err != nil {
		return err
	}
	if staged, err := s.vault.Next(ctx); err == nil {
		defer staged.Destroy()
		if staged.ID() != s.keys[0].ID() {
			if err := s.keepStaged(ctx, staged); err != nil {
				return err
			}
		}
		if err := s.vault.Unstage(ctx); err != nil {
			return err
		}
	}
	return s.prune(ctx)
}

// keepStaged keeps the key of a rotation that lost its journal, and puts the
// databases on record that have it already.
func (s *Storage) keepStaged(ctx context.Context, staged dek.Key) error {
	if err := s.vault.Retire(ctx, staged); err != nil {
		return err
	}
	ids, err := found(s.root)
	for _, id := range ids {
		if err == nil && !s.isOpen(id) && s.detect(id) == sqlcipher.Encrypted && s.proved(id, staged) {
			err = s.record(id, func(r *row) { r.Format, r.KeyID, r.State = PostureEncrypted, staged.ID(), rowReady })
		}
	}
	return err
}

// leftovers lists the files that have not taken their place.
func (s *Storage) leftovers() ([]string, error) {
	var all []string
	err := filepath.WalkDir(s.root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if rel, _ := filepath.Rel(s.root, p); slices.Contains(unread, rel) { //nolint:errcheck // p is below root
				return fs.SkipDir
			}
			return nil
		}
		if isLeftover(e.Name()) {
			all = append(all, p)
		}
		return nil
	})
	return all, err
}

func isLog(name string) bool {
	return slices.ContainsFunc(sqlcipher.Sidecars(""), func(suffix string) bool { return strings.HasSuffix(name, suffix) })
}

func isLeftover(name string) bool {
	base := name
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		base = strings.TrimSuffix(base, suffix)
	}
	return strings.HasSuffix(base, rekeyed) || strings.HasSuffix(base, imported) || strings.Contains(base, disk.TempInfix)
}
