package artifact

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"unicode/utf8"
)

// Limits bound what an image may unpack to.
type Limits struct {
	Bytes   int64
	Entries int
}

// DefaultLimits are those of a sandbox's root file system: 8 GiB, as the disk
// of a virtual machine, and as many names as a large distribution has.
var DefaultLimits = Limits{Bytes: 8 << 30, Entries: 400_000}

// whiteout marks a name that a layer removes, and opaque a folder whose older
// content it hides (image-spec layer.md).
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// Unpack writes the verified image to dest, which it creates, and hashes each
// layer once more on the way, both as it lies on disk and as its tar. It
// refuses device nodes and pipes, absolute names, names with "..", links that
// leave the root, and more than limits. Owners are not kept and set-id bits
// are dropped: everything belongs to who unpacks, the sandbox's root. When
// anything is refused dest is removed.
func (i *Image) Unpack(ctx context.Context, dest string, limits Limits) (err error) {
	if err := os.Mkdir(dest, 0o755); err != nil { //nolint:gosec // the sandbox's other users read their root
		return err
	}
	root, err := os.OpenRoot(dest)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, root.Close())
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dest))
		}
	}()
	u := &unpacking{ctx: ctx, root: root, left: limits}
	for n, l := range i.Layers {
		if err := u.layer(i.layout, l); err != nil {
			return fmt.Errorf("layer %d: %w", n, err)
		}
	}
	return nil
}

type unpacking struct {
	ctx  context.Context
	root *os.Root
	left Limits
	here map[string]bool // names of this layer, which its whiteouts spare
}

func (u *unpacking) layer(l Layout, layer Layer) error {
	f, err := openRegular(l.Blob(layer.Digest))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	blob, tarred := sha256.New(), sha256.New()
	body := io.TeeReader(io.LimitReader(f, layer.Size+1), blob)
	plain, err := decompress(layer.MediaType, body)
	if err != nil {
		return err
	}
	u.here = map[string]bool{}
	stream := io.TeeReader(plain, tarred)
	if err := u.entries(tar.NewReader(stream)); err != nil {
		return err
	}
	// What follows the tar's end still belongs to both hashes.
	if _, err := io.Copy(io.Discard, io.LimitReader(stream, hashChunk)); err != nil {
		return refuse("layer "+short(layer.Digest), "it does not decompress")
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return err
	}
	return errors.Join(hashed("layer", blob, layer.Digest), hashed("unpacked layer", tarred, layer.DiffID))
}

func hashed(what string, h hash.Hash, want string) error {
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return refuse(what, "SHA-256 mismatch: expected %s got %s", want, got)
	}
	return nil
}

func decompress(mediaType string, r io.Reader) (io.Reader, error) {
	switch mediaType {
	case "application/vnd.oci.image.layer.v1.tar":
		return r, nil
	case "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, refuse("layer", "it is not compressed with gzip")
		}
		return z, nil
	}
	return nil, fmt.Errorf("%w: layers of type %q are not supported", ErrPin, mediaType)
}

func (u *unpacking) entries(t *tar.Reader) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return refuse("layer", "its tar does not parse")
		}
		if err := u.ctx.Err(); err != nil {
			return err
		}
		if u.left.Entries--; u.left.Entries < 0 {
			return refuse("image", "it has too many entries")
		}
		name, err := entryName(h.Name)
		if err != nil {
			return err
		}
		if name == "." {
			continue
		}
		if err := u.entry(h, name, t); err != nil {
			if _, ok := errors.AsType[*os.PathError](err); ok && !full(err) {
				return &refusal{what: fmt.Sprintf("entry %q", h.Name), reason: "it does not fit its place", cause: err}
			}
			return err
		}
	}
}

// entryName cleans a name as it stands in a tar.
func entryName(raw string) (string, error) {
	what := fmt.Sprintf("entry %q", raw)
	switch {
	case raw == "" || strings.HasPrefix(raw, "/"):
		return "", refuse(what, "its name is absolute or empty")
	case strings.ContainsRune(raw, 0) || !utf8.ValidString(raw):
		return "", refuse(what, "its name is not text")
	case hasDotDot(raw):
		return "", refuse(what, "its name goes up")
	}
	return path.Clean(raw), nil
}

func hasDotDot(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

func (u *unpacking) entry(h *tar.Header, name string, r io.Reader) error {
	dir, base := path.Split(name)
	if strings.HasPrefix(base, whiteout) {
		return u.whiteout(path.Clean(dir+"."), base)
	}
	if err := u.parents(path.Dir(name)); err != nil {
		return err
	}
	u.here[name] = true
	switch h.Typeflag {
	case tar.TypeDir:
		return u.folder(name, h)
	case tar.TypeReg:
		return u.file(name, h, r)
	case tar.TypeSymlink:
		return u.symlink(name, h.Linkname)
	case tar.TypeLink:
		return u.hardlink(name, h.Linkname)
	}
	return refuse(fmt.Sprintf("entry %q", h.Name), "it is neither file, folder nor link")
}

// whiteout removes what older layers put there, and spares this layer's own.
func (u *unpacking) whiteout(dir, base string) error {
	if base != opaque {
		hidden := strings.TrimPrefix(base, whiteout)
		if hidden == "" || hidden == "." || hidden == ".." {
			return refuse(fmt.Sprintf("entry %q", base), "it removes no name")
		}
		if name := path.Join(dir, hidden); !u.here[name] {
			return u.root.RemoveAll(name)
		}
		return nil
	}
	f, err := u.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, n := range names {
		if name := path.Join(dir, n); !u.here[name] {
			if err := u.root.RemoveAll(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// parents makes the folders an archive left out.
func (u *unpacking) parents(dir string) error {
	if dir == "." {
		return nil
	}
	if info, err := u.root.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	return u.root.MkdirAll(dir, 0o755)
}

func (u *unpacking) folder(name string, h *tar.Header) error {
	info, err := u.root.Lstat(name)
	if err == nil && !info.IsDir() {
		err = u.root.Remove(name)
		info = nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if info == nil || err != nil {
		if err := u.root.Mkdir(name, 0o700); err != nil {
			return err
		}
	}
	// Who unpacks must be able to remove it again.
	return u.root.Chmod(name, fs.FileMode(h.Mode)&0o777|0o700|h.FileInfo().Mode()&fs.ModeSticky)
}

func (u *unpacking) file(name string, h *tar.Header, r io.Reader) error {
	if u.left.Bytes -= h.Size; h.Size < 0 || u.left.Bytes < 0 {
		return refuse("image", "it unpacks to too many bytes")
	}
	if err := u.root.RemoveAll(name); err != nil {
		return err
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if _, ok := errors.AsType[*os.PathError](err); err != nil && !ok {
		err = refuse("layer", "its tar ends early or does not decompress")
	}
	return errors.Join(err, f.Chmod(fs.FileMode(h.Mode)&0o777), f.Close())
}

// symlink writes the target relative to the link, so that it means the same
// inside the sandbox, where the root is "/", and below dest.
func (u *unpacking) symlink(name, target string) error {
	what := fmt.Sprintf("link %q", name)
	if target == "" || strings.ContainsRune(target, 0) || !utf8.ValidString(target) {
		return refuse(what, "its target is not text")
	}
	up := strings.Repeat("../", strings.Count(name, "/"))
	if strings.HasPrefix(target, "/") {
		if hasDotDot(target) {
			return refuse(what, "it leaves the root")
		}
		target = path.Clean(up + "." + target)
	} else if c := path.Join(path.Dir(name), target); c == ".." || strings.HasPrefix(c, "../") {
		return refuse(what, "it leaves the root")
	}
	if err := u.root.RemoveAll(name); err != nil {
		return err
	}
	return u.root.Symlink(target, name)
}

// hardlink gives a regular file of the image a second name.
func (u *unpacking) hardlink(name, target string) error {
	old, err := entryName(target)
	if err != nil {
		return err
	}
	info, err := u.root.Lstat(old)
	if err != nil || !info.Mode().IsRegular() {
		return refuse(fmt.Sprintf("link %q", name), "it names no file of the image")
	}
	if old == name {
		return nil
	}
	if err := u.root.RemoveAll(name); err != nil {
		return err
	}
	return u.root.Link(old, name)
}
