package artifact

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// MaxFile caps a pinned file in bytes, where its pin names no smaller cap.
const MaxFile = 512 << 20

// hashChunk is how much is read at a time.
const hashChunk = 1 << 20

// hexDigits is the length of a SHA-256 in hexadecimal.
const hexDigits = 2 * sha256.Size

// VerifySHA256 hashes the regular file at path, which no link leads to, and
// returns an ErrIntegrity that says "malformed", "exceeds size cap" or
// "SHA-256 mismatch". A malformed hash is refused before anything is read.
func VerifySHA256(path, expected string, maxBytes int64) error {
	_, err := verifyFile(path, expected, maxBytes)
	return err
}

// ReadSHA256 is VerifySHA256, and returns the very bytes that were hashed.
func ReadSHA256(path, expected string, maxBytes int64) ([]byte, error) {
	name := filepath.Base(path)
	expected, err := wellFormed(name, expected)
	if err != nil {
		return nil, err
	}
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return raw, verifyReader(bytes.NewReader(raw), name, expected, maxBytes)
}

// verifyFile is VerifySHA256, and says which file it was that matched.
func verifyFile(path, expected string, maxBytes int64) (stamp, error) {
	name := filepath.Base(path)
	expected, err := wellFormed(name, expected)
	if err != nil {
		return stamp{}, err
	}
	f, err := openRegular(path)
	if err != nil {
		return stamp{}, err
	}
	defer func() { _ = f.Close() }() // only read
	before, err := stampOf(f)
	if err != nil {
		return stamp{}, err
	}
	if err := verifyReader(f, name, expected, maxBytes); err != nil {
		return stamp{}, err
	}
	after, err := stampOf(f)
	if err == nil && after != before {
		err = refuse(name, "it changed while it was read")
	}
	return after, err
}

// wellFormed returns a hash in lower case.
func wellFormed(what, sum string) (string, error) {
	sum = strings.ToLower(sum)
	if raw, err := hex.DecodeString(sum); err != nil || len(raw) != sha256.Size {
		return "", refuse(what, "the pinned SHA-256 is malformed: it is not %d hexadecimal digits", hexDigits)
	}
	return sum, nil
}

func verifyReader(r io.Reader, what, expected string, maxBytes int64) error {
	h := sha256.New()
	n, err := io.CopyBuffer(onlyWriter{h}, io.LimitReader(r, maxBytes+1), make([]byte, hashChunk))
	if err != nil {
		return err
	}
	if n > maxBytes {
		return refuse(what, "it exceeds size cap of %d bytes", maxBytes)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != expected {
		return refuse(what, "SHA-256 mismatch: expected %s got %s", expected, got)
	}
	return nil
}

// onlyWriter hides every other method, so that io.CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }

// openRegular opens a file that is no link, device or pipe.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), ErrAbsent)
	}
	if errors.Is(err, syscall.ELOOP) {
		return nil, refuse(filepath.Base(path), "it is a symbolic link")
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = refuse(filepath.Base(path), "it is not a regular file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// stamp tells whether a file is still the one that was hashed.
type stamp struct {
	size    int64
	inode   uint64
	changed time.Duration // of the inode, which utimes cannot set back
	written time.Time
}

func stampOf(f *os.File) (stamp, error) {
	info, err := f.Stat()
	if err != nil {
		return stamp{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}, errors.ErrUnsupported
	}
	return stamp{info.Size(), st.Ino, changed(st), info.ModTime()}, nil
}

// Checked remembers, in this process only, which files were hashed and have
// not been touched since. The zero value remembers nothing yet. It is safe for
// concurrent use.
type Checked struct {
	mu   sync.Mutex
	seen map[checkedKey]stamp
}

type checkedKey struct{ path, sum string }

// settled is how long a file must have rested before its stamp is believed:
// two writes within one tick of the clock leave the same stamp.
const settled = time.Second

// Verify is VerifySHA256 without reading a file again that is the same by
// size, inode and times.
func (c *Checked) Verify(path, expected string, maxBytes int64) error {
	key := checkedKey{path, strings.ToLower(expected)}
	f, err := openRegular(path)
	if err != nil {
		return err
	}
	now, err := stampOf(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	c.mu.Lock()
	was, ok := c.seen[key]
	c.mu.Unlock()
	if ok && was == now && now.size <= maxBytes {
		return nil
	}
	got, err := verifyFile(path, expected, maxBytes)
	if err != nil {
		c.forget(key)
		return err
	}
	c.remember(key, got)
	return nil
}

func (c *Checked) remember(key checkedKey, s stamp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[checkedKey]stamp{}
	}
	if time.Since(time.Unix(0, int64(s.changed))) > settled {
		c.seen[key] = s
	}
}

func (c *Checked) forget(key checkedKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.seen, key)
}
