package keystore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"sync"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// FileOptions tunes OpenFile. The zero value is right for use; tests lower
// the cost and inject faults.
type FileOptions struct {
	MemoryKiB uint32
	Passes    uint32
	Rand      io.Reader
	// Write replaces the file; nil means atomicfile.Write.
	Write func(path string, data []byte) error
}

// File is a Store in one file, replaced atomically at every change. With a
// passphrase the whole file is sealed with a key that argon2id derives from
// it; without one the file is only protected by its mode (Unwrapped).
type File struct {
	path string
	o    FileOptions

	mu     sync.Mutex
	head   header
	key    secret.Bytes // zero when unwrapped
	items  items
	closed bool
}

// OpenFile opens or creates the store. A zero passphrase opens or creates an
// unwrapped one. Errors: fault.KeystoreLocked (passphrase missing or wrong),
// fault.KeystoreCorrupt, fault.KeystoreDenied (no regular file of ours).
func OpenFile(path string, passphrase secret.Bytes, o FileOptions) (*File, error) {
	if o.MemoryKiB == 0 {
		o.MemoryKiB, o.Passes = defaultMemory, defaultPasses
	}
	if o.Passes == 0 {
		o.Passes = defaultPasses
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Write == nil {
		o.Write = atomicfile.Write
	}
	f := &File{path: path, o: o, items: items{}}
	raw, err := readOurs(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, f.create(passphrase)
	}
	if err != nil {
		return nil, err
	}
	if err := f.load(raw, passphrase); err != nil {
		return nil, err
	}
	return f, nil
}

// readOurs reads a regular file of ours without following a link. A mode wider
// than 0600 is narrowed, since the content is ours and still secret.
func readOurs(path string) (raw []byte, err error) {
	denied := func(err error) error { return fault.New(fault.KeystoreDenied, err) }
	file, err := openNoFollow(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err != nil:
		return nil, denied(err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, denied(err)
	case !info.Mode().IsRegular():
		return nil, denied(fmt.Errorf("%s is not a regular file", path))
	case !ownedByUs(info):
		return nil, denied(fmt.Errorf("%s belongs to another user", path))
	case info.Size() > MaxFileSize:
		return nil, fault.New(fault.KeystoreCorrupt, fmt.Errorf("%s is larger than %d bytes", path, MaxFileSize))
	}
	if info.Mode().Perm()&^atomicfile.Mode != 0 {
		if err := file.Chmod(atomicfile.Mode); err != nil {
			return nil, denied(err)
		}
	}
	return io.ReadAll(io.LimitReader(file, MaxFileSize+1))
}

func (f *File) create(passphrase secret.Bytes) error {
	head, key, err := f.wrap(passphrase)
	if err != nil {
		return err
	}
	f.head, f.key = head, key
	return f.saveLocked(head, key, f.items)
}

// wrap chooses a header and derives its key; a zero passphrase is unwrapped.
func (f *File) wrap(passphrase secret.Bytes) (header, secret.Bytes, error) {
	if passphrase.IsZero() {
		return header{}, secret.Bytes{}, nil
	}
	h := header{mode: modePassphrase, memory: f.o.MemoryKiB, passes: f.o.Passes, lanes: defaultLanes}
	if _, err := io.ReadFull(f.o.Rand, h.salt[:]); err != nil {
		return header{}, secret.Bytes{}, err
	}
	return h, h.deriveKey(passphrase), nil
}

func (f *File) load(raw []byte, passphrase secret.Bytes) error {
	h, body, err := parseHeader(raw)
	if err != nil {
		return fault.New(fault.KeystoreCorrupt, err)
	}
	var key secret.Bytes
	if h.mode == modePassphrase {
		if passphrase.IsZero() {
			return fault.New(fault.KeystoreLocked, ErrPassphrase)
		}
		key = h.deriveKey(passphrase)
	}
	m, err := openItems(h, key, body)
	if err != nil {
		key.Destroy()
		return err
	}
	f.head, f.key, f.items = h, key, m
	return nil
}

func (f *File) saveLocked(h header, key secret.Bytes, m items) error {
	raw, err := sealItems(h, key, f.o.Rand, m)
	if err != nil {
		return err
	}
	if len(raw) > MaxFileSize {
		return fault.New(fault.KeystoreDenied, fmt.Errorf("the keystore would grow past %d bytes", MaxFileSize))
	}
	return f.o.Write(f.path, raw)
}

// Get implements Store.
func (f *File) Get(_ context.Context, service, account string) (secret.Bytes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return secret.Bytes{}, fault.KeystoreLocked
	}
	return f.items.get(service, account)
}

// Put implements Store.
func (f *File) Put(_ context.Context, service, account string, value secret.Bytes) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	kept := value.Clone()
	err := f.changeLocked(service, func(accounts map[string]secret.Bytes) { accounts[account] = kept }, account)
	if err != nil {
		kept.Destroy()
	}
	return err
}

// Delete implements Store.
func (f *File) Delete(_ context.Context, service, account string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, found := f.items[service][account]; !found && !f.closed {
		return nil
	}
	return f.changeLocked(service, func(accounts map[string]secret.Bytes) { delete(accounts, account) }, account)
}

// changeLocked edits one account in a copy, writes the file, and only then
// lets the copy take effect and destroys the old value: a failed write leaves
// memory and disk as they were.
func (f *File) changeLocked(service string, edit func(accounts map[string]secret.Bytes), account string) error {
	if f.closed {
		return fault.KeystoreLocked
	}
	accounts := maps.Clone(f.items[service])
	if accounts == nil {
		accounts = map[string]secret.Bytes{}
	}
	edit(accounts)
	next := maps.Clone(f.items)
	if next[service] = accounts; len(accounts) == 0 {
		delete(next, service)
	}
	if err := f.saveLocked(f.head, f.key, next); err != nil {
		return err
	}
	f.items[service][account].Destroy()
	f.items = next
	return nil
}

// List implements Store.
func (f *File) List(_ context.Context, service string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fault.KeystoreLocked
	}
	return f.items.list(service), nil
}

// SetPassphrase seals the store under another passphrase, or unwraps it when
// next is zero. The file holds the old or the new form, never neither.
func (f *File) SetPassphrase(next secret.Bytes) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fault.KeystoreLocked
	}
	head, key, err := f.wrap(next)
	if err != nil {
		return err
	}
	if err := f.saveLocked(head, key, f.items); err != nil {
		key.Destroy()
		return err
	}
	f.key.Destroy()
	f.head, f.key = head, key
	return nil
}

// Strength implements Store.
func (f *File) Strength() Strength {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.head.mode == modePassphrase {
		return Passphrase
	}
	return Unwrapped
}

// Close implements Store.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.key.Destroy()
	f.items.destroy()
	f.items, f.closed = items{}, true
	return nil
}
