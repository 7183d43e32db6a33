// Package atomicfile replaces files durably: the new content is complete and
// on disk before it takes the old one's name, and a crash leaves one of the
// two whole.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Mode is the permission of every file written; DirMode of every directory.
const (
	Mode    fs.FileMode = 0o600
	DirMode fs.FileMode = 0o700
)

// ErrNotRegular says that the target is a symlink, directory or device.
var ErrNotRegular = errors.New("atomicfile: target is not a regular file")

// Write replaces path with data: temporary file beside it (O_EXCL, 0600),
// write, fsync, rename, fsync of the directory. It refuses a target that
// exists and is no regular file.
func Write(path string, data []byte) (err error) {
	switch info, statErr := os.Lstat(path); {
	case statErr == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%w: %s", ErrNotRegular, path)
	case statErr != nil && !errors.Is(statErr, fs.ErrNotExist):
		return statErr
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(tmp.Name())))
		}
	}()
	if err := fill(tmp, data); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

func fill(tmp *os.File, data []byte) error {
	if _, err := tmp.Write(data); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := tmp.Sync(); err != nil {
		return errors.Join(err, tmp.Close())
	}
	return tmp.Close()
}

// Remove deletes path durably. A missing file is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return ignoreMissing(err)
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes renames and removals in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// MkdirAll creates dir and its parents with DirMode.
func MkdirAll(dir string) error { return os.MkdirAll(dir, DirMode) }

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
