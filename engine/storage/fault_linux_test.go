package storage

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	sqlite3 "github.com/mutecomm/go-sqlcipher/v4"

	"osaurus/engine/keystore"
	"osaurus/engine/storage/archive"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sqlcipher"
)

var (
	faultOp   = flag.String("fault-op", "", "the operation that a re-executed test binary runs")
	faultRoot = flag.String("fault-root", "", "the folder it runs in")
	faults    = flag.Bool("faults", false, "try a fault at every system call, not at a sample")
)

// operation is what a fault is put into. A folder has home/, and out/ for an
// export or its source.
type operation struct {
	prepare func(w *world, dir string)
	run     func(ctx context.Context, s *Storage, dir string) error
	plain   bool // databases are plaintext afterwards
}

var operations = map[string]operation{
	"migrate": {
		func(w *world, _ string) { olderHostWith(w, ChatHistory, Memory, "plugin:org.other") },
		func(ctx context.Context, s *Storage, _ string) error {
			done, err := s.Converge(ctx, nil)
			if err == nil && len(done.Issues) > 0 {
				err = done.Issues[0]
			}
			return err
		}, false,
	},
	"rotate": {little, func(ctx context.Context, s *Storage, _ string) error {
		_, err := s.Rotate(ctx, RotateOptions{})
		return err
	}, false},
	"decrypt": {little, func(ctx context.Context, s *Storage, _ string) error {
		_, err := s.SetPosture(ctx, PosturePlaintext, nil)
		return err
	}, true},
	"export": {little, func(ctx context.Context, s *Storage, dir string) error {
		_, err := s.Export(ctx, ExportOptions{Dest: filepath.Join(dir, "out")})
		return err
	}, false},
	"import": {
		func(w *world, dir string) {
			little(w, dir)
			s, done := w.file()
			_, err := s.Export(w.t.Context(), ExportOptions{Dest: filepath.Join(dir, "out"), Tar: true})
			must(w.t, err)
			must(w.t, done()) // and again into the same home: it replaces everything
		},
		func(ctx context.Context, s *Storage, dir string) error {
			names, err := filepath.Glob(filepath.Join(dir, "out", "*.tar"))
			if err != nil || len(names) != 1 {
				return errors.Join(errors.New("no export"), err)
			}
			src, err := archive.Open(names[0])
			if err == nil {
				_, err = s.Import(ctx, ImportOptions{Source: src})
			}
			return err
		}, false,
	},
}

// file opens the world's root with the keystore in it.
func (w *world) file() (*Storage, func() error) {
	w.t.Helper()
	s, vault, err := openHome(w.t.Context(), w.root)
	must(w.t, err)
	return s, func() error { return errors.Join(s.Close(), vault.Close()) }
}

func little(w *world, _ string) {
	must(w.t, os.MkdirAll(w.root, 0o700))
	s, done := w.file()
	fillLittle(w.t, s)
	must(w.t, done())
}

// checkRest looks at a folder after a fault: everything is there, with keys the
// keystore has, nothing is readable that was not to be, nothing half done is
// left, and the operation then runs.
func checkRest(t *testing.T, name string, op operation, dir string, w *world, want map[string]string) {
	t.Helper()
	s, done := w.file()
	if got := content(t, s); !maps.Equal(got, want) {
		t.Fatalf("%s: the content differs:\n%v\nwant\n%v", name, got, want)
	}
	if issues, files, err := s.VerifyAll(t.Context(), nil); err != nil || len(issues)+len(files) > 0 {
		t.Fatalf("%s: %v %v %v", name, issues, files, err)
	}
	must(t, done())
	_, done = w.file() // a rotation's journal goes at the next clean start
	must(t, done())
	if left := w.readable(); len(left) > 0 && !op.plain {
		t.Fatalf("%s: readable: %v", name, left)
	}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && (isLeftover(e.Name()) || e.Name() == journalFile || archive.IsPartial(e.Name())) {
			t.Fatalf("%s: %s is left", name, path)
		}
		return err
	}))
}

// TestFaultChild is not a test of its own: it runs an operation, on one thread,
// where a fault is put.
func TestFaultChild(t *testing.T) { //nolint:paralleltest // it keeps to one thread
	if *faultOp == "" {
		return
	}
	runtime.LockOSThread()
	w := &world{t: t, root: filepath.Join(*faultRoot, "home")}
	s, done := w.file()
	err := operations[*faultOp].run(t.Context(), s, *faultRoot)
	if err := errors.Join(err, done()); err != nil {
		t.Fatal(err)
	}
}

// injection is what strace does to a system call.
type injection struct{ calls, inject string }

// sample are the calls faults are put into unless all are wanted.
var sample = []int{1, 2, 4, 9, 17}

// TestSystemFaults kills the process at a system call, or lets the call fail,
// while SQLite and we ourselves change files.
func TestSystemFaults(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	if out, err := exec.Command(strace, "-f", "-o", os.DevNull, "-e", "trace=fsync", "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %s", out)
	}
	const names, sizes = "openat,rename,renameat,renameat2,unlink,unlinkat", "pwrite64,write,ftruncate"
	for name, op := range operations {
		for _, f := range []injection{{names, "signal=KILL"}, {"fsync,fdatasync", "signal=KILL"}, {sizes, "signal=KILL"}, {"pwrite64,ftruncate", "error=ENOSPC"}, {"fsync,fdatasync", "error=EIO"}} {
			t.Run(name+" "+f.inject+" "+f.calls, func(t *testing.T) {
				t.Parallel()
				at := 0
				for n := 0; ; n++ {
					if at++; !*faults {
						if n == len(sample) {
							return
						}
						at = sample[n]
					}
					if !faultOnce(t, strace, name, op, f, at) {
						return
					}
				}
			})
		}
	}
}

// faultOnce reports whether the fault was met.
func faultOnce(t *testing.T, strace, name string, op operation, f injection, at int) bool {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "out"), 0o700))
	w, want := prepared(t, op, dir)
	when := fmt.Sprint(at)
	if f.inject == "error=ENOSPC" {
		when += "+" // a full disk stays full
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace="+f.calls, "-e", "inject="+f.calls+":"+f.inject+":when="+when,
		self, "-test.run", "^TestFaultChild$", "-fault-op", name, "-fault-root", dir)
	out, err := cmd.CombinedOutput()
	checkRest(t, fmt.Sprintf("%s of %s at call %d of %s (%v: %s)", f.inject, name, at, f.calls, err, out), op, dir, w, want)
	return err != nil
}

// TestFullDisk runs each operation on a disk that grows until it fits: on real
// ENOSPC everything is as it was.
func TestFullDisk(t *testing.T) {
	if *faultRoot == "" {
		t.Parallel()
		self, err := os.Executable()
		must(t, err)
		cmd := exec.CommandContext(t.Context(), self, "-test.run", "^TestFullDisk$", "-fault-root", t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), "no mount namespace") {
			t.Skipf("no mount namespace here: %v", err)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatalf("no mount namespace: %v", err)
	}
	for name, op := range operations {
		fullDisk(t, name, op)
	}
}

func fullDisk(t *testing.T, name string, op operation) {
	const step, enough = 8 << 10, 256 << 20
	mount := filepath.Join(*faultRoot, name)
	must(t, os.Mkdir(mount, 0o700))
	resize := func(size int64, flags uintptr) {
		if err := syscall.Mount("tmpfs", mount, "tmpfs", flags, fmt.Sprintf("size=%d", size)); err != nil {
			t.Fatalf("no mount namespace: %v", err)
		}
	}
	resize(enough, 0)
	failures := 0
	for extra := int64(0); ; extra += step {
		dir := filepath.Join(mount, fmt.Sprint(extra))
		must(t, os.MkdirAll(filepath.Join(dir, "out"), 0o700))
		w, want := prepared(t, op, dir)
		s, vault := openRoomy(t, w.root)
		resize(usedBelow(t, mount)+extra, syscall.MS_REMOUNT)
		failed := op.run(t.Context(), s, dir)
		_ = errors.Join(s.Close(), vault.Close()) // the disk is full
		resize(enough, syscall.MS_REMOUNT)
		if failed != nil && !isFull(failed) {
			t.Fatalf("%s with %d bytes left: %v", name, extra, causes(failed))
		}
		checkRest(t, fmt.Sprintf("%s with %d bytes left (%v)", name, extra, failed), op, dir, w, want)
		must(t, os.RemoveAll(dir))
		if failed == nil {
			break
		}
		failures++
	}
	if failures < 3 {
		t.Errorf("%s: the disk was full only %d times", name, failures)
	}
}

// prepared fills a folder for an operation and returns what is in its home.
func prepared(t *testing.T, op operation, dir string) (w *world, want map[string]string) {
	t.Helper()
	w = &world{t: t, root: filepath.Join(dir, "home"), vault: keystore.NewMemory()}
	op.prepare(w, dir)
	twin := &world{t: t, root: filepath.Join(t.TempDir(), "home")}
	must(t, os.CopyFS(twin.root, os.DirFS(w.root)))
	s, done := twin.file()
	want = content(t, s)
	must(t, done())
	return w, want
}

// openRoomy opens a home that believes there is room.
func openRoomy(t *testing.T, root string) (*Storage, keystore.Store) {
	t.Helper()
	old, vault, err := openHome(t.Context(), root)
	must(t, err)
	must(t, old.Close())
	s, err := Open(t.Context(), Config{Root: root, Keystore: vault, Disk: disk.Disk{Space: func(string) (int64, error) { return 1 << 50, nil }}})
	must(t, err)
	return s, vault
}

func usedBelow(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	must(t, syscall.Statfs(dir, &st))
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// isFull looks for what SQLite and the system say of a full disk, through
// everything that wraps it.
func isFull(err error) bool {
	var code sqlite3.Error
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, sqlcipher.ErrFull) || errors.Is(err, sqlcipher.ErrIO) || errors.As(err, &code) && (code.Code == sqlite3.ErrFull || code.Code == sqlite3.ErrIoErr)
}

// causes is everything an error wraps.
func causes(err error) []string {
	out := []string{fmt.Sprintf("%T %v", err, err)}
	switch e := err.(type) { //nolint:errorlint // it walks what errors.Is does
	case interface{ Unwrap() error }:
		return append(out, causes(e.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			out = append(out, causes(err)...)
		}
	}
	return out
}
