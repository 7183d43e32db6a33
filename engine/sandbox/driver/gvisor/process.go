//go:build linux

package gvisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is another process, held so that its id cannot come to name a
// stranger.
type process struct {
	pid int
	fd  *os.File
}

// hold takes hold of a process, which need not be a child.
func hold(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &process{pid, os.NewFile(uintptr(fd), "pidfd")}, nil
}

// wait returns when the process has ended, or was released.
func (p *process) wait() {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool { // fails when it was released
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	p.release()
}

// kill ends it; one that has ended is fine.
func (p *process) kill() {
	if raw, err := p.fd.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
}

func (p *process) release() { _ = p.fd.Close() } // nothing was written

// commandHas says whether a process has an argument.
func commandHas(pid int, arg string) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && slices.ContainsFunc(bytes.Split(raw, []byte{0}), func(a []byte) bool { return string(a) == arg })
}

// killLeft kills every process that runsc started for a state folder, for one
// sandbox or, with id "", for all, and waits until they have ended.
func killLeft(ctx context.Context, state, id string) error {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, n := range names {
		pid, err := strconv.Atoi(n.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, err := hold(pid)
		if err != nil {
			continue
		}
		bundle := "--bundle=" + filepath.Join(filepath.Dir(state), "run", id)
		if !commandHas(pid, "--root="+state) || id != "" && !commandHas(pid, id) && !commandHas(pid, bundle) {
			p.release()
			continue
		}
		if err := killAndWait(ctx, p); err != nil {
			return fmt.Errorf("process %d does not end: %w", pid, err)
		}
	}
	return nil
}

func killAndWait(ctx context.Context, p *process) error {
	p.kill()
	ended := make(chan struct{})
	go func() { p.wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		p.release()
		<-ended
		return ctx.Err()
	}
}

// left lists the sandboxes that folders tell of.
func left(bundles, state string) ([]string, error) {
	found := map[string]bool{}
	for _, dir := range []string{bundles, state} {
		names, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, n := range names {
			// runsc keeps "<id>_sandbox:<id>.state" and ".lock" of each.
			id, _, _ := strings.Cut(n.Name(), "_sandbox:")
			if strings.HasPrefix(id, idPrefix) {
				found[id] = true
			}
		}
	}
	ids := make([]string, 0, len(found))
	for id := range found {
		ids = append(ids, id)
	}
	return ids, nil
}

// removeState deletes what runsc keeps of one sandbox.
func removeState(state, id string) error {
	names, err := os.ReadDir(state)
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), id+"_sandbox:") {
			err = errors.Join(err, os.RemoveAll(filepath.Join(state, n.Name())))
		}
	}
	return err
}
