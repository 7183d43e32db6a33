package storage

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/storage/blob"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sealed"
)

// labelOf returns what the sealed file at rel, a slash path below the root
// that ends in .osec, is bound to: an attachment to its hash, any other to
// its path without the ending.
func labelOf(rel string) (sealed.Label, bool) {
	name, ok := strings.CutSuffix(rel, sealed.Ext)
	if !ok {
		return sealed.Label{}, false
	}
	if base, below := strings.CutPrefix(name, blobsDir+"/"); below {
		h, err := blob.ParseHash(base)
		return h.Label(), err == nil
	}
	return sealed.Label{Purpose: sealed.JSON, Name: name}, true
}

// WriteSealed seals content as the file rel, a slash path below the root
// without its ending, and removes a plain file of that name (decisions D7).
func (s *Storage) WriteSealed(ctx context.Context, rel string, content []byte) error {
	if err := s.gate.enter(ctx); err != nil {
		return err
	}
	defer s.gate.leave()
	return s.writeSealed(rel, content)
}

func (s *Storage) writeSealed(rel string, content []byte) error {
	keys, err := s.Keys()
	if err != nil {
		return err
	}
	if err := s.safeFile(rel); err != nil {
		return err
	}
	path := s.file(rel)
	if err := s.disk.MkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	if _, err := sealed.WriteFile(s.disk, path+sealed.Ext, keys[0], sealed.Label{Purpose: sealed.JSON, Name: rel}, bytes.NewReader(content)); err != nil {
		return err
	}
	if err := s.disk.Remove(path); err != nil {
		return err
	}
	return s.disk.SyncDir(filepath.Dir(path))
}

// safeFile refuses a file that is reached through a link: no operation over
// all files would see it.
func (s *Storage) safeFile(rel string) error {
	if err := s.safeDir(path.Dir(rel)); err != nil {
		return fault.New(fault.StoreUnsafePath, err)
	}
	return nil
}

// ReadSealed passes what WriteSealed wrote, at most limit bytes, to parse. A
// plain file that an older host left is sealed once parse has taken it. A
// missing file is fs.ErrNotExist. One that cannot be read is told of by Status.
func (s *Storage) ReadSealed(ctx context.Context, rel string, limit int64, parse func([]byte) error) error {
	if err := s.gate.enter(ctx); err != nil {
		return err
	}
	defer s.gate.leave()
	opened := false
	err := s.readSealed(rel, limit, func(content []byte) error {
		opened = true
		return parse(content)
	})
	s.noteRecord(rel, err, opened)
	return err
}

func (s *Storage) readSealed(rel string, limit int64, parse func([]byte) error) error {
	if err := s.safeFile(rel); err != nil {
		return err
	}
	path := s.file(rel)
	if exists(path + sealed.Ext) {
		content, err := s.openRecord(rel, limit)
		if err != nil {
			return err
		}
		return parse(content)
	}
	content, err := readBounded(path, limit)
	if err != nil {
		return err
	}
	if err := parse(content); err != nil {
		return err
	}
	return s.writeSealed(rel, content)
}

// maxDocument bounds a Document, in bytes.
const maxDocument = 64 << 20

// Document is the sealed file rel as others keep their records in it.
func (s *Storage) Document(rel string) atomicfile.Document { return document{s, rel} }

type document struct {
	s   *Storage
	rel string
}

// Read implements atomicfile.Document.
func (d document) Read(parse func([]byte) error) error {
	return d.s.ReadSealed(context.Background(), d.rel, maxDocument, parse)
}

// Write implements atomicfile.Document.
func (d document) Write(content []byte) error {
	return d.s.WriteSealed(context.Background(), d.rel, content)
}

// sealedFile is a sealed file below the root.
type sealedFile struct {
	rel   string
	label sealed.Label
	size  int64
	// unsafe: it is a link or the like, or is a folder of sealed files that is
	// one. It does not open.
	unsafe bool
}

// sealedFolders hold sealed files.
var sealedFolders = []string{path.Dir(blobsDir), blobsDir, "identity", "agent-invites", "providers"}

// sealedFiles lists every sealed file below the root, quarantine excepted,
// sorted.
func (s *Storage) sealedFiles() ([]sealedFile, error) {
	var all []sealedFile
	err := filepath.WalkDir(s.root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if slices.Contains(sealedFolders, rel) && errors.Is(disk.Folder(name), disk.ErrUnsafe) {
			all = append(all, sealedFile{rel: rel, unsafe: true})
			return nil
		}
		if e.IsDir() {
			if rel == quarantineDir || slices.Contains(unread, rel) {
				return fs.SkipDir
			}
			return nil
		}
		label, ok := labelOf(rel)
		if !ok || strings.HasPrefix(e.Name(), ".") {
			return nil
		}
		f := sealedFile{rel: rel, label: label}
		switch info, err := disk.Regular(name); {
		case missing(err):
			return nil // it has just gone
		case errors.Is(err, disk.ErrUnsafe):
			f.unsafe = true
		case err != nil:
			return err
		default:
			f.size = info.Size()
		}
		all = append(all, f)
		return nil
	})
	return all, err
}
