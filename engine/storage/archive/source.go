package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"filippo.io/age"

	"osaurus/engine/storage/disk"
)

// Source is an export that is read. It is read whole by Verify before
// anything is taken from it, and each file is compared again as it is taken.
type Source struct {
	path       string
	folder     bool
	encrypted  bool
	identities []age.Identity
	size       int64

	manifest Manifest
	items    map[string]Item
}

const agePrefix = "age-encryption.org/"

// Open looks at what path is: a folder, a tar, or one encrypted with age,
// which one of identities has to open.
func Open(path string, identities ...age.Identity) (*Source, error) {
	s := &Source{path: path, identities: identities}
	info, err := os.Stat(path) // a link to an export is the owner's business
	if err != nil {
		return nil, err
	}
	if s.folder = info.IsDir(); s.folder {
		return s, nil
	}
	s.size = info.Size()
	f, err := s.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	head := make([]byte, len(agePrefix))
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	s.encrypted = string(head[:n]) == agePrefix
	if s.encrypted && len(identities) == 0 {
		return nil, fmt.Errorf("%w: no age identity was given", ErrIdentity)
	}
	return s, nil
}

// Size is how many bytes there are to read, roughly.
func (s *Source) Size() (size int64, err error) {
	if !s.folder {
		return s.size, nil
	}
	err = filepath.WalkDir(s.path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}

func (s *Source) open() (*os.File, error) {
	f, err := os.OpenFile(s.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(ErrNotExport, err, f.Close())
	}
	return f, nil
}

// visit is shown one file. It need not read all of it.
type visit func(path string, size int64, r io.Reader) error

func (s *Source) each(ctx context.Context, see visit) error {
	if s.folder {
		return s.eachFile(ctx, see)
	}
	return s.eachEntry(ctx, see)
}

func (s *Source) eachFile(ctx context.Context, see visit) error {
	root, err := os.OpenRoot(s.path)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // read only
	n := 0
	return fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		switch err = errors.Join(err, ctx.Err()); {
		case err != nil:
			return err
		case e.IsDir(), strings.HasPrefix(path, "."): // or what a file manager leaves
			return nil
		case !e.Type().IsRegular():
			return fmt.Errorf("%w: %s is no regular file", ErrNotExport, path)
		}
		if n++; n > MaxItems {
			return fmt.Errorf("%w: more than %d files", ErrNotExport, MaxItems)
		}
		return seeFile(root, path, see)
	})
}

func seeFile(root *os.Root, path string, see visit) error {
	f, err := root.OpenFile(filepath.FromSlash(path), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return errors.Join(disk.ErrUnsafe, err)
	}
	return see(path, info.Size(), f)
}

func (s *Source) eachEntry(ctx context.Context, see visit) error {
	f, err := s.open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	var src io.Reader = bufio.NewReaderSize(f, 1<<20)
	if s.encrypted {
		src, err = age.Decrypt(src, s.identities...)
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) {
			return ErrIdentity
		} else if err != nil {
			return fmt.Errorf("%w: %w", ErrNotExport, err)
		}
	}
	root, left := "", s.size // a sparse entry may claim far more than the file holds
	r := tar.NewReader(src)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			// What follows the end of the tar must be authentic too.
			if _, err = io.Copy(io.Discard, src); err != nil {
				return fmt.Errorf("%w: %w", ErrDiffers, err)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNotExport, err)
		}
		top, rel, _ := strings.Cut(h.Name, "/")
		if root == "" && exportName.MatchString(top) {
			root = top
		}
		switch {
		case n > MaxItems:
			return fmt.Errorf("%w: more than %d files", ErrNotExport, MaxItems)
		case top != root || root == "":
			return fmt.Errorf("%w: %q is outside its folder", ErrNotExport, h.Name)
		case h.Typeflag == tar.TypeDir:
			continue
		case h.Typeflag != tar.TypeReg:
			return fmt.Errorf("%w: %s is no regular file", ErrNotExport, rel)
		}
		if left -= h.Size; left < 0 {
			return fmt.Errorf("%w: %s is larger than the archive", ErrNotExport, rel)
		}
		if err := see(rel, h.Size, r); err != nil {
			return err
		}
	}
}

// Verify reads everything and compares every file with the manifest: none may
// be missing, differ or be unknown. progress is told the bytes read.
func (s *Source) Verify(ctx context.Context, progress func(bytes int64)) (Manifest, error) {
	type seen struct {
		size int64
		sum  string
	}
	files := map[string]seen{}
	var text bytes.Buffer
	var done int64
	err := s.each(ctx, func(path string, size int64, r io.Reader) error {
		if path == readmeName {
			return nil
		}
		if _, again := files[path]; again {
			return fmt.Errorf("%w: %s is there twice", ErrNotExport, path)
		}
		if path == manifestName {
			if size > MaxManifest || text.Len() > 0 {
				return fmt.Errorf("%w: %s is too large, or there twice", ErrNotExport, manifestName)
			}
			_, err := io.Copy(&text, r)
			return err
		}
		if !ValidPath(path) {
			return fmt.Errorf("%w: %q is no path of an export", ErrNotExport, path)
		}
		sum := sha256.New()
		n, err := io.Copy(sum, withContext{ctx, r})
		files[path] = seen{n, hex.EncodeToString(sum.Sum(nil))}
		done += n
		progress(done)
		return err
	})
	if err != nil {
		return Manifest{}, err
	}
	if text.Len() == 0 {
		return Manifest{}, fmt.Errorf("%w: there is no %s", ErrNotExport, manifestName)
	}
	m, err := parseManifest(text.Bytes())
	if err != nil {
		return Manifest{}, err
	}
	s.items = make(map[string]Item, len(m.Items))
	for _, it := range m.Items {
		if it.Error != "" {
			continue
		}
		if got, there := files[it.Path]; !there || got != (seen{it.Bytes, it.SHA256}) {
			return Manifest{}, fmt.Errorf("%w: %s", ErrDiffers, it.Path)
		}
		s.items[it.Path] = it
	}
	for path := range files {
		if _, listed := s.items[path]; !listed {
			return Manifest{}, fmt.Errorf("%w: %s is not listed", ErrDiffers, path)
		}
	}
	s.manifest = m
	return m, nil
}

// Each passes every file to take, in the order of the export. What take reads
// ends in ErrDiffers if it is no longer what Verify saw; it must read to the
// end.
func (s *Source) Each(ctx context.Context, take func(Item, io.Reader) error) error {
	left := len(s.items)
	err := s.each(ctx, func(path string, size int64, r io.Reader) error {
		it, listed := s.items[path]
		switch {
		case path == manifestName, path == readmeName:
			return nil
		case !listed:
			return fmt.Errorf("%w: %s", ErrDiffers, path)
		}
		left--
		c := &compared{src: withContext{ctx, r}, want: it, sum: sha256.New()}
		if err := take(it, c); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, c); err != nil { // take may stop short of the end
			return err
		}
		return nil
	})
	if err == nil && left != 0 {
		err = ErrDiffers
	}
	return err
}

// Failed lists what the export says it does not hold.
func (m Manifest) Failed() []Item {
	return slices.DeleteFunc(slices.Clone(m.Items), func(it Item) bool { return it.Error == "" })
}

// compared ends in ErrDiffers instead of io.EOF for content that is not the
// item's.
type compared struct {
	src  io.Reader
	want Item
	sum  hash.Hash
	n    int64
}

func (c *compared) Read(p []byte) (int, error) {
	n, err := c.src.Read(p)
	c.sum.Write(p[:n])
	c.n += int64(n)
	if c.n > c.want.Bytes || errors.Is(err, io.EOF) && (c.n != c.want.Bytes || hex.EncodeToString(c.sum.Sum(nil)) != c.want.SHA256) {
		err = fmt.Errorf("%w: %s", ErrDiffers, c.want.Path)
	}
	return n, err
}

type withContext struct {
	ctx context.Context
	src io.Reader
}

func (r withContext) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.src.Read(p)
}
