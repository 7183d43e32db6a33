package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// The part of CycloneDX 1.6 that we write (ECMA-424).
type (
	bom struct {
		Schema       string       `json:"$schema"`
		Format       string       `json:"bomFormat"`
		Spec         string       `json:"specVersion"`
		Serial       string       `json:"serialNumber"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Type       string          `json:"type"`
		Ref        string          `json:"bom-ref"`
		Name       string          `json:"name"`
		Version    string          `json:"version"`
		Desc       string          `json:"description,omitempty"`
		PURL       string          `json:"purl,omitempty"`
		CPE        string          `json:"cpe,omitempty"`
		Licences   []licenceChoice `json:"licenses,omitempty"`
		Hashes     []hash          `json:"hashes,omitempty"`
		Properties []property      `json:"properties,omitempty"`
		Components []component     `json:"components,omitempty"`
	}
	licenceChoice struct {
		Licence licenceID `json:"license"`
	}
	licenceID struct {
		ID string `json:"id"`
	}
	hash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref string   `json:"ref"`
		On  []string `json:"dependsOn,omitempty"`
	}
)

// sqlcipherModule carries C sources that no module list names: SQLCipher, the
// SQLite within it, and the part of LibTomCrypt that it encrypts with unless
// another provider is registered.
const sqlcipherModule = "github.com/mutecomm/go-sqlcipher/v4"

// sbom lists what is in the programs. It is made from the programs themselves,
// and the same for the same programs.
func sbom(version string, src source, p platform, programs files, linked map[string]string, found licences, dirs map[string]string, more ...component) ([]byte, error) {
	root := component{Type: "application", Ref: "osaurus", Name: "osaurus", Version: version, Licences: chosen("MIT"), Properties: []property{{"osaurus:platform", p.String()}, {"osaurus:commit", src.commit}}}
	for _, name := range programs.names() {
		root.Components = append(root.Components, component{Type: "file", Ref: "file:" + name, Name: name, Version: version, Hashes: []hash{{"SHA-256", fmt.Sprintf("%x", sha256.Sum256(programs[name]))}}})
	}
	b := bom{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", Spec: "1.6", Version: 1,
		Serial:   "urn:uuid:" + uuid.NewSHA1(uuid.NameSpaceURL, []byte(programs.sums())).String(),
		Metadata: metadata{src.time.Format(time.RFC3339), root},
	}
	b.Components = goComponents(linked, found)
	if linked[sqlcipherModule] != "" {
		native, err := vendored(dirs[sqlcipherModule])
		if err != nil {
			return nil, err
		}
		b.Components = append(b.Components, native...)
	}
	var refs []string
	for _, c := range more {
		if !slices.ContainsFunc(b.Components, func(have component) bool { return have.Ref == c.Ref }) {
			b.Components = append(b.Components, c)
		}
	}
	for _, c := range b.Components {
		refs = append(refs, c.Ref)
	}
	b.Dependencies = append(b.Dependencies, dependency{"osaurus", refs})
	return json.MarshalIndent(b, "", "  ")
}

// goComponents are the Go standard library and the modules linked with it.
func goComponents(linked map[string]string, found licences) []component {
	ids := map[string][]string{}
	for _, l := range found {
		ids[l.module] = l.ids
	}
	std := component{Type: "library", Ref: "pkg:golang/std@" + strings.TrimPrefix(toolchain, "go"), Name: "std", Version: strings.TrimPrefix(toolchain, "go"), Desc: "the Go standard library and runtime", Licences: chosen(ids["std"]...)}
	std.PURL = std.Ref
	all := []component{std}
	for _, path := range slices.Sorted(maps.Keys(linked)) {
		c := component{Type: "library", Ref: "pkg:golang/" + path + "@" + linked[path], Name: path, Version: linked[path], Licences: chosen(ids[path]...)}
		c.PURL = c.Ref
		all = append(all, c)
	}
	return all
}

func chosen(ids ...string) []licenceChoice {
	var list []licenceChoice
	for _, id := range ids {
		list = append(list, licenceChoice{licenceID{id}})
	}
	return list
}

var (
	sqliteVersion = regexp.MustCompile(`(?m)^#define SQLITE_VERSION\s+"([0-9.]+)"`)
	cipherVersion = regexp.MustCompile(`(?m)^#define CIPHER_VERSION_NUMBER\s+([0-9.]+)`)
)

// vendored reads the versions out of the C sources themselves. LibTomCrypt's
// files do not say theirs; they are named by the hash of what is there.
func vendored(dir string) ([]component, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "sqlite3.c"))
	if err != nil {
		return nil, err
	}
	sqlite, cipher := sqliteVersion.FindSubmatch(raw), cipherVersion.FindSubmatch(raw)
	if sqlite == nil || cipher == nil {
		return nil, fmt.Errorf("%s/sqlite3.c does not say its versions", dir)
	}
	tom := files{}
	sources, err := filepath.Glob(filepath.Join(dir, "*.[ch]"))
	if err != nil {
		return nil, err
	}
	for _, at := range sources {
		if name := filepath.Base(at); !strings.HasPrefix(name, "sqlite3") {
			if tom[name], err = os.ReadFile(at); err != nil {
				return nil, err
			}
		}
	}
	native := func(name, version, vendor, desc string, ids ...string) component {
		c := component{Type: "library", Ref: "c:" + name, Name: name, Version: version, Desc: desc, PURL: "pkg:generic/" + name + "@" + version, Licences: chosen(ids...), Properties: []property{{"osaurus:vendored-in", sqlcipherModule}}}
		if vendor != "" {
			c.CPE = "cpe:2.3:a:" + vendor + ":" + version + ":*:*:*:*:*:*:*"
		}
		return c
	}
	tomcrypt := native("libtomcrypt", fmt.Sprintf("%x", sha256.Sum256([]byte(tom.sums())))[:16], "", "the part of it that go-sqlcipher carries; its files name no version, this is the hash of their sums", "Unlicense")
	return []component{
		native("sqlcipher", string(cipher[1]), "zetetic:sqlcipher", "the pages' encryption, C", "BSD-3-Clause"),
		native("sqlite", string(sqlite[1]), "sqlite:sqlite", "the amalgamation within SQLCipher, C", "blessing"),
		tomcrypt,
	}, nil
}
