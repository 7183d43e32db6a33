package artifact

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const emptySum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func write(t testing.TB, path, content string) string {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestVerifySHA256(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "vmlinux"), "kernel")
	sum := sumOf([]byte("kernel"))
	must(t, VerifySHA256(path, sum, 6))
	must(t, VerifySHA256(path, strings.ToUpper(sum), 6))
	raw, err := ReadSHA256(path, sum, 6)
	if err != nil || string(raw) != "kernel" {
		t.Errorf("read %q, %v", raw, err)
	}
	_, err = ReadSHA256(path, sum, 5)
	wants(t, err, "exceeds size cap")
	_, err = ReadSHA256(path, emptySum, 6)
	wants(t, err, "mismatch")
	_, err = ReadSHA256(path, "abc", 6)
	wants(t, err, "malformed")
	must(t, VerifySHA256(write(t, filepath.Join(dir, "empty"), ""), emptySum, 0))
	wants(t, VerifySHA256(path, sum, 5), "exceeds size cap")
	wants(t, VerifySHA256(path, emptySum, 6), "SHA-256 mismatch: expected "+emptySum+" got "+sum)
	for _, bad := range []string{"", sum[1:], sum + "0", "z" + sum[1:], " " + sum[1:]} {
		// Refused before the file is looked at: there is none.
		wants(t, VerifySHA256(filepath.Join(dir, "none"), bad, 6), "malformed")
	}
	if err := VerifySHA256(filepath.Join(dir, "none"), sum, 6); !errors.Is(err, ErrAbsent) {
		t.Errorf("no file: %v", err)
	}
	must(t, os.Symlink(path, filepath.Join(dir, "link")))
	wants(t, VerifySHA256(filepath.Join(dir, "link"), sum, 6), "symbolic link")
	wants(t, VerifySHA256(dir, sum, 6), "not a regular file")
}

func TestCheckedHashesAgainWhatChanged(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(t.TempDir(), "f"), "good")
	sum := sumOf([]byte("good"))
	var c Checked
	must(t, c.Verify(path, sum, 10))
	info, err := os.Stat(path)
	must(t, err)
	// Same size, and the old time put back.
	write(t, path, "evil")
	must(t, os.Chtimes(path, time.Time{}, info.ModTime()))
	wants(t, c.Verify(path, sum, 10), "mismatch")
	write(t, path, "good")
	must(t, c.Verify(path, sum, 10))
	wants(t, c.Verify(path, emptySum, 10), "mismatch")
	// Another file under the name.
	must(t, os.Rename(write(t, path+"2", "evil"), path))
	wants(t, c.Verify(path, sum, 10), "mismatch")
}

func TestCheckedRemembersWhatRested(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(t.TempDir(), "f"), "good")
	f, err := openRegular(path)
	must(t, err)
	now, err := stampOf(f)
	must(t, err)
	must(t, f.Close())
	var c Checked
	key := checkedKey{path, sumOf([]byte("good"))}
	c.remember(key, now)
	if len(c.seen) != 0 {
		t.Error("a file of this very moment was remembered")
	}
	now.changed -= 2 * settled
	c.remember(key, now)
	if len(c.seen) != 1 {
		t.Error("a file that rested was not remembered")
	}
	// What is remembered is not read: a wrong content under the same stamp
	// would pass, which is why the stamp holds the inode's own time.
	now.changed += 2 * settled
	c.seen[checkedKey{path, emptySum}] = now
	must(t, c.Verify(path, emptySum, 10))
	wants(t, c.Verify(path, emptySum, 3), "size cap")
}
