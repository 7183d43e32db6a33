package keychain

import (
	"errors"

	gokeychain "github.com/keybase/go-keychain"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// LoginKeychain is the login keychain, where older installs left plain items.
type LoginKeychain struct{}

var _ Older = LoginKeychain{}

// olderError is what the login keychain answers, as a fault.
func olderError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gokeychain.ErrorItemNotFound):
		return fault.KeyNotFound
	case errors.Is(err, gokeychain.ErrorAuthFailed), errors.Is(err, gokeychain.ErrorUserCanceled):
		return fault.New(fault.KeystoreDenied, err)
	}
	return fault.New(fault.KeystoreLocked, err)
}

// Get implements Older. macOS asks the person where another program, or this
// one with another signature, made the item.
func (LoginKeychain) Get(service, account string) (secret.Bytes, error) {
	raw, err := gokeychain.GetGenericPassword(service, account, "", "")
	if err == nil && raw == nil {
		return secret.Bytes{}, fault.KeyNotFound
	}
	return secret.Take(raw), olderError(err)
}

// Accounts implements Older.
func (LoginKeychain) Accounts(service string) ([]string, error) {
	accounts, err := gokeychain.GetGenericPasswordAccounts(service)
	return accounts, olderError(err)
}

// Remove implements Older.
func (LoginKeychain) Remove(service, account string) error {
	err := olderError(gokeychain.DeleteGenericPasswordItem(service, account))
	if errors.Is(err, fault.KeyNotFound) {
		return nil
	}
	return err
}
