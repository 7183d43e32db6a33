package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// Where a home says what keeps its secrets: the sealed file itself, or a file
// that names the system's keystore.
const (
	KeystoreFile   = "keystore.osks"
	KeystoreMarker = "keystore.json"
)

// systemStore is a keystore of the system.
type systemStore struct {
	name string // in KeystoreMarker
	what string // in words
	// available reports why a new home cannot use it; it never asks the owner.
	available func(context.Context) error
	// plain reports the home that has no id of its own: uuid.Nil stands for it.
	// nil means that each has one.
	plain func(home string) bool
	// open opens the items of the home with that id.
	open func(ctx context.Context, id string) (keystore.Store, error)
}

// marker is the content of KeystoreMarker.
type marker struct {
	V     int    `json:"v"`
	Store string `json:"store"`
	ID    string `json:"id"` // of the home, in the system's keystore
}

// openStore opens what keeps a home's secrets. A new home gets the system's
// keystore where there is one and no passphrase was given, else the sealed
// file. A home that has either keeps it: when that cannot be opened, nothing
// else takes its place.
func openStore(ctx context.Context, sys *systemStore, home string, passphrase secret.Bytes) (keystore.Store, error) {
	sealed := func() (keystore.Store, error) {
		return keystore.OpenFile(filepath.Join(home, KeystoreFile), passphrase, keystore.FileOptions{})
	}
	m, err := readMarker(home)
	if err != nil {
		return nil, err
	}
	_, err = os.Lstat(filepath.Join(home, KeystoreFile))
	hasFile := !errors.Is(err, fs.ErrNotExist)
	switch {
	case m != nil && hasFile:
		return nil, fault.New(fault.KeystoreCorrupt, fmt.Errorf("the home has both %s and %s; move away the one that is not its own", KeystoreMarker, KeystoreFile))
	case m != nil:
		return openNamed(ctx, sys, *m)
	case hasFile || sys == nil || !passphrase.IsZero() || sys.available(ctx) != nil:
		return sealed()
	}
	m = &marker{V: 1, Store: sys.name, ID: uuid.NewString()}
	if sys.plain != nil && sys.plain(home) {
		m.ID = uuid.Nil.String()
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Write(filepath.Join(home, KeystoreMarker), append(raw, '\n')); err != nil {
		return nil, err
	}
	return openNamed(ctx, sys, *m)
}

// openNamed opens the system's keystore that a home names.
func openNamed(ctx context.Context, sys *systemStore, m marker) (keystore.Store, error) {
	if sys == nil || sys.name != m.Store {
		return nil, fault.New(fault.KeystoreLocked, fmt.Errorf("the secrets of this home are in a keystore that this system does not have: %q", m.Store))
	}
	s, err := sys.open(ctx, m.ID)
	if err != nil {
		return nil, fmt.Errorf("the secrets of this home are in %s: %w", sys.what, err)
	}
	return s, nil
}

// readMarker returns nil where the home has none.
func readMarker(home string) (*marker, error) {
	var m marker
	err := atomicfile.Plain(filepath.Join(home, KeystoreMarker)).Read(func(raw []byte) error {
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		if _, err := uuid.Parse(m.ID); err != nil || m.V != 1 || m.Store == "" {
			return errors.New("want v 1, store and id")
		}
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fault.New(fault.KeystoreCorrupt, fmt.Errorf("%s: %w", KeystoreMarker, err))
	}
	return &m, nil
}
