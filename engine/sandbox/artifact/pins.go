package artifact

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/google/go-containerregistry/pkg/name"
)

// Kind is what a pin's hash is the hash of.
type Kind string

// The kinds.
const (
	Index Kind = "oci-index" // the index of an OCI image, all platforms
	File  Kind = "file"
)

// Names of pins that the drivers ask for.
const (
	SandboxImage = "sandbox-image"
	Kernel       = "kernel"
	Runsc        = "runsc"
	Modules      = "kernel-modules" // a tar, for a kernel that has virtio as modules
)

// Where a source may be, beside https. An artifact of this build lies in the
// folder "libexec" beside the program; a member is taken out of another
// pinned file, a tar compressed with xz.
const (
	libexecPrefix = "libexec/"
	memberPrefix  = "member/"
	httpsPrefix   = "https://"
)

// Pin is one record of pins.json (decisions D18).
type Pin struct {
	Name      string   `json:"name"`
	Platform  string   `json:"platform"` // of the guest: "linux/amd64"
	Kind      Kind     `json:"kind"`
	Reference string   `json:"reference,omitempty"` // of an index, by digest
	URLs      []string `json:"urls,omitempty"`      // of a file, in the order they are tried
	SHA256    string   `json:"sha256"`              // lower case
	MaxBytes  int64    `json:"max_bytes"`           // of the file, or of the index and all its blobs
	Note      string   `json:"note"`                // where the hash comes from
}

// Pins are all records, sorted by name and platform.
type Pins []Pin

//go:embed pins.json
var embedded []byte

// Embedded returns the pins this program was built with.
func Embedded() (Pins, error) { return ParsePins(embedded) }

// MaxImage caps an image in bytes, compressed.
const MaxImage = 2 << 30

// required lists the pins without which a supported machine has no sandbox.
var required = [][2]string{
	{SandboxImage, "linux/amd64"}, {SandboxImage, "linux/arm64"}, {Kernel, "linux/arm64"}, {Runsc, "linux/amd64"},
}

// ParsePins reads pins.json and refuses unknown or repeated members, a
// malformed hash, a tag, a repeated record and a missing platform.
func ParsePins(raw []byte) (Pins, error) {
	var pins Pins
	if err := json.Unmarshal(raw, &pins, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: pins.json: %w", ErrPin, err)
	}
	have := map[[2]string]bool{}
	for _, p := range pins {
		if err := p.validate(); err != nil {
			return nil, fmt.Errorf("%w: %s for %s: %w", ErrPin, p.Name, p.Platform, err)
		}
		key := [2]string{p.Name, p.Platform}
		if have[key] {
			return nil, fmt.Errorf("%w: %s for %s stands there twice", ErrPin, p.Name, p.Platform)
		}
		have[key] = true
	}
	for _, r := range required {
		if !have[r] {
			return nil, fmt.Errorf("%w: %s for %s is missing", ErrPin, r[0], r[1])
		}
	}
	return pins, nil
}

// Find returns the pin of an artifact for a platform.
func (p Pins) Find(name, platform string) (Pin, error) {
	i := slices.IndexFunc(p, func(pin Pin) bool { return pin.Name == name && pin.Platform == platform })
	if i < 0 {
		return Pin{}, fmt.Errorf("%w: no %s is pinned for %s", ErrPin, name, platform)
	}
	return p[i], nil
}

func (p Pin) validate() error {
	switch {
	case p.Name == "" || strings.Trim(p.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("the name %q is not lower-case letters, digits and -", p.Name)
	case p.Platform != "linux/amd64" && p.Platform != "linux/arm64":
		return fmt.Errorf("the platform %q is neither linux/amd64 nor linux/arm64", p.Platform)
	case p.SHA256 != strings.ToLower(p.SHA256):
		return fmt.Errorf("the hash is not in lower case")
	case p.MaxBytes <= 0 || p.Kind == File && p.MaxBytes > MaxFile || p.MaxBytes > MaxImage:
		return fmt.Errorf("max_bytes %d is out of range", p.MaxBytes)
	}
	if _, err := wellFormed(p.Name, p.SHA256); err != nil {
		return err
	}
	switch p.Kind {
	case Index:
		return p.validateIndex()
	case File:
		return p.validateFile()
	}
	return fmt.Errorf("the kind %q is neither %q nor %q", p.Kind, Index, File)
}

func (p Pin) validateIndex() error {
	if len(p.URLs) > 0 {
		return fmt.Errorf("an index has a reference and no urls")
	}
	at, digest, ok := strings.Cut(p.Reference, "@sha256:")
	if !ok || digest != p.SHA256 {
		return fmt.Errorf("the reference %q does not name the digest", p.Reference)
	}
	if folder, ok := strings.CutPrefix(at, libexecPrefix); ok {
		return plainName(folder)
	}
	if _, err := name.NewDigest(p.Reference, name.StrictValidation); err != nil {
		return err
	}
	if slash := strings.LastIndex(at, "/"); strings.Contains(at[slash+1:], ":") {
		return fmt.Errorf("the reference %q names a tag, which can move", p.Reference)
	}
	return nil
}

func (p Pin) validateFile() error {
	if p.Reference != "" || len(p.URLs) == 0 {
		return fmt.Errorf("a file has urls and no reference")
	}
	for _, u := range p.URLs {
		if file, ok := strings.CutPrefix(u, libexecPrefix); ok {
			if err := plainName(file); err != nil {
				return err
			}
			continue
		}
		if !strings.HasPrefix(u, httpsPrefix) && !strings.HasPrefix(u, memberPrefix) {
			return fmt.Errorf("the source %q is none of https://, libexec/ and member/", u)
		}
	}
	return nil
}

// plainName refuses what could leave the folder it is joined to.
func plainName(s string) error {
	if s == "" || s[0] == '.' || strings.ContainsAny(s, "/\\\x00") {
		return fmt.Errorf("%q is no plain file name", s)
	}
	return nil
}

// Built says that an artifact comes with this program and is never fetched.
func (p Pin) Built() bool {
	_, ok := p.libexec()
	return ok
}

// libexec returns the name in libexec of an artifact of this build.
func (p Pin) libexec() (string, bool) {
	if p.Kind == Index {
		at, _, _ := strings.Cut(p.Reference, "@")
		return strings.CutPrefix(at, libexecPrefix)
	}
	return strings.CutPrefix(p.URLs[0], libexecPrefix)
}
