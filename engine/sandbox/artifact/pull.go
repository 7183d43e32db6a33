package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"osaurus/engine/atomicfile"
)

// margin is left free on disk whatever is fetched, in bytes.
const margin = 64 << 20

// Network fetches artifacts. The zero value is the real network.
type Network struct {
	Transport http.RoundTripper // nil is remote.DefaultTransport
	// Free says how many bytes may be written below a folder; nil asks the system.
	Free func(dir string) (int64, error)
	// Insecure lets an image come from a registry without TLS.
	Insecure bool
	// Progress, when set, hears how many bytes have come.
	Progress func(done, total int64)
}

func (n Network) transport() http.RoundTripper {
	if n.Transport == nil {
		return remote.DefaultTransport
	}
	return n.Transport
}

// space refuses to begin what would leave less than the margin.
func (n Network) space(dir string, need int64) error {
	free := n.Free
	if free == nil {
		free = freeBytes
	}
	have, err := free(dir)
	if err != nil {
		return err
	}
	if have < need+margin {
		return fmt.Errorf("not enough space below %s: %d bytes are free, %d are needed", dir, have, need+margin)
	}
	return nil
}

// Pull fetches the image a pin names by the digest of its index, one platform
// of it, into the layout. Blobs that are there and whole are not fetched
// again; each new one takes its name only when its hash is right.
func (n Network) Pull(ctx context.Context, pin Pin, into Layout) error {
	var options []name.Option
	if n.Insecure {
		options = append(options, name.Insecure)
	}
	ref, err := name.NewDigest(pin.Reference, options...)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrPin, pin.Name, err)
	}
	p, err := v1.ParsePlatform(pin.Platform)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrPin, pin.Name, err)
	}
	desc, err := remote.Get(ref, remote.WithContext(ctx), remote.WithTransport(n.transport()), remote.WithPlatform(*p))
	if err != nil {
		return pulled(pin.Name+": index", err)
	}
	if !desc.MediaType.IsIndex() {
		return fmt.Errorf("%w: %s: the digest does not name an index but %q", ErrPin, pin.Name, desc.MediaType)
	}
	if err := into.create(); err != nil {
		return err
	}
	return n.pullChildren(pin, desc, into)
}

func (n Network) pullChildren(pin Pin, desc *remote.Descriptor, into Layout) error {
	chosen, err := chooseManifest(desc.Manifest, pin.Platform)
	if err != nil {
		return err
	}
	img, err := desc.Image()
	if err != nil {
		return pulled(pin.Name+": manifest", err)
	}
	rawManifest, err := img.RawManifest()
	if err != nil {
		return pulled(pin.Name+": manifest", err)
	}
	m, configSum, err := parseManifest(rawManifest)
	if err != nil {
		return err
	}
	rawConfig, err := img.RawConfigFile()
	if err != nil {
		return pulled(pin.Name+": configuration", err)
	}
	layers, err := joinLayers(m, rawConfig)
	if err != nil {
		return err
	}
	total := int64(0)
	for _, l := range layers {
		total += l.Size
	}
	if total > pin.MaxBytes {
		return refuse(pin.Name, "it exceeds size cap of %d bytes", pin.MaxBytes)
	}
	if err := n.space(into.Dir, total); err != nil {
		return err
	}
	if err := n.pullLayers(pin.Name, img, layers, total, into); err != nil {
		return err
	}
	sum, err := digestHex("manifest", chosen.Digest)
	if err != nil {
		return err
	}
	// From the leaves to the root: an index on disk has all it names.
	for _, b := range []struct {
		sum string
		raw []byte
	}{{configSum, rawConfig}, {sum, rawManifest}, {pin.SHA256, desc.Manifest}} {
		if err := into.add("blob", b.sum, int64(len(b.raw)), bytes.NewReader(b.raw)); err != nil {
			return err
		}
	}
	return into.name(pin.SHA256, int64(len(desc.Manifest)), string(desc.MediaType))
}

func (n Network) pullLayers(what string, img v1.Image, layers []Layer, total int64, into Layout) error {
	done := int64(0)
	for _, l := range layers {
		name := what + ": layer " + short(l.Digest)
		if into.verifyBlob(name, l.Digest, l.Size) != nil {
			remoteLayer, err := img.LayerByDigest(v1.Hash{Algorithm: "sha256", Hex: l.Digest})
			if err != nil {
				return pulled(name, err)
			}
			body, err := remoteLayer.Compressed()
			if err != nil {
				return pulled(name, err)
			}
			err = into.add(name, l.Digest, l.Size, body)
			_ = body.Close() // only read
			if err != nil {
				return pulled(name, err)
			}
		}
		done += l.Size
		if n.Progress != nil {
			n.Progress(done, total)
		}
	}
	return nil
}

// pulled sorts an error of a pull: the network's, the disk's and a
// cancellation stay what they are, and everything else the registry client
// complains about means that something was not what was pinned.
func pulled(what string, err error) error {
	if network(err) || errors.Is(err, ErrIntegrity) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return fmt.Errorf("%s: %w", what, err)
	}
	return &refusal{what: what, reason: "it is not what was pinned", cause: err}
}

func network(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	if _, ok := errors.AsType[*transport.Error](err); ok {
		return true
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return true
	}
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// create makes the folders of a layout and its marker.
func (l Layout) create() error {
	if err := atomicfile.MkdirAll(filepath.Join(l.Dir, "blobs", "sha256")); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(l.Dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

// name writes index.json, for other programs: we never read it.
func (l Layout) name(sum string, size int64, mediaType string) error {
	return atomicfile.Write(filepath.Join(l.Dir, "index.json"), fmt.Appendf(nil,
		`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":"sha256:%s","size":%d}]}`, mediaType, sum, size))
}

// add puts a blob in place once its size and hash are right, and deletes only
// what it wrote itself. A damaged blob of that name is replaced.
func (l Layout) add(what, sum string, size int64, r io.Reader) (err error) {
	dir := filepath.Dir(l.Blob(sum))
	tmp, err := os.CreateTemp(dir, ".incoming-*")
	if err != nil {
		return err
	}
	placed := false
	defer func() {
		if !placed {
			err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name()))
		}
	}()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(tmp, h), io.LimitReader(r, size+1))
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); n != size || got != sum {
		return refuse(what, "SHA-256 mismatch: expected %s of %d bytes got %s of %d", sum, size, got, n)
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), l.Blob(sum)); err != nil {
		return err
	}
	placed = true
	return errors.Join(tmp.Close(), atomicfile.SyncDir(dir))
}

func sumOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}
