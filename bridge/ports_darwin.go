//go:build cgo

package bridge

import (
	"context"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"osaurus/bridge/appattest"
	"osaurus/bridge/dnssd"
	"osaurus/bridge/keychain"
	"osaurus/bridge/localauth"
	"osaurus/engine"
	"osaurus/engine/identity"
	"osaurus/engine/keystore"
)

// adapt puts what macOS offers in place of the portable ports. Its responder
// always runs, so the embedded one is never used.
func adapt(p *engine.Ports) {
	p.Keystore = opener(&systemStore{
		name: "keychain", what: "the macOS Keychain",
		available: func(context.Context) error { _, err := keychain.Open(""); return err },
		open:      openKeychain,
		plain:     standard,
	})
	d := dnssd.New()
	p.Advertiser, p.Browser = d, d
	p.Presence = localauth.Presence{}
	p.Hardware = func(home string) identity.Hardware {
		return appattest.New(filepath.Join(home, "identity", "appattest-key"))
	}
}

// openKeychain opens the items of a home. An older install, which had only the
// person's own home, left its items in the login keychain.
func openKeychain(_ context.Context, id string) (keystore.Store, error) {
	s, err := keychain.Open(scope(id))
	if err != nil {
		return nil, err
	}
	if scope(id) == "" && s.DataProtection() {
		return keychain.Adopt(s, keychain.LoginKeychain{}), nil
	}
	return s, nil
}

// scope keeps the items of homes apart. Those of the person's own home have
// the names that older installs and the app gave them.
func scope(id string) string {
	if id == uuid.Nil.String() {
		return ""
	}
	return id
}

// standard reports the home that the program takes when none is named.
func standard(home string) bool {
	base, err := os.UserHomeDir()
	return err == nil && home == filepath.Join(base, ".osaurus")
}
