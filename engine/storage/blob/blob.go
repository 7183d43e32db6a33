// Package blob keeps attachments as sealed files named by the SHA-256 of
// their content: the same bytes are kept once. Who refers to a blob is
// recorded by the chat history, which also decides when one may go
// (storage.md section 6).
package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/storage/disk"
	"osaurus/engine/storage/sealed"
)

// MaxSize bounds one attachment read into memory.
const MaxSize = 256 << 20

// Errors of Get, Put and ParseHash.
var (
	ErrHash    = errors.New("blob: want 64 lower-case hex digits")
	ErrContent = errors.New("blob: the content does not have the hash of its name")
	ErrChanged = errors.New("blob: the source changed while it was read")
)

// Hash names a blob: the lower-case hex SHA-256 of its content.
type Hash string

// ParseHash accepts exactly 64 lower-case hex digits. The error never
// contains s.
func ParseHash(s string) (Hash, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != s {
		return "", ErrHash
	}
	return Hash(s), nil
}

// Of returns the hash of content.
func Of(content []byte) Hash {
	sum := sha256.Sum256(content)
	return Hash(hex.EncodeToString(sum[:]))
}

// Label is what the sealed file of h is bound to.
func (h Hash) Label() sealed.Label { return sealed.Label{Purpose: sealed.Blob, Name: string(h)} }

// Store is a folder of blobs. It, and the folder it lies in, must be folders of
// this user: a link would lead what is kept to where no operation over all
// files sees it (fault.StoreUnsafePath). It is safe for concurrent use, except that
// Remove and Sweep must not run beside a Put whose blob nobody refers to yet.
type Store struct {
	// Dir is made when the first blob is put.
	Dir string
	// Keys yields the keys at hand, the current one first; its error is
	// returned as it is. Put needs one.
	Keys func() (sealed.Keys, error)
	Disk disk.Disk
}

// folder refuses a link in place of a folder; none yet is none.
func (s *Store) folder() error {
	for _, dir := range []string{filepath.Dir(s.Dir), s.Dir} {
		if err := disk.Folder(dir); errors.Is(err, disk.ErrUnsafe) {
			return fault.New(fault.StoreUnsafePath, err)
		}
	}
	return nil
}

// keys are the keys for a folder that may be used.
func (s *Store) keys() (sealed.Keys, error) {
	if err := s.folder(); err != nil {
		return nil, err
	}
	return s.Keys()
}

// Path returns the file of h.
func (s *Store) Path(h Hash) string { return filepath.Join(s.Dir, string(h)+sealed.Ext) }

// PutBytes is Put for content in memory.
func (s *Store) PutBytes(content []byte) (Hash, error) {
	h, _, err := s.Put(bytes.NewReader(content))
	return h, err
}

// Put keeps what src holds from its start on and returns its hash and length.
// Content that is there already is not written again, unless its file does
// not open with the current key: a name alone is not trusted.
func (s *Store) Put(src io.ReadSeeker) (Hash, int64, error) {
	keys, err := s.keys()
	if err != nil {
		return "", 0, err
	}
	h, n, err := hashOf(src)
	if err != nil {
		return "", 0, err
	}
	path := s.Path(h)
	if len(keys) > 0 && s.verify(h, keys[:1]) == nil {
		now := time.Now() // so that a sweep's grace period starts again
		return h, n, os.Chtimes(path, now, now)
	}
	if len(keys) == 0 {
		return "", 0, sealed.ErrUnknownKey
	}
	if err := s.Disk.MkdirAll(s.Dir); err != nil {
		return "", 0, err
	}
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return "", 0, err
	}
	again := &checked{src: src, want: h, sum: sha256.New()}
	if _, err := sealed.WriteFile(s.Disk, path, keys[0], h.Label(), again); err != nil {
		return "", 0, err
	}
	return h, n, nil
}

// Take is Put for content whose hash is known and which can be read only once.
// It reports whether the blob was not there before. Content of another hash is
// ErrChanged.
func (s *Store) Take(h Hash, src io.Reader) (added bool, err error) {
	keys, err := s.keys()
	if err != nil {
		return false, err
	}
	if len(keys) == 0 {
		return false, sealed.ErrUnknownKey
	}
	path := s.Path(h)
	if s.verify(h, keys[:1]) == nil {
		now := time.Now() // so that a sweep's grace period starts again
		return false, os.Chtimes(path, now, now)
	}
	if err := s.Disk.MkdirAll(s.Dir); err != nil {
		return false, err
	}
	_, before := os.Lstat(path)
	_, err = sealed.WriteFile(s.Disk, path, keys[0], h.Label(), &checked{src: src, want: h, sum: sha256.New()})
	return err == nil && errors.Is(before, fs.ErrNotExist), err
}

func hashOf(src io.ReadSeeker) (Hash, int64, error) {
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return "", 0, err
	}
	sum := sha256.New()
	n, err := io.Copy(sum, src)
	return Hash(hex.EncodeToString(sum.Sum(nil))), n, err
}

// Get returns the content of h after comparing it with its name. The error of
// a missing blob is fs.ErrNotExist.
func (s *Store) Get(h Hash) ([]byte, error) {
	keys, err := s.keys()
	if err != nil {
		return nil, err
	}
	content, err := sealed.ReadFile(s.Path(h), keys, h.Label(), MaxSize)
	if err == nil && Of(content) != h {
		return nil, ErrContent
	}
	return content, err
}

// CopyTo writes the content of h to dst in constant memory. After an error
// dst holds a part.
func (s *Store) CopyTo(dst io.Writer, h Hash) error {
	keys, err := s.keys()
	if err != nil {
		return err
	}
	return s.copyTo(dst, h, keys)
}

// Verify opens h with the keys at hand and compares its hash.
func (s *Store) Verify(h Hash) error { return s.CopyTo(io.Discard, h) }

func (s *Store) verify(h Hash, keys sealed.Keys) error { return s.copyTo(io.Discard, h, keys) }

func (s *Store) copyTo(dst io.Writer, h Hash, keys sealed.Keys) error {
	sum := sha256.New()
	if _, _, err := sealed.CopyFile(io.MultiWriter(dst, sum), s.Path(h), keys, h.Label()); err != nil {
		return err
	}
	if Hash(hex.EncodeToString(sum.Sum(nil))) != h {
		return ErrContent
	}
	return nil
}

// Remove deletes blobs. Missing ones are no error.
func (s *Store) Remove(hashes ...Hash) error {
	if err := s.folder(); err != nil {
		return err
	}
	var errs []error
	for _, h := range hashes {
		errs = append(errs, s.Disk.Remove(s.Path(h)))
	}
	if len(hashes) > 0 {
		errs = append(errs, s.syncDir())
	}
	return errors.Join(errs...)
}

// List returns the hashes of all blobs, sorted.
func (s *Store) List() ([]Hash, error) {
	if err := s.folder(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []Hash
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), sealed.Ext)
		if h, hashErr := ParseHash(name); ok && hashErr == nil && e.Type().IsRegular() {
			all = append(all, h)
		}
	}
	return all, err
}

// Sweep deletes what is older than the given time and nobody refers to:
// blobs, and temporary files that a crash left. It returns how many it
// deleted.
func (s *Store) Sweep(referenced func(Hash) (bool, error), before time.Time) (int, error) {
	if err := s.folder(); err != nil {
		return 0, err
	}
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	swept := 0
	for _, e := range entries {
		stale, err := s.stale(e, referenced, before)
		if err != nil {
			return swept, err
		}
		if !stale {
			continue
		}
		if err := s.Disk.Remove(filepath.Join(s.Dir, e.Name())); err != nil {
			return swept, err
		}
		swept++
	}
	return swept, s.syncDir()
}

func (s *Store) stale(e fs.DirEntry, referenced func(Hash) (bool, error), before time.Time) (bool, error) {
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || !info.Mode().IsRegular() || !info.ModTime().Before(before) {
		return false, err
	}
	if strings.Contains(e.Name(), disk.TempInfix) {
		return true, nil
	}
	name, ok := strings.CutSuffix(e.Name(), sealed.Ext)
	h, err := ParseHash(name)
	if !ok || err != nil {
		return false, nil //nolint:nilerr // a file of another name is not ours to delete
	}
	kept, err := referenced(h)
	if err != nil {
		return false, fmt.Errorf("blob: asking who refers to one: %w", err)
	}
	return !kept, nil
}

func (s *Store) syncDir() error {
	if err := s.Disk.SyncDir(s.Dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// checked fails at the end of src if it did not have the hash it had before.
type checked struct {
	src  io.Reader
	want Hash
	sum  hash.Hash
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.src.Read(p)
	c.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && Hash(hex.EncodeToString(c.sum.Sum(nil))) != c.want {
		err = ErrChanged
	}
	return n, err
}
