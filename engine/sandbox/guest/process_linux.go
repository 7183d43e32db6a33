package guest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// process is one line of the process table.
type process struct {
	pid, parent int
	state       byte
	uid         uint32
}

// processes returns the pids that match.
func processes(match func(process) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := look(pid); ok && match(p) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// look reads /proc/<pid>/stat, whose second field is a name in parentheses
// that may contain anything, and the owner of the directory.
func look(pid int) (process, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	raw, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return process{}, false
	}
	rest := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	info, err := os.Stat(dir)
	if err != nil || len(rest) < 2 {
		return process{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	parent, err := strconv.Atoi(string(rest[1]))
	if !ok || err != nil {
		return process{}, false
	}
	return process{pid: pid, parent: parent, state: rest[0][0], uid: st.Uid}, true
}

// hideProcesses makes /proc root's alone, where it knows no hidepid, as
// gVisor's does not: an agent of a shared sandbox would else read the command
// lines of another. It looks that it became so.
func hideProcesses() error {
	if err := os.Chmod("/proc", 0o700); err != nil { //nolint:gosec // a directory
		return err
	}
	info, err := os.Stat("/proc")
	if err == nil && info.Mode().Perm() != 0o700 {
		err = errors.New("guest: processes cannot be hidden in a shared sandbox")
	}
	return err
}

// reaper collects children that are not ours: as first process, those whose
// parents ended. Children of ours are left for their own Wait.
type reaper struct {
	mu  sync.Mutex
	own map[int]bool
}

func newReaper() *reaper { return &reaper{own: map[int]bool{}} }

// start runs f, which starts a child and returns its pid, so that no look at
// the process table falls between the two.
func (r *reaper) start(f func() (int, error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := f()
	if err == nil {
		r.own[pid] = true
	}
	return err
}

// done says that a child of ours was waited for.
func (r *reaper) done(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.own, pid)
}

func (r *reaper) run(ctx context.Context) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			r.reap()
		}
	}
}

func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	self := os.Getpid()
	pids, err := processes(func(p process) bool { return p.parent == self && p.state == 'Z' && !r.own[p.pid] })
	if err != nil {
		return // the next signal comes
	}
	for _, pid := range pids {
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // it may be gone
	}
}
