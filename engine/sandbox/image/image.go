// Package image builds the sandbox's own image: an OCI layout that is the same
// bit for bit wherever it is built from the same files. Layers are plain tars,
// so no compressor's version is part of the hash.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"osaurus/engine/atomicfile"
	"osaurus/engine/internal/canonjson"
)

// Entry is one name of the root file system. Everything belongs to root.
type Entry struct {
	Name   string      // relative, slashes
	Mode   fs.FileMode // permissions, with ModeDir or ModeSymlink for those
	Body   []byte
	Target string // of a symbolic link
}

// Index is a built image: the digest to pin, and its blobs.
type Index struct {
	Digest string // SHA-256 of the index, hexadecimal
	size   int
	blobs  map[string][]byte // by SHA-256
}

// Media types of image-spec v1.
const (
	layerType    = "application/vnd.oci.image.layer.v1.tar"
	configType   = "application/vnd.oci.image.config.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

// Build makes an image of one platform ("linux/amd64") with one layer for each
// list of entries, which it sorts.
func Build(platform string, layers ...[]Entry) (*Index, error) {
	system, arch, ok := strings.Cut(platform, "/")
	if !ok {
		return nil, fmt.Errorf("image: the platform %q has no architecture", platform)
	}
	ix := &Index{blobs: map[string][]byte{}}
	var diffs, descriptors []any
	for _, entries := range layers {
		layer, err := archive(entries)
		if err != nil {
			return nil, err
		}
		d := ix.add(layerType, layer)
		diffs, descriptors = append(diffs, d["digest"]), append(descriptors, d)
	}
	config, err := ix.document(configType, map[string]any{
		"architecture": arch, "os": system, "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := ix.document(manifestType, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": descriptors,
	})
	if err != nil {
		return nil, err
	}
	manifest["platform"] = map[string]any{"os": system, "architecture": arch}
	index, err := ix.document(indexType, map[string]any{
		"schemaVersion": 2, "mediaType": indexType, "manifests": []any{manifest},
	})
	if err != nil {
		return nil, err
	}
	ix.Digest = strings.TrimPrefix(fmt.Sprint(index["digest"]), "sha256:")
	ix.size = len(ix.blobs[ix.Digest])
	return ix, nil
}

// document adds a JSON blob in canonical form.
func (ix *Index) document(mediaType string, v any) (map[string]any, error) {
	raw, err := canonjson.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return ix.add(mediaType, raw), nil
}

// add keeps a blob and returns its descriptor.
func (ix *Index) add(mediaType string, raw []byte) map[string]any {
	sum := sha256.Sum256(raw)
	name := hex.EncodeToString(sum[:])
	ix.blobs[name] = raw
	return map[string]any{"mediaType": mediaType, "digest": "sha256:" + name, "size": len(raw)}
}

func archive(entries []Entry) ([]byte, error) {
	sorted := slices.SortedFunc(slices.Values(entries), func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i, e := range sorted {
		if e.Name != path.Clean(e.Name) || !fs.ValidPath(e.Name) || i > 0 && e.Name == sorted[i-1].Name {
			return nil, fmt.Errorf("image: the name %q is unclean or stands there twice", e.Name)
		}
		h := &tar.Header{Name: e.Name, Mode: int64(e.Mode.Perm()), Size: int64(len(e.Body)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		switch {
		case e.Mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, e.Name+"/"
			if e.Mode&fs.ModeSticky != 0 {
				h.Mode |= 0o1000
			}
		case e.Mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.Target, 0o777
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.Body); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}

// Write puts the image into a new OCI layout, which takes its name only when
// it is complete and replaces what was there.
func (ix *Index) Write(dir string) error {
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	blobs := filepath.Join(tmp, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil { //nolint:gosec // part of an installation
		return err
	}
	files := map[string][]byte{
		filepath.Join(tmp, "oci-layout"): []byte(`{"imageLayoutVersion":"1.0.0"}`),
		filepath.Join(tmp, "index.json"): fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":"sha256:%s","size":%d}]}`, indexType, ix.Digest, ix.size),
	}
	for sum, raw := range ix.blobs {
		files[filepath.Join(blobs, sum)] = raw
	}
	for name, raw := range files {
		if err := os.WriteFile(name, raw, 0o644); err != nil { //nolint:gosec // part of an installation
			return err
		}
	}
	if err := atomicfile.SyncDir(blobs); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(dir))
}
