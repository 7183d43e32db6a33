package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"filippo.io/age"

	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/storage/archive"
	"osaurus/engine/storage/blob"
	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sealed"
	"osaurus/engine/storage/sqlcipher"
)

// exportFile names the export that is being written, so that a start after a
// crash removes what was left of it.
const exportFile = ".storage-export.json"

// configDirs are the folders whose plain files are part of an export, beside
// every sealed file (storage.md section 8).
var configDirs = []string{"PluginSpecs", "agents", "config", "providers", "sandbox-plugins", "schedules", "sessions.archive", "skills", "themes", "watchers"}

// ExportOptions say where an export goes and in which form.
type ExportOptions struct {
	Dest       string // an existing folder outside the home
	Tar        bool   // one archive instead of a folder
	Recipients []age.Recipient
	AppVersion string
	Progress   func(Progress)
}

// Exported is what an export holds, and where it is.
type Exported struct {
	Path   string
	Counts map[archive.Kind]int
	Bytes  int64
	Failed []archive.Item // what could not be read; the export is incomplete
}

// Export writes everything that is stored in plain form, or encrypted to
// others, outside the home (decisions D8). Nothing of the home changes. What
// cannot be opened is listed in the manifest and in Failed; an error of the
// destination, or the end of ctx, removes what was written.
func (s *Storage) Export(ctx context.Context, o ExportOptions) (done Exported, err error) {
	a := archive.Options{Disk: s.disk, Dir: o.Dest, Created: s.now(), AppVersion: o.AppVersion, Tar: o.Tar, Recipients: o.Recipients}
	err = s.exclusive(ctx, "export", func() error {
		if err := s.outside(o.Dest); err != nil {
			return err
		}
		plan, err := s.planExport(ctx)
		if err != nil {
			return err
		}
		if free, err := s.disk.Free(o.Dest); err != nil || free < plan.total+spare {
			return errors.Join(err, ErrNoSpace)
		}
		if err := s.noteExport(a.Partial()); err != nil {
			return err
		}
		e := &export{s: s, ctx: ctx, plan: plan, report: newReport(o.Progress, plan.total), done: &done}
		return errors.Join(e.run(a), s.forgetExport())
	})
	if err == nil {
		s.log("storage.exported", slog.Int("failed", len(done.Failed)), slog.Bool("encrypted", len(o.Recipients) > 0))
	}
	return done, err
}

// outside refuses a destination that is no folder, a link, or part of the
// home.
func (s *Storage) outside(dest string) error {
	if !filepath.IsAbs(dest) {
		return fault.WithText(fault.Usage, "the folder for the export must be named in full")
	}
	info, err := os.Lstat(dest)
	switch {
	case missing(err):
		return fault.WithText(fault.Usage, "there is no folder "+dest)
	case err != nil:
		return err
	case !info.IsDir():
		return fault.WithText(fault.Usage, dest+" is no folder")
	}
	real, err := filepath.EvalSymlinks(dest)
	if err != nil {
		return err
	}
	root, err := filepath.EvalSymlinks(s.root)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(root, real); err == nil && filepath.IsLocal(rel) {
		return fault.WithText(fault.Usage, "an export must lie outside "+s.root)
	}
	return nil
}

type exportNote struct {
	V    int    `json:"v"`
	Path string `json:"path"`
}

func (s *Storage) noteExport(partial string) error {
	text, err := canonjson.Marshal(exportNote{1, partial})
	if err != nil {
		return err
	}
	return s.disk.ReplaceBytes(s.file(exportFile), text)
}

// forgetExport drops the note once nothing of a partial export is left.
func (s *Storage) forgetExport() error {
	text, err := readState(s.file(exportFile))
	if missing(err) {
		return nil
	}
	var note exportNote
	if err == nil && canonjson.Unmarshal(text, &note) == nil && exists(note.Path) {
		return nil
	}
	return errors.Join(s.disk.Remove(s.file(exportFile)), s.disk.SyncDir(s.root))
}

// sweepExport removes what a killed export left, if it is still there: it
// holds plaintext. Only what has the name of a partial export is touched.
func (s *Storage) sweepExport() error {
	text, err := readState(s.file(exportFile))
	if err != nil {
		return nil //nolint:nilerr // most often there is none
	}
	var note exportNote
	if canonjson.Unmarshal(text, &note) == nil && archive.IsPartial(filepath.Base(note.Path)) && filepath.IsAbs(note.Path) {
		if err := s.disk.RemoveAll(note.Path); err != nil {
			s.log("storage.export_left", slog.String("path", note.Path))
			return nil //nolint:nilerr // told, and tried again at the next start
		}
	}
	return s.forgetExport()
}

// exportPlan is what there is to export, sorted as archive.Writer wants it.
type exportPlan struct {
	blobs, config []exportFileItem
	stores        []ID
	total         int64
}

type exportFileItem struct {
	rel    string // below the home
	path   string // in the export
	size   int64  // on disk
	sealed bool
	label  sealed.Label
}

func (s *Storage) planExport(ctx context.Context) (p exportPlan, err error) {
	files, err := s.sealedFiles()
	if err != nil {
		return p, err
	}
	gone, err := s.goneBlobs(ctx, files)
	if err != nil {
		return p, err
	}
	for _, f := range append(files, gone...) {
		it := exportFileItem{rel: f.rel, size: f.size, sealed: true, label: f.label}
		if f.label.Purpose == sealed.Blob {
			it.path = archive.Blob.Path(f.label.Name)
			p.blobs = append(p.blobs, it)
			continue
		}
		if f.unsafe && slices.Contains(sealedFolders, f.rel) {
			it.path = archive.Config.Path(f.rel)
			p.config = append(p.config, it)
		} else if _, _, known := placeOf(f.label.Name); known {
			it.path = archive.Config.Path(f.label.Name)
			p.config = append(p.config, it)
		}
	}
	plain, err := s.plainConfig()
	if err != nil {
		return p, err
	}
	for _, f := range plain {
		// The sealed twin is the one that is read.
		if !slices.ContainsFunc(p.config, func(it exportFileItem) bool { return it.path == f.path }) {
			p.config = append(p.config, f)
		}
	}
	byPath := func(a, b exportFileItem) int { return strings.Compare(a.path, b.path) }
	slices.SortFunc(p.blobs, byPath)
	slices.SortFunc(p.config, byPath)
	if p.stores, err = s.held(); err != nil {
		return p, err
	}
	slices.SortFunc(p.stores, func(a, b ID) int { return strings.Compare(a.path(), b.path()) })
	p.total = s.sizeOf(p.stores)
	for _, f := range slices.Concat(p.blobs, p.config) {
		p.total += f.size
	}
	return p, nil
}

// plainConfig lists the settings and records that are kept in plain form.
// Databases and what is hidden or no regular file of ours are passed over.
func (s *Storage) plainConfig() ([]exportFileItem, error) {
	var all []exportFileItem
	for _, dir := range configDirs {
		err := filepath.WalkDir(s.file(dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if strings.HasPrefix(e.Name(), ".") {
				if e.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			info, regular := disk.Regular(path)
			rel, relErr := filepath.Rel(s.root, path)
			if rel = filepath.ToSlash(rel); e.IsDir() || regular != nil || relErr != nil || strings.HasSuffix(rel, sealed.Ext) || isDatabase(rel) {
				return nil //nolint:nilerr // passed over
			}
			all = append(all, exportFileItem{rel: rel, path: archive.Config.Path(rel), size: info.Size()})
			return nil
		})
		if err != nil && !missing(err) {
			return nil, err
		}
	}
	return all, nil
}

// isDatabase reports whether rel is an agent's database or lies beside it.
func isDatabase(rel string) bool {
	dir, name := filepath.Split(filepath.FromSlash(rel))
	id, err := Agent(filepath.Base(dir))
	return err == nil && strings.HasPrefix(name, filepath.Base(id.path()))
}

// export is one run of Export.
type export struct {
	s      *Storage
	ctx    context.Context
	plan   exportPlan
	report *report
	done   *Exported
	w      *archive.Writer
}

func (e *export) run(o archive.Options) (err error) {
	if e.w, err = archive.Create(o); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.w.Abort())
		}
	}()
	for _, f := range e.plan.blobs {
		if err := e.addBlob(f); err != nil {
			return err
		}
	}
	for _, f := range e.plan.config {
		if err := e.addConfig(f); err != nil {
			return err
		}
	}
	for _, id := range e.plan.stores {
		if err := e.addStore(id); err != nil {
			return err
		}
	}
	if err := e.ctx.Err(); err != nil {
		return err
	}
	path, m, err := e.w.Commit()
	if err != nil {
		return err
	}
	e.done.Path, e.done.Failed, e.done.Counts, e.done.Bytes = path, m.Failed(), map[archive.Kind]int{}, 0
	for _, it := range m.Items {
		if it.Error == "" {
			e.done.Counts[it.Kind]++
			e.done.Bytes += it.Bytes
		}
	}
	return nil
}

// addBlob adds an attachment after reading it once, so that one that does not
// open is told and not half written.
func (e *export) addBlob(f exportFileItem) error {
	it := archive.Item{Store: string(ChatHistory), Kind: archive.Blob, Path: f.path}
	defer e.report.finish("attachments", f.size)
	var size int64
	h := blob.Hash(f.label.Name)
	if err := e.s.Blobs().CopyTo(counting{&size}, h); err != nil {
		e.w.Fail(it, reasonOf(err))
		return e.ctx.Err()
	}
	return e.w.Add(it, size, func(dst io.Writer) error { return e.s.Blobs().CopyTo(dst, h) })
}

// addConfig adds a file that fits into memory: the host may be writing it.
func (e *export) addConfig(f exportFileItem) error {
	it := archive.Item{Kind: archive.Config, Path: f.path}
	defer e.report.finish("settings", f.size)
	if !archive.ValidPath(f.path) {
		it.Path = strconv.QuoteToASCII(f.path)
		e.w.Fail(it, "its name cannot be exported")
		return nil
	}
	text, err := e.s.readConfig(f)
	if err != nil {
		e.w.Fail(it, reasonOf(err))
		return e.ctx.Err()
	}
	return e.w.Add(it, int64(len(text)), func(dst io.Writer) error {
		_, err := dst.Write(text)
		return err
	})
}

func (s *Storage) readConfig(f exportFileItem) ([]byte, error) {
	if !f.sealed {
		return readBounded(s.file(f.rel), maxDocument)
	}
	s.mu.Lock()
	keys := slices.Clone(s.keys)
	s.mu.Unlock()
	return sealed.ReadFile(s.file(f.rel), keys, f.label, maxDocument)
}

type counting struct{ n *int64 }

func (c counting) Write(p []byte) (int, error) {
	*c.n += int64(len(p))
	return len(p), nil
}

// reasonOf is what the manifest says of a file that is missing from it.
func reasonOf(err error) string {
	switch {
	case missing(err):
		return string(IssueMissing)
	case errors.Is(err, disk.ErrUnsafe):
		return string(IssueUnsafePath)
	case errors.Is(err, sealed.ErrUnknownKey):
		return string(IssueLocked)
	case sealed.Refused(err), errors.Is(err, blob.ErrContent):
		return string(IssueCorrupt)
	}
	return string(IssueUnknown)
}

// addStore verifies a database and adds it page by page.
func (e *export) addStore(id ID) error {
	size := e.s.sizeOf([]ID{id})
	defer e.report.finish(string(id), size)
	it := archive.Item{Store: string(id), Kind: archive.Database, Path: archive.Database.Path(id.path())}
	f, report, err := e.s.source(e.ctx, id)
	var issue Issue
	if errors.As(err, &issue) {
		e.s.note(id, err)
		e.w.Fail(it, string(issue.Kind))
		return nil
	} else if err != nil {
		return err
	}
	_, size, err = sqlcipher.Detect(f.Path) // its log was moved into it
	if err != nil {
		return err
	}
	it.SchemaVersion, it.Tables = report.UserVersion, report.Rows
	err = e.w.Add(it, size, func(dst io.Writer) error {
		return sqlcipher.WritePlain(e.ctx, dst, f, e.report.part(string(id), size))
	})
	copied := e.w.File(it)
	if err != nil || copied == "" {
		return err
	}
	got, err := e.s.engine.Verify(e.ctx, sqlcipher.File{Path: copied})
	if err == nil && !got.Same(report) {
		err = sqlcipher.ErrDiffers
	}
	if err != nil {
		return fmt.Errorf("%s: %w", it.Path, err)
	}
	return nil
}

// source finds the key of a database that nobody has open and reads all of it.
func (s *Storage) source(ctx context.Context, id ID) (f sqlcipher.File, r sqlcipher.Report, err error) {
	s.mu.Lock()
	sit, err := s.look(id)
	keys := slices.Clone(s.keys)
	named := false
	if k := s.provedKey(id); !k.IsZero() {
		keys, named = sealed.Keys{k}, true
	}
	s.mu.Unlock()
	if err != nil {
		return f, r, Issue{id, IssueUnknown, err}
	}
	f.Path = s.file(id.path())
	switch act, kind := decide(sit); act {
	case refuse:
		return f, r, Issue{id, kind, fault.StorageLocked}
	case openPlain, encryptThen, create:
		keys, named = sealed.Keys{dek.Key{}}, true
	case openEncrypted, rekeyThen:
	}
	for _, f.Key = range keys {
		if err = s.shed(f); err == nil {
			r, err = s.engine.Verify(ctx, f)
		}
		if !errors.Is(err, sqlcipher.ErrKey) {
			break
		}
	}
	if !named && errors.Is(err, sqlcipher.ErrKey) {
		err = errNoKeyFits
	}
	if err != nil && ctx.Err() == nil {
		return f, r, Issue{id, issueOf(err, IssueUnknown), err}
	}
	return f, r, err
}
