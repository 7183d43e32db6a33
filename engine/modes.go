package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"osaurus/engine/atomicfile"
)

// ours are the folders below the home that belong to the host alone. Those of
// sandboxes, and what is downloaded for them, have modes of their own.
var ours = []string{
	"PluginSpecs", "Tools", "agent-invites", "agents", "chat-history", "config", "identity", "memory", "methods", "providers", "quarantine", "runtime",
	"sandbox-plugins", "schedules", "sessions.archive", "skills", "themes", "tool-index", "watchers",
}

// programs are the folders among them whose files may be executable.
var programs = []string{"Tools", "skills"}

// maxNarrowed bounds how many names narrow looks at. The home itself is 0700:
// what lies beyond is only reached by its owner.
const maxNarrowed = 100_000

// narrow takes from what belongs to the host the permissions that others have
// on it, as a copy or an older host may have left them. It follows no link. It
// must run before a database is open: closing a file drops the locks on it.
func narrow(home string) error { return narrowUpTo(home, maxNarrowed) }

func narrowUpTo(home string, most int) (err error) {
	root, err := os.OpenRoot(home)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	seen := 0
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		if err != nil {
			return err
		}
		if seen++; seen > most {
			return fs.SkipAll
		}
		top, _, below := strings.Cut(name, "/")
		if e.IsDir() && name != "." && !below && !slices.Contains(ours, top) {
			return fs.SkipDir
		}
		return narrowOne(root, name, e)
	})
	return err
}

func narrowOne(root *os.Root, name string, e fs.DirEntry) (err error) {
	if !e.IsDir() && !e.Type().IsRegular() {
		return nil // links, and the control socket, which has its own
	}
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	mode := atomicfile.Mode
	if top, _, _ := strings.Cut(name, "/"); e.IsDir() || slices.Contains(programs, top) {
		mode = info.Mode().Perm() &^ 0o077
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("%s can be read by others: %w", path.Join(root.Name(), name), err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if opened, err := f.Stat(); err != nil || !os.SameFile(info, opened) {
		return errors.Join(err, fmt.Errorf("%s was replaced while the host started", name))
	}
	if err := f.Chmod(mode); err != nil {
		return fmt.Errorf("%s can be read by others: %w", path.Join(root.Name(), name), err)
	}
	return nil
}
