// Package wire is what the host and the guest of a sandbox say to each other
// before and beside HTTP: the boot file, the first line of every stream, and
// the control stream. Section numbers in comments are those of
// engine/sandbox/PROTOCOL.md.
package wire

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
)

// Boot is the file that the guest's first process reads: osaurus-guest takes
// its path as only argument, and removes it where the file system lets it. It
// belongs to root, 0600, since the nonce opens the control stream.
type Boot struct {
	Sandbox string `json:"sandbox"` // Spec.ID
	Nonce   string `json:"nonce"`   // NonceSize bytes in lower-case hex

	// Transport is how the guest reaches the host:
	//   unix:/path          a Unix socket that only root reaches; one connection a stream
	//   virtio:/dev/vport0p1  a serial port with yamux on it, the guest is its client
	//   vsock:2:1024        context id and port; one connection a stream
	Transport string `json:"transport"`

	// Proxy makes the guest listen on 127.0.0.1:3128 and carry what arrives
	// to the host's egress proxy.
	Proxy bool `json:"proxy,omitempty"`

	// Init is set when the guest boots a kernel: /proc, /dev, /sys, /run and
	// /tmp are then mounted, loopback is brought up, and the last act is
	// switching off. Under gVisor the runtime does all that.
	Init bool `json:"init,omitempty"`
}

// Bounds of a boot file.
const (
	NonceSize  = 16      // bytes
	MaxBoot    = 4 << 10 // bytes
	MaxSandbox = 64      // characters of an id
)

// What host and guest know of carried homes (section 10).
const (
	GuestPath  = "/sbin/osaurus-guest" // where images have it: "pack NAME", "unpack NAME"
	PackedHome = ".osaurus-home"       // below the home, while it is unpacked
	ExitPart   = 3                     // some entries stayed behind; stderr has their number
)

// ErrBoot says that a boot file does not parse.
var ErrBoot = errors.New("wire: the boot file is malformed")

// Encode writes the file.
func (b Boot) Encode() ([]byte, error) {
	if !b.valid() {
		return nil, ErrBoot
	}
	return json.Marshal(b)
}

// ParseBoot reads the file.
func ParseBoot(raw []byte) (Boot, error) {
	var b Boot
	if len(raw) > MaxBoot || json.Unmarshal(raw, &b) != nil || !b.valid() {
		return Boot{}, ErrBoot
	}
	return b, nil
}

func (b Boot) valid() bool {
	kind, where, ok := strings.Cut(b.Transport, ":")
	return ValidSandbox(b.Sandbox) && validNonce(b.Nonce) && ok && where != "" && (kind == "unix" || kind == "virtio" || kind == "vsock")
}

// ValidSandbox reports whether id can name a sandbox: lower-case letters,
// digits and dashes.
func ValidSandbox(id string) bool {
	return id != "" && len(id) <= MaxSandbox && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func validNonce(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == NonceSize && strings.ToLower(s) == s
}

// sharedStem begins the id of a sandbox that all agents share.
const sharedStem = "osr-shared00-"

// Shared reports whether the sandbox has more than one agent.
func (b Boot) Shared() bool { return strings.HasPrefix(b.Sandbox, sharedStem) }
