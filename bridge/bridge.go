// Package bridge gathers the ports of the system the engine runs on.
package bridge

import (
	"context"
	"os"

	"osaurus/engine"
	"osaurus/engine/discovery/mdns"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// Default returns the ports of this system: its keystore for new homes, its
// DNS-SD responder where one runs, what it runs sandboxes with, and what works
// everywhere in their place otherwise.
func Default() engine.Ports {
	p := Portable()
	p.Sandbox = besideProgram
	adapt(&p)
	return p
}

// Portable returns the ports that work everywhere and touch nothing of the
// person who runs them: the sealed-file keystore and the embedded mDNS
// responder, and no sandbox.
func Portable() engine.Ports {
	name, err := os.Hostname()
	if err != nil {
		name = "this machine"
	}
	m := mdns.New(mdns.Options{})
	return engine.Ports{Keystore: opener(nil), Advertiser: m, Browser: m, DeviceName: name}
}

// opener returns the port that opens a home's keystore.
func opener(sys *systemStore) func(string, secret.Bytes) (keystore.Store, error) {
	return func(home string, passphrase secret.Bytes) (keystore.Store, error) {
		return openStore(context.Background(), sys, home, passphrase)
	}
}
