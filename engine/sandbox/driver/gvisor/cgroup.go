//go:build linux

package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// limitFiles are where the memory limit stands, in version 2 and 1.
func limitFile(group string, unified bool) string {
	if unified {
		return filepath.Join(cgroupRoot, group, "memory.max")
	}
	return filepath.Join(cgroupRoot, "memory", group, "memory.limit_in_bytes")
}

// unified says whether the machine has cgroups of version 2 only.
func unified() bool {
	_, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil
}

// cgroupsUsable says whether this user can limit memory and processes.
func cgroupsUsable() bool {
	if os.Geteuid() != 0 {
		return false
	}
	if unified() {
		raw, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
		f := " " + strings.TrimSpace(string(raw)) + " "
		return err == nil && strings.Contains(f, " memory ") && strings.Contains(f, " pids ") && unix.Access(cgroupRoot, unix.W_OK) == nil
	}
	for _, controller := range []string{"memory", "pids", "cpu"} {
		if unix.Access(filepath.Join(cgroupRoot, controller, "tasks"), unix.W_OK) != nil {
			return false
		}
	}
	return true
}

// verifyMemoryLimit reads back that a process lives under a limit, because a
// runtime may set none and say nothing.
func verifyMemoryLimit(pid int, want int64) error {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err
	}
	group, v2, err := memoryGroup(string(raw))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(limitFile(group, v2))
	if err != nil {
		return err
	}
	// The kernel rounds down to pages.
	if got, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err != nil || got > want {
		return fmt.Errorf("the sandbox has the memory limit %q, not %d", strings.TrimSpace(string(text)), want)
	}
	return nil
}

// memoryGroup finds the group that limits memory in /proc/<pid>/cgroup.
func memoryGroup(text string) (group string, v2 bool, err error) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		if f[1] == "memory" {
			return f[2], false, nil
		}
		if f[0] == "0" && f[1] == "" {
			group, v2 = f[2], true
		}
	}
	if group == "" {
		return "", false, errors.New("the sandbox is in no group that limits memory")
	}
	return group, v2, nil
}

// settle is how long a group that is not empty yet is left alone.
const settle = 5 * time.Millisecond

// removeCgroups deletes the groups a sandbox had, and kills what is still in
// them: what it ran outlives its main process by moments.
func removeCgroups(ctx context.Context, id string) error {
	found, err := filepath.Glob(filepath.Join(cgroupRoot, "*", cgroupParent, id))
	if err != nil {
		return err
	}
	for _, dir := range append(found, filepath.Join(cgroupRoot, cgroupParent, id)) {
		err = errors.Join(err, removeCgroup(ctx, dir))
	}
	return err
}

func removeCgroup(ctx context.Context, dir string) error {
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		raw, readErr := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, f := range strings.Fields(string(raw)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
				_ = unix.Kill(pid, unix.SIGKILL) // it may have ended meanwhile
			}
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return errors.Join(err, readErr, ctx.Err())
		}
	}
}
