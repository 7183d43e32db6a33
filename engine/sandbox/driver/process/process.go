//go:build linux

package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Process is another process, held so that its id cannot come to name a
// stranger. It need not be a child.
type Process struct {
	PID int
	fd  *os.File
}

// Hold takes hold of a process.
func Hold(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &Process{pid, os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Wait returns when the process has ended, or was released, and releases it.
func (p *Process) Wait() {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool { // fails when it was released
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	p.Release()
}

// Kill ends it; one that has ended is fine.
func (p *Process) Kill() {
	if raw, err := p.fd.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
}

// Release lets go of it.
func (p *Process) Release() { _ = p.fd.Close() } // nothing was written

// Arguments are what a process was started with; none when it has ended.
func Arguments(pid int) []string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	var args []string
	for a := range bytes.SplitSeq(bytes.TrimSuffix(raw, []byte{0}), []byte{0}) {
		args = append(args, string(a))
	}
	return args
}

// KillAll kills every process whose arguments match, and waits until they have
// ended. Its own process it leaves alone.
func KillAll(ctx context.Context, match func(args []string) bool) error {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, n := range names {
		pid, err := strconv.Atoi(n.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// Held first, so that the arguments are those of what is killed.
		p, err := Hold(pid)
		if err != nil {
			continue
		}
		if !match(Arguments(pid)) {
			p.Release()
			continue
		}
		if err := killAndWait(ctx, p); err != nil {
			return fmt.Errorf("process %d does not end: %w", pid, err)
		}
	}
	return nil
}

func killAndWait(ctx context.Context, p *Process) error {
	p.Kill()
	ended := make(chan struct{})
	go func() { p.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		p.Release()
		<-ended
		return ctx.Err()
	}
}
