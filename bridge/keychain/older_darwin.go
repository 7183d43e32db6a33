package keychain

import (
	"errors"

	gokeychain "github.com/keybase/go-keychain"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// Older returns a plain item that an older install left in the login keychain.
// Errors are fault.KeyNotFound and fault.KeystoreLocked.
func Older(service, account string) (secret.Bytes, error) {
	raw, err := gokeychain.GetGenericPassword(service, account, "", "")
	switch {
	case err == nil && raw == nil, errors.Is(err, gokeychain.ErrorItemNotFound):
		return secret.Bytes{}, fault.KeyNotFound
	case err != nil:
		return secret.Bytes{}, fault.New(fault.KeystoreLocked, err)
	}
	return secret.Take(raw), nil
}

// RemoveOlder removes such an item, once it was taken over. A missing one is
// no error.
func RemoveOlder(service, account string) error {
	err := gokeychain.DeleteGenericPasswordItem(service, account)
	if err == nil || errors.Is(err, gokeychain.ErrorItemNotFound) {
		return nil
	}
	return fault.New(fault.KeystoreLocked, err)
}
