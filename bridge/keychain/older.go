//go:build darwin || linux

package keychain

import (
	"context"
	"crypto/subtle"
	"errors"
	"slices"
	"sync"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// Older is where an older install left its items: LoginKeychain, or a fake.
// Errors are fault.KeyNotFound, fault.KeystoreLocked and fault.KeystoreDenied.
type Older interface {
	Get(service, account string) (secret.Bytes, error)
	Accounts(service string) ([]string, error)
	// Remove removes an item; a missing one is no error.
	Remove(service, account string) error
}

// Adopt returns s with what an older install left. An item that s lacks is
// copied into it when it is first read, and leaves its old place once s has
// given the copy back; a crash in between leaves both, and the next read
// finishes. An old item that differs from that of s stays where it is: the
// owner may need it, and it is used for nothing.
func Adopt(s keystore.Store, o Older) keystore.Store {
	return &adopter{Store: s, older: o, settled: map[[2]string]bool{}}
}

type adopter struct {
	keystore.Store
	older Older

	mu      sync.Mutex
	settled map[[2]string]bool // items whose old place needs no look any more
}

// Get implements keystore.Store. An old item that cannot be read is an error
// and never looks like none.
func (a *adopter) Get(ctx context.Context, service, account string) (secret.Bytes, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v, err := a.Store.Get(ctx, service, account)
	item := [2]string{service, account}
	if a.settled[item] || err != nil && !errors.Is(err, fault.KeyNotFound) {
		return v, err
	}
	old, oldErr := a.older.Get(service, account)
	defer func() { old.Destroy() }()
	switch {
	case errors.Is(oldErr, fault.KeyNotFound):
		a.settled[item] = true
		return v, err
	case oldErr != nil && err == nil:
		return v, nil // s has the item, whatever lies in the old place
	case oldErr != nil:
		return secret.Bytes{}, oldErr
	case err != nil:
		if err := a.copy(ctx, service, account, old); err != nil {
			return secret.Bytes{}, err
		}
		v = secret.New(old.Expose())
	}
	a.settled[item] = true
	if subtle.ConstantTimeCompare(v.Expose(), old.Expose()) == 1 {
		_ = a.older.Remove(service, account) // what stays is looked at again in the next process
	}
	return v, nil
}

// copy puts a value into the store and has it given back.
func (a *adopter) copy(ctx context.Context, service, account string, value secret.Bytes) error {
	if err := a.Store.Put(ctx, service, account, value); err != nil {
		return err
	}
	v, err := a.Store.Get(ctx, service, account)
	if err != nil {
		return err
	}
	defer v.Destroy()
	if subtle.ConstantTimeCompare(v.Expose(), value.Expose()) != 1 {
		return fault.New(fault.KeystoreCorrupt, errors.New("the Keychain does not give back what was put into it"))
	}
	return nil
}

// Put implements keystore.Store. The old item goes once its successor was
// given back.
func (a *adopter) Put(ctx context.Context, service, account string, value secret.Bytes) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.settled[[2]string{service, account}] {
		return a.Store.Put(ctx, service, account, value)
	}
	if err := a.copy(ctx, service, account, value); err != nil {
		return err
	}
	return a.remove(service, account)
}

// remove removes an item from its old place, where it would come back from.
func (a *adopter) remove(service, account string) error {
	err := a.older.Remove(service, account)
	a.settled[[2]string{service, account}] = err == nil
	return err
}

// Delete implements keystore.Store: from both places, or the old one would
// come back.
func (a *adopter) Delete(ctx context.Context, service, account string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.Store.Delete(ctx, service, account); err != nil || a.settled[[2]string{service, account}] {
		return err
	}
	return a.remove(service, account)
}

// List implements keystore.Store. Old items are in it before they are adopted.
func (a *adopter) List(ctx context.Context, service string) ([]string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	accounts, err := a.Store.List(ctx, service)
	if err != nil {
		return nil, err
	}
	old, err := a.older.Accounts(service)
	if err != nil && !errors.Is(err, fault.KeyNotFound) {
		return nil, err
	}
	accounts = append(accounts, old...)
	slices.Sort(accounts)
	return slices.Compact(accounts), nil
}
