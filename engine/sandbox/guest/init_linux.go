package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// mounts is what a kernel that just booted lacks. Other users' processes do
// not show in /proc.
var mounts = []struct {
	kind, on, data string
	flags          uintptr
}{
	{"proc", "/proc", "hidepid=2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"sysfs", "/sys", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID},
	{"tmpfs", "/run", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV},
	{"tmpfs", "/tmp", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
}

// Boot does what an init does before Run: mounts, and the loopback interface.
func Boot() error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.on, 0o755); err != nil { //nolint:gosec // mount points
			return err
		}
		if err := unix.Mount(m.kind, m.on, m.kind, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mounting %s: %w", m.on, err)
		}
	}
	return loopback()
}

// loopback brings 127.0.0.1 up (netdevice(7)).
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
		return err
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// Confine forbids this process and all it starts to gain privileges by
// running a program. It works in a static program alone, where all threads
// are the runtime's own.
func Confine() error {
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// Main is osaurus-guest: it reads the boot file, boots if it is to, and runs
// until the host ends it. A machine of its own is then switched off.
func Main(ctx context.Context, file string) error {
	b, err := ReadBoot(file)
	if err != nil {
		return err
	}
	if b.Init {
		if err := Boot(); err != nil {
			return errors.Join(err, power())
		}
	}
	if err := Confine(); err != nil {
		return err
	}
	err = Run(ctx, b, Places{})
	if b.Init {
		return errors.Join(err, power())
	}
	return err
}
