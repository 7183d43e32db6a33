package artifact

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/ulikunitz/xz"

	"osaurus/engine/atomicfile"
)

// Store holds the artifacts of one home. It is safe for concurrent use, but
// one Pull at a time.
type Store struct {
	Dir     string // below the home
	Libexec string // what was built with this program; "" for nothing
	Pins    Pins
	Network Network
	checked Checked
}

// State is what is known of one pinned artifact on disk.
type State string

// The states.
const (
	Good    State = "ok"
	Absent  State = "absent"
	Damaged State = "damaged" // it is not what was pinned
	Unread  State = "unreadable"
)

// Report is one artifact as it lies on disk.
type Report struct {
	Pin   Pin
	State State
	Err   error // nil when Good
}

// Layout is where the images lie: content-addressed, so all share one.
func (s *Store) layout(p Pin) Layout {
	dir := filepath.Join(s.Dir, "images")
	if folder, ok := p.libexec(); ok {
		dir = filepath.Join(s.Libexec, folder)
	}
	return Layout{Dir: dir, Checked: &s.checked}
}

// Path is where a pinned file lies, or will.
func (s *Store) Path(p Pin) string {
	if file, ok := p.libexec(); ok {
		return filepath.Join(s.Libexec, file)
	}
	return filepath.Join(s.Dir, "files", p.Name+"-"+path.Base(p.Platform))
}

// Image verifies the image a name is pinned to and returns it. To be called
// before every boot: it reads what has changed since this process last did.
func (s *Store) Image(name, platform string) (*Image, error) {
	p, err := s.Pins.Find(name, platform)
	if err != nil {
		return nil, err
	}
	if p.Kind != Index {
		return nil, fmt.Errorf("%w: %s is no image", ErrPin, name)
	}
	img, err := s.layout(p).Verify(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return img, nil
}

// File verifies a pinned file and returns its path. To be called before every
// use, as Image.
func (s *Store) File(name, platform string) (string, error) {
	p, err := s.Pins.Find(name, platform)
	if err != nil {
		return "", err
	}
	if p.Kind != File {
		return "", fmt.Errorf("%w: %s is no file", ErrPin, name)
	}
	return s.Path(p), s.checked.Verify(s.Path(p), p.SHA256, p.MaxBytes)
}

// Verify hashes one artifact from disk, whatever was hashed before.
func (s *Store) Verify(p Pin) error {
	if p.Kind == File {
		return VerifySHA256(s.Path(p), p.SHA256, p.MaxBytes)
	}
	l := s.layout(p)
	l.Checked = nil
	_, err := l.Verify(p)
	return err
}

// VerifyAll hashes everything that is pinned.
func (s *Store) VerifyAll(ctx context.Context) ([]Report, error) {
	var all []Report
	for _, p := range s.Pins {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := s.Verify(p)
		all = append(all, Report{p, stateOf(err), err})
	}
	return all, nil
}

func stateOf(err error) State {
	switch {
	case err == nil:
		return Good
	case errors.Is(err, ErrIntegrity):
		return Damaged
	case errors.Is(err, ErrAbsent):
		return Absent
	}
	return Unread
}

// Pull fetches an artifact unless it is there and whole. One of this build is
// never fetched.
func (s *Store) Pull(ctx context.Context, p Pin) error {
	err := s.Verify(p)
	if err == nil {
		return nil
	}
	if p.Built() {
		return fmt.Errorf("%s: %w: %s", p.Name, err, p.Note)
	}
	if err := atomicfile.MkdirAll(filepath.Join(s.Dir, "files")); err != nil {
		return err
	}
	switch {
	case p.Kind == Index:
		err = s.Network.Pull(ctx, p, s.layout(p))
	case strings.HasPrefix(p.URLs[0], memberPrefix):
		err = s.takeMember(ctx, p)
	default:
		err = s.Network.Download(ctx, p, s.Path(p))
	}
	if err != nil {
		return err
	}
	return s.Verify(p)
}

// takeMember takes a file out of another pinned file, which is verified first.
func (s *Store) takeMember(ctx context.Context, p Pin) error {
	from, member, _ := strings.Cut(strings.TrimPrefix(p.URLs[0], memberPrefix), "/")
	archive, err := s.Pins.Find(from, p.Platform)
	if err != nil {
		return err
	}
	if err := s.Pull(ctx, archive); err != nil {
		return err
	}
	partial := s.Path(p) + partialSuffix
	if err := s.copyMember(archive, member, partial, p.MaxBytes); err != nil {
		return errors.Join(err, atomicfile.Remove(partial))
	}
	if err := VerifySHA256(partial, p.SHA256, p.MaxBytes); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", p.Name, err), atomicfile.Remove(partial))
	}
	if err := os.Rename(partial, s.Path(p)); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(s.Path(p)))
}

// copyMember writes a member of a verified archive to dest, through at most
// three links within the archive. A pin names its member; nothing else of the
// archive takes its place.
func (s *Store) copyMember(archive Pin, member, dest string, limit int64) error {
	for range 4 {
		f, err := openRegular(s.Path(archive))
		if err != nil {
			return err
		}
		link, err := scanMember(f, member, dest, limit)
		_ = f.Close() // only read
		if err != nil || link == "" {
			return err
		}
		member = path.Join(path.Dir(member), link)
	}
	return refuse(archive.Name, "its links go round in circles")
}

// scanMember writes the member to dest, or returns the target of the link that
// has its name.
func scanMember(archive io.Reader, member, dest string, limit int64) (link string, err error) {
	z, err := xz.NewReader(archive)
	if err != nil {
		return "", refuse(path.Base(member), "its archive is not compressed with xz")
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return "", refuse(path.Base(member), "it is not in its archive")
		}
		if err != nil {
			return "", refuse(path.Base(member), "its archive does not parse")
		}
		if path.Clean(strings.TrimPrefix(h.Name, "/")) != path.Clean(member) {
			continue
		}
		if h.Typeflag == tar.TypeSymlink {
			return h.Linkname, nil
		}
		f, err := openPartial(strings.TrimSuffix(dest, partialSuffix), 0)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(f, io.LimitReader(t, limit+1))
		return "", cmp.Or(err, f.Sync(), f.Close())
	}
}

// Open returns the store of a home, with the pins of this program. libexec is
// where what was built with it lies.
func Open(home, libexec string) (*Store, error) {
	pins, err := Embedded()
	if err != nil {
		return nil, err
	}
	return &Store{Dir: filepath.Join(home, "container"), Libexec: libexec, Pins: pins}, nil
}
