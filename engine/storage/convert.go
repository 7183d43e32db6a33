package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"

	"osaurus/engine/storage/dek"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sqlcipher"
)

// spare is what a conversion leaves free beside the copies it makes
// (storage.md section 7).
const spare = 64 << 20

// ErrNoSpace says that an operation would fill the disk; nothing was changed.
var ErrNoSpace = errors.New("storage: not enough free space")

// DiskTrouble tells an error of the disk in plain words, and names its kind;
// "" is any other error.
func DiskTrouble(err error) (kind, text string) {
	is := func(kinds ...error) bool {
		return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
	}
	switch {
	case is(ErrNoSpace, sqlcipher.ErrFull, syscall.ENOSPC, syscall.EDQUOT):
		return "disk_full", "the disk is full"
	case is(sqlcipher.ErrReadOnly, syscall.EROFS):
		return "disk_read_only", "the disk is read-only"
	case is(sqlcipher.ErrIO, syscall.EIO):
		return "disk_failed", "the disk reports an error"
	}
	return "", ""
}

// convert brings the file of a store to another key, none meaning plaintext:
// copy, verify, rename. The original stands until the rename, and its log is
// moved into it before, so no log of another format is ever left beside the
// new file. A crash leaves either file and junk that is swept.
func (s *Storage) convert(ctx context.Context, id ID, from, to dek.Key, p sqlcipher.Progress) error {
	path := s.file(id.path())
	tmp := disk.TempName(path)
	src, dst := sqlcipher.File{Path: path, Key: from}, sqlcipher.File{Path: tmp, Key: to}
	if err := s.room(path, 2); err != nil {
		return err
	}
	if err := s.copyStore(ctx, src, dst, p); err != nil {
		return errors.Join(err, s.disk.Remove(tmp))
	}
	if err := s.disk.Rename(tmp, path); err != nil {
		return errors.Join(err, s.disk.Remove(tmp))
	}
	return s.disk.SyncDir(filepath.Dir(path))
}

// copyStore copies src to the new file dst and proves that they agree.
func (s *Storage) copyStore(ctx context.Context, src, dst sqlcipher.File, p sqlcipher.Progress) error {
	if err := s.shed(src); err != nil {
		return err
	}
	want, err := s.engine.Verify(ctx, src)
	if err != nil {
		return err
	}
	for _, side := range sqlcipher.Sidecars(src.Path) {
		if exists(side) {
			return fmt.Errorf("%w: a log stays beside %s", sqlcipher.ErrBusy, filepath.Base(src.Path))
		}
	}
	run := s.engine.Export
	if src.Encrypted() == dst.Encrypted() {
		run = s.engine.Backup
	}
	if err := run(ctx, src, dst, p); err != nil {
		return err
	}
	got, err := s.engine.Verify(ctx, dst)
	if err == nil && !got.Same(want) {
		err = sqlcipher.ErrDiffers
	}
	if err != nil {
		return errors.Join(err, s.disk.Remove(dst.Path))
	}
	return nil
}

// room asks for times the size of a file and the spare.
func (s *Storage) room(path string, times int64) error {
	info, err := disk.Regular(path)
	if err != nil {
		return err
	}
	return s.roomFor(times * info.Size())
}

func (s *Storage) roomFor(bytes int64) error {
	free, err := s.disk.Free(s.root)
	if err == nil && free < bytes+spare {
		err = ErrNoSpace
	}
	return err
}
