module osaurus

go 1.26.0

// Linked into the program.
require (
	filippo.io/age v1.3.2 // encrypted exports
	github.com/brutella/dnssd v1.2.14 // embedded mDNS
	github.com/cloudflare/circl v1.6.5 // HPKE
	github.com/coder/websocket v1.8.15 // tunnels to and of the relay
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.4.1 // the identity's curve
	github.com/go-json-experiment/json v1.27.2 // JSON that refuses duplicate names
	github.com/godbus/dbus/v5 v5.2.4 // desktop notifications
	github.com/gofrs/flock v0.13.2 // one host for each home
	github.com/google/uuid v1.6.0 // agents' ids
	github.com/keybase/go-keychain v0.0.1 // login-keychain items, Secret Service
	github.com/miekg/dns v1.1.61 // reading mDNS messages
	github.com/mutecomm/go-sqlcipher/v4 v4.4.2 // encrypted databases
	github.com/redis/go-redis/v9 v9.23.0 // what relays of one domain share
	github.com/schollz/progressbar/v3 v3.19.1 // long operations
	github.com/segmentio/asm v1.2.1 // vectored base64
	github.com/spf13/cobra v1.10.2 // the command line
	github.com/spf13/pflag v1.0.9 // flags in the manual pages
	github.com/tyler-smith/go-bip39 v1.1.0 // recovery words
	golang.org/x/crypto v0.58.0 // ChaCha20-Poly1305, Argon2, Keccak
	golang.org/x/net v0.60.0 // multicast sockets
	golang.org/x/sys v0.49.0 // socket credentials
	golang.org/x/term v0.47.0 // prompts
	golang.org/x/text v0.43.0 // NFKD of recovery words
	rsc.io/qr v0.2.0 // QR codes of invites
)

// Used by tests alone.
require (
	github.com/creack/pty v1.1.24 // terminals
	github.com/rogpeppe/go-internal v1.16.0 // scripts of the command line
	go.uber.org/goleak v1.3.0 // no goroutine left behind
	pgregory.net/rapid v1.3.0 // state-machine tests
)

require (
	filippo.io/hpke v0.4.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/keybase/dbus v0.0.0-20220506165403-5aa21ea2c23a // indirect
	github.com/mitchellh/colorstring v0.0.0-20190213212951-d06e56a500db // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/vishvananda/netlink v1.2.1-beta.2 // indirect
	github.com/vishvananda/netns v0.0.0-20200728191858-db3c7e526aae // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/mod v0.41.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
)
