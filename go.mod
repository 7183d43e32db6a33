module osaurus

go 1.26.0

// Linked into the program.
require (
	filippo.io/age v1.3.2 // encrypted exports
	github.com/Code-Hex/vz/v3 v3.7.1 // virtual machines of macOS
	github.com/brutella/dnssd v1.2.14 // embedded mDNS
	github.com/cloudflare/circl v1.6.5 // HPKE
	github.com/coder/websocket v1.8.15 // tunnels to and of the relay
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.4.1 // the identity's curve
	github.com/go-json-experiment/json v1.27.2 // JSON that refuses duplicate names
	github.com/godbus/dbus/v5 v5.2.4 // desktop notifications
	github.com/gofrs/flock v0.13.2 // one host for each home
	github.com/google/go-containerregistry v0.22.1 // OCI images by digest
	github.com/google/uuid v1.6.0 // agents' ids
	github.com/hashicorp/yamux v0.1.2 // streams over a guest's serial port
	github.com/keybase/go-keychain v0.0.1 // login-keychain items, Secret Service
	github.com/mdlayher/vsock v1.4.0 // streams out of a guest
	github.com/miekg/dns v1.1.61 // reading mDNS messages
	github.com/mutecomm/go-sqlcipher/v4 v4.4.2 // encrypted databases
	github.com/opencontainers/runtime-spec v1.3.0 // the sandbox's configuration
	github.com/progrium/darwinkit v0.5.0 // AppKit
	github.com/redis/go-redis/v9 v9.23.0 // what relays of one domain share
	github.com/schollz/progressbar/v3 v3.19.1 // long operations
	github.com/segmentio/asm v1.2.1 // vectored base64
	github.com/spf13/cobra v1.10.2 // the command line
	github.com/spf13/pflag v1.0.10 // flags in the manual pages
	github.com/tyler-smith/go-bip39 v1.1.0 // recovery words
	github.com/ulikunitz/xz v0.5.17 // archives of kernels
	golang.org/x/crypto v0.58.0 // ChaCha20-Poly1305, Argon2, Keccak
	golang.org/x/net v0.62.0 // multicast sockets
	golang.org/x/sys v0.49.0 // socket credentials
	golang.org/x/term v0.47.0 // prompts
	golang.org/x/text v0.43.0 // NFKD of recovery words
	rsc.io/qr v0.2.0 // QR codes of invites
)

// Used by scripts alone.
require (
	github.com/srwiley/oksvg v0.0.0-20221011165216-be6e8873101c // drawing icons
	github.com/srwiley/rasterx v0.0.0-20220730225603-2ab79fcdd4ef // drawing icons
	howett.net/plist v1.0.1 // Info.plist
)

// Used by tests alone.
require (
	github.com/chromedp/cdproto v0.159.0 // what chromedp speaks
	github.com/chromedp/chromedp v0.23.0 // the settings page in a browser
	github.com/creack/pty v1.1.24 // terminals
	github.com/rogpeppe/go-internal v1.16.0 // scripts of the command line
	go.uber.org/goleak v1.3.0 // no goroutine left behind
	pgregory.net/rapid v1.3.0 // state-machine tests
)

require (
	filippo.io/hpke v0.4.0 // indirect
	github.com/Code-Hex/go-infinity-channel v1.0.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/docker/cli v29.7.2+incompatible // indirect
	github.com/docker/docker-credential-helpers v0.9.3 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/keybase/dbus v0.0.0-20220506165403-5aa21ea2c23a // indirect
	github.com/klauspost/compress v1.19.2 // indirect
	github.com/mdlayher/socket v0.8.0 // indirect
	github.com/mitchellh/colorstring v0.0.0-20190213212951-d06e56a500db // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/sirupsen/logrus v1.9.4 // indirect
	github.com/vishvananda/netlink v1.2.1-beta.2 // indirect
	github.com/vishvananda/netns v0.0.0-20200728191858-db3c7e526aae // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/image v0.0.0-20211028202545-6944b10bf410 // indirect
	golang.org/x/mod v0.41.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
	gotest.tools/v3 v3.5.2 // indirect
)
