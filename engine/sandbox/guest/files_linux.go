package guest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"osaurus/engine/atomicfile"
	"osaurus/engine/sandbox/wire"
)

// upload is a put whose pieces still come.
type upload struct {
	r    wire.Request // the first
	data bytes.Buffer
}

var errUpload = errors.New("guest: the pieces of a file do not fit together, or are too many")

// put takes a piece of a file and writes it when it was the last.
func (s *session) put(r wire.Request) (more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[r.ID]
	if u == nil {
		if len(s.uploads) >= maxJobs {
			return false, errUpload
		}
		u = &upload{r: r}
		s.uploads[r.ID] = u
	}
	u.data.Write(r.Data)
	if u.r.Path != r.Path || u.r.User != r.User || u.r.Mode != r.Mode || u.data.Len() > maxUpload {
		delete(s.uploads, r.ID)
		return false, errUpload
	}
	if r.More {
		return true, nil
	}
	delete(s.uploads, r.ID)
	return false, s.write(r.User, r.Path, fs.FileMode(r.Mode), u.data.Bytes())
}

// open returns the directory that a user's path must stay in, and the name
// below it. Links that an agent planted lead nowhere out of it. Root's files
// are not below the workspace, where agents could plant some.
func (s *session) open(user, path string) (root *os.Root, name string, uid uint32, err error) {
	dir := "/"
	if user != "" {
		if uid, err = s.users.uid(user); err != nil {
			return nil, "", 0, err
		}
		dir = s.p.home(user)
		if shared := filepath.Join(s.p.Workspace, "shared"); strings.HasPrefix(path, shared+"/") {
			dir = shared
		}
		if !strings.HasPrefix(path, dir+"/") {
			return nil, "", 0, errors.New("guest: the path is outside the user's home and the shared directory")
		}
	} else if strings.HasPrefix(path, s.p.Workspace+"/") {
		return nil, "", 0, errors.New("guest: files below the workspace belong to a user")
	}
	if root, err = os.OpenRoot(dir); err != nil {
		return nil, "", 0, err
	}
	if name, err = filepath.Rel(dir, path); err != nil {
		return nil, "", 0, errors.Join(err, root.Close())
	}
	return root, name, uid, nil
}

// write replaces a file; missing directories are made for the user.
func (s *session) write(user, path string, mode fs.FileMode, data []byte) (err error) {
	root, name, uid, err := s.open(user, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	made := ""
	for _, part := range strings.Split(filepath.Dir(name), "/") {
		made = filepath.Join(made, part)
		if err := root.Mkdir(made, 0o755); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := root.Lchown(made, int(uid), int(uid)); err != nil {
			return err
		}
	}
	if err := atomicfile.WriteIn(root, name, data); err != nil {
		return err
	}
	if err := root.Lchown(name, int(uid), int(uid)); err != nil {
		return err
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only opened to change it
	if err := ownedBy(f, uid); err != nil {
		return err
	}
	return f.Chmod(mode)
}

// get answers with a file in pieces.
func (s *session) get(r wire.Request) (err error) {
	root, name, _, err := s.open(r.User, r.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxUpload {
		return errors.New("guest: not a regular file of at most 64 MiB")
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxUpload))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	for len(data) > wire.MaxChunk {
		s.reply(wire.Reply{ID: r.ID, OK: true, Data: data[:wire.MaxChunk], More: true})
		data = data[wire.MaxChunk:]
	}
	s.reply(wire.Reply{ID: r.ID, OK: true, Data: data, Mode: uint32(info.Mode().Perm())})
	return nil
}
