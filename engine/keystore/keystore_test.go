package keystore_test

import (
	"path/filepath"
	"testing"

	"osaurus/engine/keystore"
	"osaurus/engine/keystore/keystoretest"
	"osaurus/engine/secret"
)

// cheap keeps argon2id at its least, for speed.
var cheap = keystore.FileOptions{MemoryKiB: 8, Passes: 1}

func TestMemory(t *testing.T) {
	t.Parallel()
	keystoretest.Run(t, func(*testing.T) (keystore.Store, func() keystore.Store) { return keystore.NewMemory(), nil })
}

func TestFile(t *testing.T) {
	t.Parallel()
	for name, passphrase := range map[string]string{"sealed": "a passphrase", "unwrapped": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keystoretest.Run(t, func(t *testing.T) (keystore.Store, func() keystore.Store) {
				path := filepath.Join(t.TempDir(), "keystore")
				open := func() keystore.Store {
					f, err := keystore.OpenFile(path, secret.New([]byte(passphrase)), cheap)
					if err != nil {
						t.Fatal(err)
					}
					return f
				}
				return open(), open
			})
		})
	}
}
