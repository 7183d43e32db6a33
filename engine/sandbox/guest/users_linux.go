package guest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"osaurus/engine/atomicfile"
	"osaurus/engine/sandbox/wire"
)

// users are the agents of this sandbox. passwd and group are ours to write:
// busybox has no adduser, and Debian's refuses names of our length.
type users struct {
	p  Places
	mu sync.Mutex
	by map[string]uint32
}

// stem is the name of a user's home.
func stem(name string) string { return strings.TrimPrefix(name, "agent-") }

// openUsers makes the directories that users need.
func openUsers(p Places) (*users, error) {
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{
		{p.Run, 0o711}, // open your own by name, list nothing
		{p.Workspace, 0o755}, {filepath.Join(p.Workspace, "agents"), 0o755}, {filepath.Join(p.Workspace, "shared"), 0o777 | fs.ModeSticky},
	} {
		if err := directory(d.path, d.mode, 0); err != nil {
			return nil, err
		}
	}
	return &users{p: p, by: map[string]uint32{}}, nil
}

// directory makes path a directory of uid with exactly this mode, and looks
// that it became one: on some mounts a change of owner silently does nothing.
func directory(path string, mode fs.FileMode, uid uint32) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only opened to change it
	if err := f.Chown(int(uid), int(uid)); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return ownedBy(f, uid)
}

func ownedBy(f *os.File, uid uint32) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != uid || st.Gid != uid {
		return fmt.Errorf("guest: %s does not belong to user %d after the change", filepath.Base(f.Name()), uid)
	}
	return nil
}

func (u *users) uid(name string) (uint32, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	uid, ok := u.by[name]
	if !ok {
		return 0, errors.New("guest: no such user")
	}
	return uid, nil
}

// add makes a user and its home. Adding one that is there with the same uid
// repairs its home.
func (u *users) add(name string, uid uint32) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for other, taken := range u.by {
		if (other == name) != (taken == uid) {
			return errors.New("guest: the name or the uid is taken")
		}
	}
	home := u.p.home(name)
	id := strconv.FormatUint(uint64(uid), 10)
	if err := setLine(filepath.Join(u.p.Etc, "passwd"), name, strings.Join([]string{name, "x", id, id, "", home, shell()}, ":")); err != nil {
		return err
	}
	if err := setLine(filepath.Join(u.p.Etc, "group"), name, strings.Join([]string{name, "x", id, ""}, ":")); err != nil {
		return err
	}
	if err := directory(home, 0o700, uid); err != nil {
		return err
	}
	// Whatever has the name is the agent's own affair, and costs it no sandbox.
	plugins := filepath.Join(home, "plugins")
	if _, err := os.Lstat(plugins); errors.Is(err, fs.ErrNotExist) {
		_ = directory(plugins, 0o700, uid)
	}
	u.by[name] = uid
	return nil
}

func shell() string {
	if _, err := os.Stat("/bin/bash"); err == nil {
		return "/bin/bash"
	}
	return "/bin/sh"
}

// remove ends a user: token file, processes, entry, home, in this order.
func (u *users) remove(name string) error {
	uid, err := u.uid(name)
	if err != nil {
		return err
	}
	if err := u.removeToken(name); err != nil {
		return err
	}
	if err := killAll(uid); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.by, name)
	for _, file := range []string{"passwd", "group"} {
		if err := setLine(filepath.Join(u.p.Etc, file), name, ""); err != nil {
			return err
		}
	}
	return os.RemoveAll(u.p.home(name))
}

// setLine replaces the line of name in a file of colon-separated lines; ""
// removes it. The file is readable by all, as programs expect.
func setLine(path, name, line string) error {
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var b strings.Builder
	for old := range strings.Lines(string(raw)) {
		if old = strings.TrimSuffix(old, "\n"); old != "" && !strings.HasPrefix(old, name+":") {
			b.WriteString(old + "\n")
		}
	}
	if line != "" {
		b.WriteString(line + "\n")
	}
	if err := atomicfile.Write(path, []byte(b.String())); err != nil {
		return err
	}
	return os.Chmod(path, 0o644) //nolint:gosec // see above
}

// killAll kills every process of uid, those included that appear meanwhile.
func killAll(uid uint32) error {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for range 100 {
		pids, err := processes(func(p process) bool { return p.uid == uid && p.state != 'Z' })
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
		}
		<-again.C
	}
	return errors.New("guest: processes of the user do not end")
}

// putToken writes a user's token file so that nobody else can read it even
// briefly, and a reader sees an old one or the new one whole.
func (u *users) putToken(name string, token []byte) (err error) {
	uid, err := u.uid(name)
	if err != nil {
		return err
	}
	temp := filepath.Join(u.p.Run, "."+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(temp))
		}
	}()
	if err := f.Chown(int(uid), int(uid)); err != nil {
		return err
	}
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	if err := ownedBy(f, uid); err != nil {
		return err
	}
	if _, err := f.Write(token); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(temp, u.tokenFile(name)); err != nil {
		return err
	}
	return errors.Join(f.Close(), atomicfile.SyncDir(u.p.Run))
}

func (u *users) tokenFile(name string) string { return filepath.Join(u.p.Run, name+".token") }

func (u *users) removeToken(name string) error {
	if !wire.ValidUser(name) {
		return wire.ErrControl
	}
	return atomicfile.Remove(u.tokenFile(name))
}

// power switches the machine off.
func power() error {
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
