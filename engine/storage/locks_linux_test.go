package storage

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestLooksDropNoLock: SQLite's lock on a file says to other programs that its
// log is in use. POSIX drops it when any descriptor of the file is closed.
func TestLooksDropNoLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	addNotes(t, s, Memory, 3)
	if !holdsLock(t, s.file(Memory.path())) {
		t.Fatal("an open database holds no lock")
	}
	must(t, func() error { _, err := s.Status(); return err }())
	s.converges()
	must(t, s.Maintain(t.Context(), true))
	must(t, s.Retry(t.Context(), Memory))
	if _, err := s.encryptedDataExists(); err != nil {
		t.Fatal(err)
	}
	if !holdsLock(t, s.file(Memory.path())) {
		t.Fatal("a look at an open database dropped its lock")
	}
	must(t, os.Remove(s.file(Memory.path())))
	st, err := s.Status()
	must(t, err)
	for _, one := range st.Stores {
		if one.ID == Memory && one.Issue != IssueMissing {
			t.Fatalf("a database removed under us is %+v", one)
		}
	}
}

// holdsLock reports whether this process holds a POSIX lock on a file.
func holdsLock(t *testing.T, path string) bool {
	t.Helper()
	info, err := os.Stat(filepath.Clean(path))
	must(t, err)
	of := fmt.Sprintf(" %d ", os.Getpid())
	inode := fmt.Sprintf(":%d ", info.Sys().(*syscall.Stat_t).Ino)
	f, err := os.Open("/proc/locks")
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if strings.Contains(lines.Text(), of) && strings.Contains(lines.Text(), inode) {
			return true
		}
	}
	return false
}
