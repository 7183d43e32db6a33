// Package bridge gathers the ports of the system the engine runs on.
package bridge

import (
	"os"
	"path/filepath"

	"osaurus/engine"
	"osaurus/engine/discovery/mdns"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// KeystoreFile is the sealed keystore's name below the home.
const KeystoreFile = "keystore.osks"

// Default returns the ports that work everywhere: the sealed-file keystore and
// the embedded mDNS responder. Stronger ones of the system take their place
// where there are any.
func Default() engine.Ports {
	name, err := os.Hostname()
	if err != nil {
		name = "this machine"
	}
	m := mdns.New(mdns.Options{})
	return engine.Ports{
		Keystore: func(home string, passphrase secret.Bytes) (keystore.Store, error) {
			return keystore.OpenFile(filepath.Join(home, KeystoreFile), passphrase, keystore.FileOptions{})
		},
		Advertiser: m, Browser: m, DeviceName: name,
	}
}
