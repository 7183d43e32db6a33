package artifact

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// Caps of what describes an image, in bytes and in entries.
const (
	MaxManifest  = 4 << 20 // index, manifest and configuration
	MaxManifests = 64
	MaxLayers    = 128
)

// Layout is an OCI image layout on disk. Nothing in it is believed: a blob is
// what its name says only after it was hashed, and index.json is not read.
type Layout struct {
	Dir     string
	Checked *Checked // nil hashes every time
}

// Image is one platform's image in a layout whose every blob was hashed.
type Image struct {
	Digest   string // of the manifest, hexadecimal
	Platform string
	Layers   []Layer
	layout   Layout
}

// Layer is one verified blob, and what it must unpack to.
type Layer struct {
	Digest    string // hexadecimal
	DiffID    string // of the tar, hexadecimal
	Size      int64
	MediaType string
}

// descriptor names a blob (image-spec descriptor.md).
type descriptor struct {
	MediaType string    `json:"mediaType"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"`
	Platform  *platform `json:"platform,omitzero"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
}

type index struct {
	MediaType string       `json:"mediaType"`
	Manifests []descriptor `json:"manifests"`
}

type manifest struct {
	MediaType string       `json:"mediaType"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
}

type config struct {
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// Media types of an index.
var indexTypes = []string{
	"application/vnd.oci.image.index.v1+json",
	"application/vnd.docker.distribution.manifest.list.v2+json",
}

// digestHex takes the SHA-256 out of "sha256:<hex>".
func digestHex(what, digest string) (string, error) {
	sum, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || sum != strings.ToLower(sum) {
		return "", refuse(what, "its digest is no sha256")
	}
	return wellFormed(what, sum)
}

// Blob is the path of a blob by its SHA-256.
func (l Layout) Blob(sum string) string { return filepath.Join(l.Dir, "blobs", "sha256", sum) }

// Verify hashes index, manifest, configuration and every layer of one platform
// from disk, each size taken from the descriptor that names it, and no more
// than pin.MaxBytes in all.
func (l Layout) Verify(pin Pin) (*Image, error) {
	raw, err := l.small("index", pin.SHA256, -1)
	if err != nil {
		return nil, err
	}
	left := pin.MaxBytes - int64(len(raw))
	chosen, err := chooseManifest(raw, pin.Platform)
	if err != nil {
		return nil, err
	}
	plan, err := l.plan(chosen, pin.Platform)
	if err != nil {
		return nil, err
	}
	left -= chosen.Size
	for _, layer := range plan.Layers {
		if left -= layer.Size; left < 0 {
			return nil, refuse(pin.Name, "it exceeds size cap of %d bytes", pin.MaxBytes)
		}
		if err := l.verifyBlob("layer "+short(layer.Digest), layer.Digest, layer.Size); err != nil {
			return nil, err
		}
	}
	return plan, nil
}

// plan reads and verifies a manifest and its configuration.
func (l Layout) plan(d descriptor, platform string) (*Image, error) {
	sum, err := digestHex("manifest", d.Digest)
	if err != nil {
		return nil, err
	}
	raw, err := l.small("manifest", sum, d.Size)
	if err != nil {
		return nil, err
	}
	m, configSum, err := parseManifest(raw)
	if err != nil {
		return nil, err
	}
	if raw, err = l.small("configuration", configSum, m.Config.Size); err != nil {
		return nil, err
	}
	layers, err := joinLayers(m, raw)
	if err != nil {
		return nil, err
	}
	return &Image{Digest: sum, Platform: platform, Layers: layers, layout: l}, nil
}

// small reads a whole blob of at most MaxManifest bytes and verifies what was
// read. size -1 takes any.
func (l Layout) small(what, sum string, size int64) ([]byte, error) {
	if _, err := wellFormed(what, sum); err != nil {
		return nil, err
	}
	f, err := openRegular(l.Blob(sum))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, MaxManifest+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return raw, checkSmall(what, raw, sum, size)
}

func checkSmall(what string, raw []byte, sum string, size int64) error {
	if len(raw) > MaxManifest {
		return refuse(what, "it exceeds size cap of %d bytes", MaxManifest)
	}
	if size >= 0 && int64(len(raw)) != size {
		return refuse(what+" "+short(sum), "it has %d bytes, not %d", len(raw), size)
	}
	if got := sumOf(raw); got != sum {
		return refuse(what+" "+short(sum), "SHA-256 mismatch: expected %s got %s", sum, got)
	}
	return nil
}

func (l Layout) verifyBlob(what, sum string, size int64) error {
	path := l.Blob(sum)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: %w", what, ErrAbsent)
	case err != nil:
		return err
	case info.Size() != size:
		return refuse(what, "it has %d bytes, not %d", info.Size(), size)
	}
	if l.Checked != nil {
		return l.Checked.Verify(path, sum, size)
	}
	return VerifySHA256(path, sum, size)
}

// chooseManifest finds the one manifest for a platform in an index.
func chooseManifest(raw []byte, want string) (descriptor, error) {
	var idx index
	if err := json.Unmarshal(raw, &idx); err != nil {
		return descriptor{}, refuse("index", "it does not parse")
	}
	if !slices.Contains(indexTypes, idx.MediaType) {
		return descriptor{}, fmt.Errorf("%w: the digest does not name an index but %q", ErrPin, idx.MediaType)
	}
	if len(idx.Manifests) > MaxManifests {
		return descriptor{}, refuse("index", "it has more than %d manifests", MaxManifests)
	}
	var found []descriptor
	for _, d := range idx.Manifests {
		if d.Platform != nil && d.Platform.OS+"/"+d.Platform.Architecture == want {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return descriptor{}, fmt.Errorf("%w: the index holds %d manifests for %s, not one", ErrPin, len(found), want)
	}
	return found[0], checkSize("manifest", found[0], MaxManifest)
}

func parseManifest(raw []byte) (m manifest, configSum string, err error) {
	if err := json.Unmarshal(raw, &m); err != nil {
		return manifest{}, "", refuse("manifest", "it does not parse")
	}
	if len(m.Layers) == 0 || len(m.Layers) > MaxLayers {
		return manifest{}, "", refuse("manifest", "it has %d layers, not 1 to %d", len(m.Layers), MaxLayers)
	}
	if err := checkSize("configuration", m.Config, MaxManifest); err != nil {
		return manifest{}, "", err
	}
	configSum, err = digestHex("configuration", m.Config.Digest)
	return m, configSum, err
}

func checkSize(what string, d descriptor, limit int64) error {
	if d.Size <= 0 || d.Size > limit {
		return refuse(what, "its size of %d bytes is out of range", d.Size)
	}
	return nil
}

// joinLayers pairs the layers with the hashes of their tars.
func joinLayers(m manifest, rawConfig []byte) ([]Layer, error) {
	var c config
	if err := json.Unmarshal(rawConfig, &c); err != nil {
		return nil, refuse("configuration", "it does not parse")
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, refuse("configuration", "it has %d layers, the manifest %d", len(c.RootFS.DiffIDs), len(m.Layers))
	}
	layers := make([]Layer, len(m.Layers))
	for i, d := range m.Layers {
		what := fmt.Sprintf("layer %d", i)
		if err := checkSize(what, d, MaxImage); err != nil {
			return nil, err
		}
		sum, err := digestHex(what, d.Digest)
		if err != nil {
			return nil, err
		}
		diff, err := digestHex(what, c.RootFS.DiffIDs[i])
		if err != nil {
			return nil, err
		}
		layers[i] = Layer{sum, diff, d.Size, d.MediaType}
	}
	return layers, nil
}

// short is the beginning of a hash, enough to find it.
func short(sum string) string { return sum[:min(12, len(sum))] }
