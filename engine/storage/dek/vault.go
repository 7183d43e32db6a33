package dek

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// Service is the keystore service of everything here, and Account the item
// with the current key (storage.md section 4).
const (
	Service = "com.osaurus.storage"
	Account = "data-encryption-key"

	accountNext    = Account + ".next"
	accountSalt    = "data-encryption-salt"
	accountPosture = "storage-posture"
)

// ErrReadBack says that the keystore did not keep what it was given.
var ErrReadBack = errors.New("dek: the keystore returns something else than was put")

// Vault keeps keys in the keystore. Nothing it does asks the owner anything:
// a keystore that would have to is locked.
type Vault struct{ Store keystore.Store }

// Current returns the current key. fault.KeyNotFound means that the keystore
// answered and has none; every other error that it is not known. A value of a
// wrong length is fault.KeystoreCorrupt.
func (v Vault) Current(ctx context.Context) (Key, error) { return v.get(ctx, Account) }

// Next returns the key a rotation has staged.
func (v Vault) Next(ctx context.Context) (Key, error) { return v.get(ctx, accountNext) }

func (v Vault) get(ctx context.Context, account string) (Key, error) {
	b, err := v.Store.Get(ctx, Service, account)
	if err != nil {
		return Key{}, err
	}
	k, err := New(b)
	if err != nil {
		return Key{}, fault.New(fault.KeystoreCorrupt, err)
	}
	return k, nil
}

// Others returns every key kept beside the current one: the staged one and
// those that older files still need.
func (v Vault) Others(ctx context.Context) ([]Key, error) {
	accounts, err := v.Store.List(ctx, Service)
	if err != nil {
		return nil, err
	}
	var keys []Key
	for _, account := range accounts {
		if !strings.HasPrefix(account, Account+".") {
			continue
		}
		k, err := v.get(ctx, account)
		if err != nil {
			for _, k := range keys {
				k.Destroy()
			}
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Create generates the first key. It refuses if there is one, or if the
// keystore cannot tell. Whether encrypted data exists is the caller's to
// know.
func (v Vault) Create(ctx context.Context, rand io.Reader) (Key, error) {
	switch k, err := v.Current(ctx); {
	case err == nil:
		k.Destroy()
		return Key{}, fault.Exists
	case !errors.Is(err, fault.KeyNotFound):
		return Key{}, err
	}
	k, err := Generate(rand)
	if err != nil {
		return Key{}, err
	}
	if err := v.put(ctx, Account, k.Bytes()); err != nil {
		k.Destroy()
		return Key{}, err
	}
	return k, nil
}

// Stage keeps the key a rotation is going to.
func (v Vault) Stage(ctx context.Context, k Key) error { return v.put(ctx, accountNext, k.Bytes()) }

// Unstage forgets it.
func (v Vault) Unstage(ctx context.Context) error {
	return v.Store.Delete(ctx, Service, accountNext)
}

// Retire keeps a key under its id for files that still need it.
func (v Vault) Retire(ctx context.Context, k Key) error {
	return v.put(ctx, retired(k.ID()), k.Bytes())
}

// Forget deletes a retired key.
func (v Vault) Forget(ctx context.Context, id ID) error {
	return v.Store.Delete(ctx, Service, retired(id))
}

func retired(id ID) string { return Account + "." + id.String() }

// Install makes k the current key.
func (v Vault) Install(ctx context.Context, k Key) error { return v.put(ctx, Account, k.Bytes()) }

// Salt returns the salt of a derived key, fault.KeyNotFound if there is none.
func (v Vault) Salt(ctx context.Context) (secret.Bytes, error) {
	return v.Store.Get(ctx, Service, accountSalt)
}

// PutSalt keeps the salt of a derived key.
func (v Vault) PutSalt(ctx context.Context, salt secret.Bytes) error {
	return v.put(ctx, accountSalt, salt)
}

// DropSalt forgets it.
func (v Vault) DropSalt(ctx context.Context) error {
	return v.Store.Delete(ctx, Service, accountSalt)
}

// Posture returns the posture record, fault.KeyNotFound if there is none.
func (v Vault) Posture(ctx context.Context) ([]byte, error) {
	b, err := v.Store.Get(ctx, Service, accountPosture)
	if err != nil {
		return nil, err
	}
	return b.Expose(), nil
}

// PutPosture keeps the posture record.
func (v Vault) PutPosture(ctx context.Context, record []byte) error {
	return v.put(ctx, accountPosture, secret.New(record))
}

// put writes an item and reads it back: what was not kept must not be relied
// on.
func (v Vault) put(ctx context.Context, account string, value secret.Bytes) error {
	if err := v.Store.Put(ctx, Service, account, value); err != nil {
		return fmt.Errorf("dek: keeping %s: %w", account, err)
	}
	kept, err := v.Store.Get(ctx, Service, account)
	if err != nil {
		return fmt.Errorf("dek: reading back %s: %w", account, err)
	}
	defer kept.Destroy()
	if !kept.Equal(value) {
		return ErrReadBack
	}
	return nil
}
