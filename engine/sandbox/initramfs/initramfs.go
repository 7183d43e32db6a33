// Package initramfs writes the file system a virtual machine boots from: the
// unpacked image with a few files more, as a cpio archive in the "newc" form
// (Documentation/driver-api/early-userspace/buffer-format.rst of Linux). It is
// the same bit for bit from the same files.
package initramfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"osaurus/engine/sandbox/image"
)

// File types of a cpio entry's mode.
const (
	typeFile   = 0o100000
	typeFolder = 0o040000
	typeLink   = 0o120000
	typeDevice = 0o020000
	sticky     = 0o1000
)

// maxFile is what the form's eight digits can say.
const maxFile = 1<<32 - 1

const trailer = "TRAILER!!!"

// Write packs what lies below root, which nothing else changes meanwhile, and
// then extra entries, which replace it. Everything belongs to root and
// carries no time. A console is always there, since the first process has no
// output without one.
func Write(w io.Writer, root *os.Root, extra ...image.Entry) error {
	a := &archive{w: w}
	added := map[string]bool{"dev/console": true}
	for _, e := range extra {
		if !fs.ValidPath(e.Name) || e.Name == "." || added[e.Name] {
			return fmt.Errorf("initramfs: the name %q is unclean or stands there twice", e.Name)
		}
		added[e.Name] = true
	}
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." || added[name] {
			return err
		}
		return a.entryOf(root, name, d)
	})
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	// Devices and files after the folders they lie in.
	a.header("dev/console", typeDevice|0o600, 0, 5, 1)
	for _, e := range slices.SortedFunc(slices.Values(extra), func(a, b image.Entry) int { return strings.Compare(a.Name, b.Name) }) {
		a.extra(e)
	}
	a.header(trailer, 0, 0, 0, 0)
	return a.err
}

// archive keeps the first error and the place, for the padding.
type archive struct {
	w     io.Writer
	at    int64
	inode uint32
	err   error
}

func (a *archive) write(p []byte) {
	if a.err != nil {
		return
	}
	var n int
	n, a.err = a.w.Write(p)
	a.at += int64(n)
}

func (a *archive) pad() { a.write(make([]byte, -a.at&3)) }

// header begins an entry: thirteen fields of eight hexadecimal digits.
func (a *archive) header(name string, mode uint32, size, major, minor int64) {
	a.inode++
	links := 1
	if mode&typeFolder != 0 && mode&typeFile == 0 {
		links = 2
	}
	a.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, len(name)+1, 0, name))
	a.pad()
}

func (a *archive) body(name string, mode uint32, content []byte) {
	if int64(len(content)) > maxFile {
		a.err = fmt.Errorf("initramfs: %s is too large", name)
	}
	a.header(name, mode, int64(len(content)), 0, 0)
	a.write(content)
	a.pad()
}

func (a *archive) entryOf(root *os.Root, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	perm := uint32(info.Mode().Perm())
	switch {
	case d.IsDir():
		if info.Mode()&fs.ModeSticky != 0 {
			perm |= sticky
		}
		a.header(name, typeFolder|perm, 0, 0, 0)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		a.body(name, typeLink|0o777, []byte(target))
	case info.Mode().IsRegular():
		return a.copy(root, name, perm, info.Size())
	default:
		return fmt.Errorf("%s is neither file, folder nor link", name)
	}
	return a.err
}

func (a *archive) copy(root *os.Root, name string, perm uint32, size int64) error {
	if size > maxFile {
		return fmt.Errorf("%s is too large", name)
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	a.header(name, typeFile|perm, size, 0, 0)
	n, err := io.Copy(onlyWriter{a}, io.LimitReader(f, size))
	if err := errors.Join(err, f.Close(), a.err); err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%s changed while it was read", name)
	}
	a.pad()
	return a.err
}

// onlyWriter makes an archive an io.Writer within this package alone.
type onlyWriter struct{ a *archive }

func (o onlyWriter) Write(p []byte) (int, error) {
	o.a.write(p)
	return len(p), o.a.err
}

func (a *archive) extra(e image.Entry) {
	perm := uint32(e.Mode.Perm())
	switch {
	case e.Mode.IsDir():
		a.header(e.Name, typeFolder|perm, 0, 0, 0)
	case e.Mode&fs.ModeSymlink != 0:
		a.body(e.Name, typeLink|0o777, []byte(e.Target))
	default:
		a.body(path.Clean(e.Name), typeFile|perm, e.Body)
	}
}
