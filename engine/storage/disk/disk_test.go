package disk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

var errStopped = errors.New("stopped")

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestReplace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, want := range []string{"first", "", strings.Repeat("second", 20_000)} {
		if err := (Disk{}).ReplaceBytes(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"f"}) {
		t.Errorf("left behind: %v", got)
	}
}

// TestReplaceStoppedAnywhere refuses each step once: the old content or the
// new one is whole, and only a failed removal leaves a file that a sweep
// recognises.
func TestReplaceStoppedAnywhere(t *testing.T) {
	t.Parallel()
	var order []Op
	record := Disk{Step: func(op Op, _ string) error { order = append(order, op); return nil }}
	if err := record.ReplaceBytes(filepath.Join(t.TempDir(), "f"), []byte("new")); err != nil {
		t.Fatal(err)
	}
	if want := []Op{Create, Write, Sync, Rename, SyncDir}; !slices.Equal(order, want) {
		t.Fatalf("steps %v, want %v", order, want)
	}
	for at := range order {
		for _, dies := range []bool{false, true} { // refused once, or everything afterwards too
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			if err := (Disk{}).ReplaceBytes(path, []byte("old")); err != nil {
				t.Fatal(err)
			}
			n := 0
			d := Disk{Step: func(Op, string) error {
				n++
				if n-1 == at || dies && n-1 > at {
					return errStopped
				}
				return nil
			}}
			if err := d.ReplaceBytes(path, []byte("new")); !errors.Is(err, errStopped) {
				t.Fatalf("step %d: %v", at, err)
			}
			want := "old"
			if order[at] == SyncDir {
				want = "new"
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != want {
				t.Errorf("step %d: read %q, %v", at, got, err)
			}
			for _, name := range names(t, dir) {
				if name != "f" && (!dies || !strings.Contains(name, TempInfix)) {
					t.Errorf("step %d left %s", at, name)
				}
			}
		}
	}
}

func TestReplaceOfAFailingSource(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	err := Disk{}.Replace(filepath.Join(dir, "f"), func(io.Writer) error { return errStopped })
	if !errors.Is(err, errStopped) || len(names(t, dir)) != 0 {
		t.Errorf("%v, left %v", err, names(t, dir))
	}
}

func TestUnsafePaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim, link, dangling := filepath.Join(dir, "victim"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	hard, twin, folder, pipe := filepath.Join(dir, "hard"), filepath.Join(dir, "twin"), filepath.Join(dir, "folder"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(victim, []byte("kept"), 0o600), os.Symlink(victim, link), os.Symlink(dir+"/none", dangling),
		os.WriteFile(hard, nil, 0o600), os.Link(hard, twin), os.Mkdir(folder, 0o700), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	paths := []string{link, dangling, twin, folder, pipe}
	if os.Getuid() == 0 {
		foreign := filepath.Join(dir, "foreign")
		if err := errors.Join(os.WriteFile(foreign, nil, 0o600), os.Chown(foreign, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, foreign)
	}
	for _, path := range paths {
		if _, err := Regular(path); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s is regular: %v", path, err)
		}
		if _, _, err := Open(path); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s was opened: %v", path, err)
		}
		if err := (Disk{}).ReplaceBytes(path, []byte("x")); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s was replaced: %v", path, err)
		}
		if _, err := (Disk{}).Create(path); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s was created: %v", path, err)
		}
	}
	if got, err := os.ReadFile(victim); err != nil || !bytes.Equal(got, []byte("kept")) {
		t.Errorf("a link was followed: %q, %v", got, err)
	}
	f, info, err := Open(victim)
	if err != nil || info.Size() != 4 {
		t.Fatalf("%v", err)
	}
	f.Close()
}

// TestEachStepCanBeRefused also shows that a refused step changed nothing.
func TestEachStepCanBeRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := Disk{Step: func(Op, string) error { return errStopped }}
	_, create := d.Create(filepath.Join(dir, "new"))
	for name, err := range map[string]error{
		"create": create, "remove": d.Remove(kept), "rename": d.Rename(kept, kept+"2"), "sync": d.SyncFile(kept),
		"sync dir": d.SyncDir(dir), "mkdir": d.MkdirAll(filepath.Join(dir, "sub")),
	} {
		if !errors.Is(err, errStopped) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.MkdirAll(dir); err != nil {
		t.Error("making what is there is no step")
	}
	if got := names(t, dir); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("found %v", got)
	}
	if err := errors.Join(Disk{}.SyncFile(kept), Disk{}.Remove(kept), Disk{}.Remove(kept), Disk{}.SyncDir(dir), Disk{}.MkdirAll(filepath.Join(dir, "a", "b"))); err != nil {
		t.Error(err)
	}
}
