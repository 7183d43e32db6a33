package guest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"osaurus/engine/sandbox/wire"
)

// home is a user's home while it is carried out of the sandbox or into it, by
// root: its owner may have shut itself out of a file, and is to find that file
// again as it was. No link in it leads out, and what belongs to others is none
// of the user's and stays behind.
type home struct {
	root *os.Root
	uid  int
	left int               // entries that stayed behind
	seen map[uint64]string // files with several names, by inode
}

// Carry is "osaurus-guest pack NAME", which writes the archive of a user's home
// to out, and "osaurus-guest unpack NAME", which unpacks wire.PackedHome in it.
// It returns how many entries stayed behind.
func Carry(verb, name string, out io.Writer) (left int, err error) {
	u, err := user.Lookup(name)
	if err != nil || !wire.ValidUser(name) {
		return 0, errors.New("guest: no such user")
	}
	h := &home{seen: map[uint64]string{}}
	if h.uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, err
	}
	if h.root, err = os.OpenRoot(u.HomeDir); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, h.root.Close()) }()
	switch verb {
	case "pack":
		err = h.pack(out)
	case "unpack":
		err = h.unpack()
	default:
		err = errors.New("guest: homes are packed or unpacked")
	}
	return h.left, err
}

// pack fails only when out does.
func (h *home) pack(out io.Writer) error {
	packer, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(packer)
	err = fs.WalkDir(h.root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			h.left++
			return nil //nolint:nilerr // one that cannot be read stays behind
		}
		if name == "." || name == wire.PackedHome {
			return nil
		}
		return h.packOne(archive, name)
	})
	return errors.Join(err, archive.Close(), packer.Close())
}

func (h *home) packOne(archive *tar.Writer, name string) error {
	info, err := h.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile
	}
	st, ok := sysOf(info, err)
	if !ok || int(st.Uid) != h.uid {
		h.left++
		if err == nil && info.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	target, content := "", io.ReadCloser(nil)
	switch info.Mode().Type() {
	case fs.ModeDir, fs.ModeNamedPipe:
	case fs.ModeSymlink:
		if target, err = h.root.Readlink(name); err != nil {
			h.left++
			return nil
		}
	case 0:
		if first, again := h.seen[st.Ino]; again {
			return archive.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first})
		}
		if content, info, err = h.open(name); err != nil {
			h.left++
			return nil
		}
		defer func() { _ = content.Close() }() // only read
		if st.Nlink > 1 {
			h.seen[st.Ino] = name
		}
	default: // sockets end with their programs, and agents make no devices
		return nil
	}
	head, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	if head.Name = name; info.IsDir() {
		head.Name += "/"
	}
	if err := archive.WriteHeader(head); err != nil || content == nil {
		return err
	}
	return fill(archive, content, head.Size)
}

// open opens a file, which somebody may have put something else in the place of.
func (h *home) open(name string) (io.ReadCloser, fs.FileInfo, error) {
	f, err := h.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if st, ok := sysOf(info, err); !ok || !info.Mode().IsRegular() || int(st.Uid) != h.uid {
		return nil, nil, errors.Join(errors.New("guest: not a file of the user"), err, f.Close())
	}
	return f, info, nil
}

func sysOf(info fs.FileInfo, err error) (*syscall.Stat_t, bool) {
	if err != nil {
		return nil, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return st, ok
}

// fill writes size bytes whatever happens to the file meanwhile: zeros for
// those that it has no more.
func fill(w io.Writer, content io.Reader, size int64) error {
	n, err := io.Copy(w, io.LimitReader(content, size))
	for zeros := make([]byte, 32<<10); n < size && errors.Is(err, nil); {
		var more int
		more, err = w.Write(zeros[:min(int64(len(zeros)), size-n)])
		n += int64(more)
	}
	return err
}

// unpack fails when the archive breaks off; what cannot be made for another
// reason, such as a full disk, stays behind.
func (h *home) unpack() (err error) {
	f, err := h.root.Open(wire.PackedHome)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := h.root.Remove(wire.PackedHome); err != nil {
		return err
	}
	packer, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	var dirs []*tar.Header // their modes come last: one may be read-only
	for archive := tar.NewReader(packer); ; {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if head.Name = filepath.Clean(head.Name); head.Name == "." {
			continue
		}
		if err := h.unpackOne(head, archive); err != nil {
			h.left++
		} else if head.Typeflag == tar.TypeDir {
			dirs = append(dirs, head)
		}
	}
	for _, head := range slices.Backward(dirs) {
		if h.settle(head) != nil {
			h.left++
		}
	}
	return nil
}

func (h *home) unpackOne(head *tar.Header, content io.Reader) error {
	name := head.Name
	if head.Typeflag == tar.TypeDir {
		if err := h.root.Mkdir(name, 0o700); !errors.Is(err, fs.ErrExist) {
			return err
		}
		info, err := h.root.Lstat(name)
		if err == nil && !info.IsDir() {
			err = fs.ErrExist
		}
		return err
	}
	_ = h.root.Remove(name) // the empty plugins/ that every new home has
	switch head.Typeflag {
	case tar.TypeSymlink:
		return errors.Join(h.root.Symlink(head.Linkname, name), h.root.Lchown(name, h.uid, h.uid))
	case tar.TypeLink:
		return h.root.Link(filepath.Clean(head.Linkname), name)
	case tar.TypeFifo:
		if err := h.pipe(name); err != nil {
			return err
		}
		return h.settle(head)
	case tar.TypeReg:
		f, err := h.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(sparse(f, content), f.Truncate(head.Size), f.Close()); err != nil {
			return errors.Join(err, h.root.Remove(name))
		}
		return h.settle(head)
	}
	return fmt.Errorf("guest: no entry of a home: %q", head.Typeflag)
}

// pipe makes a FIFO, below the directory that holds it and nowhere else.
func (h *home) pipe(name string) error {
	dir, err := h.root.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(unix.Mkfifoat(int(dir.Fd()), filepath.Base(name), 0o600), dir.Close())
}

// settle gives an entry its owner, mode and time.
func (h *home) settle(head *tar.Header) error {
	return errors.Join(h.root.Lchown(head.Name, h.uid, h.uid), h.root.Chmod(head.Name, head.FileInfo().Mode()), h.root.Chtimes(head.Name, head.ModTime, head.ModTime))
}

// sparse copies without the zeros, which a file may have more of than there is
// room for.
func sparse(f *os.File, content io.Reader) error {
	block, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(content, block)
		if bytes.Equal(block[:n], zeros[:n]) {
			_, failed := f.Seek(int64(n), io.SeekCurrent)
			err = errors.Join(failed, err)
		} else if _, failed := f.Write(block[:n]); failed != nil {
			return failed
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
