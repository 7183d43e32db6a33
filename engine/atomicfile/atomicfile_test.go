package atomicfile

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, text := range []string{"first", "", strings.Repeat("x", 1<<20)} {
		if err := Write(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != Mode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if names := listing(t, dir); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

// TestLooseModeIsTightened: a file that others could read is replaced, not
// written through.
func TestLooseModeIsTightened(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := Write(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != Mode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	var seen [8]byte
	if n, _ := open.Read(seen[:]); string(seen[:n]) != "old" {
		t.Error("who had the old file open sees the new content")
	}
}

func TestTargetsThatAreNoFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("kept"), Mode); err != nil {
		t.Fatal(err)
	}
	link, dangling, folder := filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, "folder")
	if err := errors.Join(os.Symlink(victim, link), os.Symlink(filepath.Join(dir, "none"), dangling), os.Mkdir(folder, DirMode)); err != nil {
		t.Fatal(err)
	}
	before := listing(t, dir)
	for _, path := range []string{link, dangling, folder, os.DevNull} {
		if err := Write(path, []byte("new")); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "kept" {
		t.Errorf("a link was followed: %q, %v", got, err)
	}
	if after := listing(t, dir); len(after) != len(before) {
		t.Errorf("left behind: %v", after)
	}
	if err := Write(filepath.Join(dir, "none", "f"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
	if err := Write(filepath.Join(victim, "f"), nil); err == nil {
		t.Error("a file served as folder")
	}
}

var limited = flag.String("limited", "", "the file TestFullDisk writes in its child")

// TestFullDisk writes in a process whose files may not grow past a limit:
// the old content stays and nothing is left behind.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if *limited != "" {
		err := Write(*limited, make([]byte, 1<<20))
		if err == nil {
			t.Fatal("a megabyte was written past the limit")
		}
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := Write(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a shell to set a limit")
	}
	cmd := exec.Command(sh, "-c", `trap '' XFSZ; ulimit -f 16; exec "$0" -test.run '^TestFullDisk$' -limited "$1"`, os.Args[0], path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Errorf("read %q, %v", got, err)
	}
	if names := listing(t, dir); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

// TestReadersSeeOneOrTheOther while the file is replaced again and again.
func TestReadersSeeOneOrTheOther(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	contents := [][]byte{bytes.Repeat([]byte("a"), 9000), bytes.Repeat([]byte("b"), 7000)}
	if err := Write(path, contents[0]); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for _, text := range contents {
		writers.Go(func() {
			for range 50 {
				if err := Write(path, text); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for {
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Errorf("read a mixture of %d bytes, %v", len(got), err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	if err := Write(path, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is missing, which is no error
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if err := SyncDir(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("syncing what is not there: %v", err)
	}
	deep := filepath.Join(filepath.Dir(path), "a", "b")
	if err := MkdirAll(deep); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(deep); err != nil || info.Mode().Perm() != DirMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestWriteIn: the same rules below a root, and no link leads out of it.
func TestWriteIn(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := errors.Join(root.Mkdir("d", DirMode), os.Symlink(outside, filepath.Join(dir, "out")), os.Symlink("f", filepath.Join(dir, "d", "link"))); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "second"} {
		if err := WriteIn(root, "d/f", []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "d", "f"))
		if err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "d", "f")); err != nil || info.Mode() != Mode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := WriteIn(root, "d/link", nil); !errors.Is(err, ErrNotRegular) {
		t.Errorf("a link: %v", err)
	}
	for _, name := range []string{"out/f", "../f", "/f", "none/f"} {
		if err := WriteIn(root, name, nil); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if names := listing(t, filepath.Join(dir, "d")); len(names) != 2 {
		t.Errorf("left behind: %v", names)
	}
	if names := listing(t, outside); len(names) != 0 {
		t.Errorf("written outside: %v", names)
	}
}
