//go:build darwin || linux

// Package keychain keeps small secrets in the macOS Keychain: the
// data-protection keychain where the program is entitled to it, else the login
// keychain. On other systems it runs against a fake, for tests.
package keychain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// status is an OSStatus of the Keychain.
type status int32

// The statuses that are told apart (SecBase.h).
const (
	ok                    status = 0
	userCanceled          status = -128
	authFailed            status = -25293
	itemNotFound          status = -25300
	interactionNotAllowed status = -25308
	decode                status = -26275
	missingEntitlement    status = -34018
)

func (s status) err() error {
	switch s {
	case ok:
		return nil
	case itemNotFound:
		return fault.KeyNotFound
	case interactionNotAllowed:
		return fault.New(fault.KeystoreLocked, errors.New("the Keychain needs the person, who is not asked here"))
	case userCanceled, authFailed:
		return fault.New(fault.KeystoreDenied, fmt.Errorf("the Keychain answers %d", int32(s)))
	case decode:
		return fault.New(fault.KeystoreCorrupt, fmt.Errorf("the Keychain answers %d", int32(s)))
	}
	return fault.New(fault.KeystoreLocked, fmt.Errorf("the Keychain answers %d", int32(s)))
}

// The master (identity.md): synchronizable, with the person there for reading.
const (
	masterService = "com.osaurus.account"
	masterAccount = "master-key"
)

// Store is a keystore.Store in the Keychain.
type Store struct {
	scope     string
	protected int // or 0: the login keychain

	mu     sync.Mutex
	closed bool
	device bool // the master does not synchronise on this machine
}

var (
	_ keystore.Store    = (*Store)(nil)
	_ keystore.Remarker = (*Store)(nil)
)

// Open returns the store. Items of a scope are apart from those of every other
// one; "" is that of the app, whose items have their plain names.
func Open(scope string) (*Store, error) {
	s := &Store{scope: scope, protected: protected}
	_, st := nativeList(s.service(masterService), s.protected)
	if st == missingEntitlement {
		s.protected = 0
		_, st = nativeList(s.service(masterService), 0)
	}
	if st != ok && st != itemNotFound {
		return nil, st.err()
	}
	return s, nil
}

// DataProtection reports whether items are in the data-protection keychain;
// the login keychain gives them to every program that the person allows.
func (s *Store) DataProtection() bool { return s.protected != 0 }

// Remark implements keystore.Remarker (D13).
func (s *Store) Remark() (sentence, explanation string) {
	if s.DataProtection() {
		return "", ""
	}
	return "Secrets are in the login keychain instead of the data-protection keychain", "This program was not signed with the entitlement for it. Other programs of yours can ask for these items, and they do not demand your presence."
}

func (s *Store) service(name string) string {
	if s.scope == "" {
		return name
	}
	return name + "." + s.scope
}

// how says how an item is kept.
func (s *Store) how(service, account string) int {
	if service != masterService || account != masterAccount || s.protected == 0 {
		return s.protected
	}
	if s.device {
		return s.protected | presence
	}
	return s.protected | synced
}

// enter refuses names that C would cut, and calls after Close.
func (s *Store) enter(ctx context.Context, names ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, n := range names {
		if strings.ContainsRune(n, 0) {
			return fault.WithText(fault.Usage, "a keystore name holds a zero byte")
		}
	}
	if s.closed {
		return fault.KeystoreLocked
	}
	return nil
}

// Get implements keystore.Store.
func (s *Store) Get(ctx context.Context, service, account string) (secret.Bytes, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, service, account); err != nil {
		return secret.Bytes{}, err
	}
	how := s.how(service, account)
	v, st := nativeGet(s.service(service), account, how)
	if st == interactionNotAllowed && how&synced != 0 {
		// It was kept on this device alone, which asks for the person.
		s.device = true
		v, st = nativeGet(s.service(service), account, s.how(service, account))
	}
	return v, st.err()
}

// Put implements keystore.Store.
func (s *Store) Put(ctx context.Context, service, account string, value secret.Bytes) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, service, account); err != nil {
		return err
	}
	how := s.how(service, account)
	st := nativePut(s.service(service), account, value, how)
	if st != ok && how&synced != 0 {
		s.device = true
		st = nativePut(s.service(service), account, value, s.how(service, account))
	}
	return st.err()
}

// Delete implements keystore.Store.
func (s *Store) Delete(ctx context.Context, service, account string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, service, account); err != nil {
		return err
	}
	if st := nativeDelete(s.service(service), account, s.protected); st != itemNotFound {
		return st.err()
	}
	return nil
}

// List implements keystore.Store.
func (s *Store) List(ctx context.Context, service string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, service); err != nil {
		return nil, err
	}
	accounts, st := nativeList(s.service(service), s.protected)
	if st == itemNotFound {
		return []string{}, nil
	}
	slices.Sort(accounts)
	return slices.Compact(accounts), st.err()
}

// Strength implements keystore.Store.
func (s *Store) Strength() keystore.Strength { return keystore.LoginSession }

// Close implements keystore.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
