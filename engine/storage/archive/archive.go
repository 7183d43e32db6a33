// Package archive is the form of an export (decisions D8): a folder, a tar of
// it, or that tar encrypted to recipients with age.
//
//	osaurus-export-<UTC>/
//	    README.txt
//	    blobs/<SHA-256>       attachments
//	    config/<path>         settings and records, as they were below the home
//	    databases/<path>      plain SQLite files, as they were below the home
//	    manifest.json         every file's size and SHA-256; written last
//
// Files stand in the tar sorted by name, so that it is written and read in
// one pass. Nothing has the name of an export before all of it is written.
package archive

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"osaurus/engine/internal/canonjson"
)

// Kind is what a file of an export is.
type Kind string

// The kinds. Each has a folder of its own.
const (
	Database Kind = "database"
	Blob     Kind = "blob"
	Config   Kind = "config"
)

var folders = map[Kind]string{Database: "databases", Blob: "blobs", Config: "config"}

// Path is the place in an export of the file that is rel below the home, or
// has that name among the blobs.
func (k Kind) Path(rel string) string { return folders[k] + "/" + rel }

// Item is one file of an export, or one that could not be exported.
type Item struct {
	Store         string           `json:"store"` // the id of a store, or ""
	Kind          Kind             `json:"kind"`
	Path          string           `json:"path"` // below the export, with slashes
	Bytes         int64            `json:"bytes"`
	SHA256        string           `json:"sha256"` // 64 lower-case hex digits
	SchemaVersion int64            `json:"schema_version,omitempty"`
	Tables        map[string]int64 `json:"tables,omitempty"` // rows of each table
	Error         string           `json:"error,omitempty"`  // why the file is not there
}

// Rel is where the file was below the home.
func (i Item) Rel() string { return strings.TrimPrefix(i.Path, folders[i.Kind]+"/") }

// Manifest lists what an export holds.
type Manifest struct {
	V          int       `json:"v"`
	Created    time.Time `json:"created"`
	AppVersion string    `json:"app_version"`
	Items      []Item    `json:"items"`
	Complete   bool      `json:"complete"` // nothing is missing
}

const manifestVersion = 1

// The names in an export beside its folders, and its own.
const (
	manifestName = "manifest.json"
	readmeName   = "README.txt"
	partial      = ".partial" // what its name ends in until it is whole
)

// Limits of what is read. They are far above what a host writes.
const (
	MaxItems    = 1 << 20   // files in an export
	MaxManifest = 256 << 20 // bytes of manifest.json
	MaxPath     = 1024      // bytes of a path
	maxName     = 255       // bytes of one name in it
)

// Errors of Open and Verify. What they wrap names the file.
var (
	ErrNotExport  = errors.New("archive: not an export of this program")
	ErrDiffers    = errors.New("archive: a file is not what the manifest says")
	ErrIncomplete = errors.New("archive: the export is not complete")
	ErrExists     = errors.New("archive: there is something of that name already")
	ErrIdentity   = errors.New("archive: encrypted to another recipient")
)

var exportName = regexp.MustCompile(`^osaurus-export-[0-9]{8}T[0-9]{6}Z$`)

// Name is what an export of that moment is called, without an ending.
func Name(at time.Time) string { return "osaurus-export-" + at.UTC().Format("20060102T150405Z") }

// IsPartial reports whether name is that of an export that was not finished.
func IsPartial(name string) bool {
	stem, ok := strings.CutSuffix(name, partial)
	for _, ending := range []string{extAge, extTar} {
		stem = strings.TrimSuffix(stem, ending)
	}
	return ok && exportName.MatchString(stem)
}

const (
	extTar = ".tar"
	extAge = ".age"
)

func parseManifest(text []byte) (Manifest, error) {
	var m Manifest
	if err := canonjson.Unmarshal(text, &m); err != nil {
		return Manifest{}, fmt.Errorf("%w: %s does not parse: %w", ErrNotExport, manifestName, err)
	}
	if m.V != manifestVersion {
		return Manifest{}, fmt.Errorf("%w: %s has version %d, want %d", ErrNotExport, manifestName, m.V, manifestVersion)
	}
	if len(m.Items) > MaxItems {
		return Manifest{}, fmt.Errorf("%w: more than %d files", ErrNotExport, MaxItems)
	}
	seen := make(map[string]bool, len(m.Items))
	for _, it := range m.Items {
		key := strings.ToLower(it.Path) // some file systems see no case
		if err := it.check(); err != nil {
			return Manifest{}, err
		}
		if seen[key] {
			return Manifest{}, fmt.Errorf("%w: %s is listed twice", ErrNotExport, it.Path)
		}
		seen[key] = true
		if it.Error != "" && m.Complete {
			return Manifest{}, fmt.Errorf("%w: complete, but %s is missing", ErrNotExport, it.Path)
		}
	}
	return m, nil
}

func (i Item) check() error {
	if i.Error != "" {
		return nil // it names what is not there
	}
	if err := i.checkPath(); err != nil {
		return err
	}
	if sum, err := hex.DecodeString(i.SHA256); err != nil || len(sum) != 32 || hex.EncodeToString(sum) != i.SHA256 || i.Bytes < 0 {
		return fmt.Errorf("%w: %s has no size and SHA-256", ErrNotExport, i.Path)
	}
	if i.Kind == Blob && i.Rel() != i.SHA256 {
		return fmt.Errorf("%w: %s is not named by its SHA-256", ErrNotExport, i.Path)
	}
	return nil
}

func (i Item) checkPath() error {
	dir, known := folders[i.Kind]
	if !known || !strings.HasPrefix(i.Path, dir+"/") || !ValidPath(i.Path) {
		return fmt.Errorf("%w: %q is no path of a %q", ErrNotExport, i.Path, i.Kind)
	}
	return nil
}

// ValidPath accepts slash paths that stay where they are: no empty, hidden or
// parent component, no control character and no backslash.
func ValidPath(p string) bool {
	if len(p) > MaxPath || !utf8.ValidString(p) || path.Clean(p) != p || strings.Contains(p, `\`) || strings.ContainsFunc(p, unicode.IsControl) {
		return false
	}
	for name := range strings.SplitSeq(p, "/") {
		if name == "" || name[0] == '.' || len(name) > maxName {
			return false
		}
	}
	return true
}
