// Package disk changes files for the stores. Each change is one named step
// that a test can refuse or die before, and every file of a store is created
// 0600, never through a link, and durable before it takes its name.
package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"osaurus/engine/atomicfile"
)

// Op names a step.
type Op string

// The steps (decisions D12).
const (
	Create  Op = "create"
	Write   Op = "write"
	Sync    Op = "fsync"
	Rename  Op = "rename"
	Remove  Op = "unlink"
	SyncDir Op = "fsync-dir"
	Mkdir   Op = "mkdir"
)

// TempInfix stands in the name of every file that has not taken its place
// yet. Whatever carries it after a crash is swept.
const TempInfix = ".osr-tmp-"

// ErrUnsafe refuses a path that is no regular file of ours: a link, a folder,
// a device, another person's file, or a file with a second name.
var ErrUnsafe = errors.New("disk: not a regular file of this user")

// Disk is the file system. The zero value is the real one. It is safe for
// concurrent use if Step is.
type Disk struct {
	// Step, when set, is asked before each change; its error refuses it.
	Step func(op Op, path string) error
	// Space, when set, answers Free.
	Space func(dir string) (int64, error)
}

func (d Disk) before(op Op, path string) error {
	if d.Step == nil {
		return nil
	}
	return d.Step(op, path)
}

// File is a new file that is being written.
type File struct {
	f *os.File
	d Disk
}

// Create makes a new file 0600. It fails if the name is taken, by a dangling
// link too.
func (d Disk) Create(path string) (*File, error) {
	if err := d.before(Create, path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, atomicfile.Mode)
	if err != nil {
		return nil, err
	}
	return &File{f: f, d: d}, nil
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) {
	if err := f.d.before(Write, f.f.Name()); err != nil {
		return 0, err
	}
	return f.f.Write(p)
}

// Close makes the content durable and closes the file.
func (f *File) Close() error {
	if err := f.d.before(Sync, f.f.Name()); err != nil {
		return errors.Join(err, f.f.Close())
	}
	return errors.Join(f.f.Sync(), f.f.Close())
}

// Abandon closes a file that will be removed.
func (f *File) Abandon() error { return f.f.Close() }

// Rename gives old the name new, replacing what has it. Durable only after
// SyncDir.
func (d Disk) Rename(old, new string) error {
	if err := d.before(Rename, new); err != nil {
		return err
	}
	return os.Rename(old, new)
}

// Remove deletes a file or an empty folder. A missing one is no error.
// Durable only after SyncDir.
func (d Disk) Remove(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.before(Remove, path); err != nil {
		return err
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveAll deletes a file or a folder with all that is in it, following no
// link. A missing one is no error.
func (d Disk) RemoveAll(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.before(Remove, path); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// SyncDir makes the names in dir durable.
func (d Disk) SyncDir(dir string) error {
	if err := d.before(SyncDir, dir); err != nil {
		return err
	}
	return atomicfile.SyncDir(dir)
}

// SyncFile makes the content of an existing file durable.
func (d Disk) SyncFile(path string) error {
	if err := d.before(Sync, path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// MkdirAll creates dir and its parents 0700.
func (d Disk) MkdirAll(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := d.before(Mkdir, dir); err != nil {
		return err
	}
	return atomicfile.MkdirAll(dir)
}

// TempName returns a fresh name beside path that a sweep recognises.
func TempName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+TempInfix+rand.Text()[:10])
}

// Replace gives path the content that fill writes: temporary file, fsync,
// rename, fsync of the folder. The old content stays until the rename, and
// for good when anything fails.
func (d Disk) Replace(path string, fill func(io.Writer) error) (err error) {
	if _, err := Regular(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp := TempName(path)
	f, err := d.Create(tmp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Remove(tmp))
		}
	}()
	if err := fill(f); err != nil {
		return errors.Join(err, f.f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := d.Rename(tmp, path); err != nil {
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

// ReplaceBytes is Replace with content at hand.
func (d Disk) ReplaceBytes(path string, content []byte) error {
	return d.Replace(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// Regular describes path without following a link: fs.ErrNotExist, ErrUnsafe,
// or a regular file of this user with one name.
func Regular(path string) (fs.FileInfo, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || st.Nlink != 1 || int(st.Uid) != os.Getuid() {
		return nil, fmt.Errorf("%w: %s", ErrUnsafe, filepath.Base(path))
	}
	return info, nil
}

// Open opens a regular file for reading, never through a link.
func Open(path string) (*os.File, fs.FileInfo, error) {
	before, err := Regular(path)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !os.SameFile(before, info) {
		err = fmt.Errorf("%w: %s", ErrUnsafe, filepath.Base(path))
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// Folder returns nil for a folder of this user, fs.ErrNotExist, or ErrUnsafe.
func Folder(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(st.Uid) != os.Getuid() {
		return fmt.Errorf("%w: %s", ErrUnsafe, filepath.Base(path))
	}
	return nil
}

// Free returns how many bytes this user may still write below dir.
func (d Disk) Free(dir string) (int64, error) {
	if d.Space != nil {
		return d.Space(dir)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // the types differ between systems
}
