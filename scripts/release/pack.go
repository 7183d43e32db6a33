package main

import (
	"bytes"
	"crypto/md5" //nolint:gosec // what dpkg compares installed files with
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sharedFiles are those of the tree that every archive holds.
func sharedFiles(tree string) (files, error) {
	shared := files{}
	for from, to := range map[string]string{
		"LICENSE": "doc/LICENSE", "README.md": "doc/README.md", "SECURITY.md": "doc/SECURITY.md", "CHANGELOG.md": "doc/CHANGELOG.md",
		"resources/packaging/osaurus.service": "systemd/osaurus.service", "resources/packaging/osaurus-home.service": "systemd/osaurus-home.service",
		"resources/packaging/osaurus.rb": "formula",
	} {
		body, err := os.ReadFile(filepath.Join(tree, filepath.FromSlash(from)))
		if err != nil {
			return nil, err
		}
		shared[to] = body
	}
	return shared, nil
}

// tree lays files out as below a prefix such as /usr.
func (b built) tree() files {
	t := files{}
	for name, body := range b.programs {
		t["bin/"+name] = body
	}
	for name, body := range b.sandbox {
		t["libexec/osaurus/"+name] = body
	}
	for name, body := range b.manual {
		t["share/man/man1/"+name+".gz"] = compressed(body)
	}
	t["share/bash-completion/completions/osaurus"] = b.completions["bash/osaurus"]
	t["share/zsh/vendor-completions/_osaurus"] = b.completions["zsh/_osaurus"]
	t["share/fish/vendor_completions.d/osaurus.fish"] = b.completions["fish/osaurus.fish"]
	for name, body := range b.shared {
		if unit, ok := strings.CutPrefix(name, "systemd/"); ok {
			t["lib/systemd/user/"+unit] = body
		}
		if doc, ok := strings.CutPrefix(name, "doc/"); ok && doc != "LICENSE" {
			t["share/doc/osaurus/"+doc] = body
		}
	}
	t["share/doc/osaurus/copyright"] = slices.Concat(b.shared["doc/LICENSE"], []byte("\n"), b.licences)
	return t
}

// pack adds the files of one platform.
func (o *options) pack(all files, src source, b built) error {
	name := "osaurus-" + o.version + "-" + b.platform.String()
	archive, err := b.tree().under(name).archive(src.time)
	if err != nil {
		return err
	}
	all[name+".tar.gz"], all[name+".cdx.json"] = archive, b.sbom
	deb, err := o.debian(src, b)
	all["osaurus_"+o.version+"_"+b.platform.deb+".deb"] = deb
	return err
}

// packSource adds the sources, and the formula that builds from them.
func (o *options) packSource(all files, src source, tree string) error {
	cmd := exec.Command("git", "archive", "--format=tar", "--prefix=osaurus-"+o.version+"/", src.commit)
	cmd.Dir = tree
	tar, err := cmd.Output()
	if err != nil {
		return err
	}
	name := "osaurus-" + o.version + "-source.tar.gz"
	all[name] = compressed(tar)
	shared, err := sharedFiles(tree)
	if err != nil {
		return err
	}
	all["osaurus.rb"], err = o.formula(shared["formula"], all[name])
	return err
}

// formula fills the placeholders; one that is left is an error.
func (o *options) formula(text, archive []byte) ([]byte, error) {
	filled := strings.NewReplacer("@VERSION@", o.version, "@BASE_URL@", strings.TrimSuffix(o.baseURL, "/"), "@SHA256@", fmt.Sprintf("%x", sha256.Sum256(archive))).Replace(string(text))
	if at := strings.Index(filled, "@"); at >= 0 {
		return nil, fmt.Errorf("the formula has a placeholder that nothing fills: %.20s", filled[at:])
	}
	return []byte(filled), nil
}

const control = `Package: osaurus
Version: %s
Architecture: %s
Maintainer: The Osaurus authors <security@osaurus.invalid>
Installed-Size: %d
Depends: libc6 (>= %s)
Suggests: systemd
Section: net
Priority: optional
Homepage: %s
Description: host for AI agents that others may talk to as far as you allow
 Keeps an identity, decides who may talk to its agents, and carries those
 talks end-to-end encrypted. Every user has a host of their own:
 systemctl --user enable --now osaurus
`

// debian makes a package with dpkg-deb.
func (o *options) debian(src source, b built) (deb []byte, err error) {
	libc, err := newestLibc(b.programs)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "osaurus-deb-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	root := filepath.Join(dir, "root")
	size := 0
	tree := b.tree().under("usr")
	tree["usr/share/doc/osaurus/changelog.gz"] = compressed(b.shared["doc/CHANGELOG.md"])
	delete(tree, "usr/share/doc/osaurus/CHANGELOG.md")
	var sums strings.Builder
	for _, name := range tree.names() {
		if err := place(filepath.Join(root, filepath.FromSlash(name)), tree[name], os.FileMode(mode(name))); err != nil {
			return nil, err
		}
		size += len(tree[name])
		fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(tree[name]), name)
	}
	text := fmt.Sprintf(control, o.version, b.platform.deb, (size+1023)/1024, libc, o.baseURL)
	err = errors.Join(place(filepath.Join(root, "DEBIAN/control"), []byte(text), 0o644), place(filepath.Join(root, "DEBIAN/md5sums"), []byte(sums.String()), 0o644))
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "osaurus.deb")
	env := append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(src.time.Unix(), 10), "LC_ALL=C", "TZ=UTC")
	if _, err := output(dir, env, "dpkg-deb", "--root-owner-group", "--uniform-compression", "-Zgzip", "-z9", "--build", root, file); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

// place writes a file whose folders may be missing, with the modes of a package
// whatever the umask is.
func place(at string, body []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(at, body, mode); err != nil {
		return err
	}
	return os.Chmod(at, mode)
}

// newestLibc is the newest version of the C library that a program asks for.
func newestLibc(programs files) (string, error) {
	newest, at := "2.17", []int{2, 17}
	for _, name := range programs.names() {
		f, err := elf.NewFile(bytes.NewReader(programs[name]))
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		symbols, err := f.ImportedSymbols()
		if errors.Is(err, elf.ErrNoSymbols) {
			continue // static
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		for _, s := range symbols {
			version, ok := strings.CutPrefix(s.Version, "GLIBC_")
			if !ok {
				continue
			}
			if v := numbers(version); slices.Compare(v, at) > 0 {
				newest, at = version, v
			}
		}
	}
	return newest, nil
}

func numbers(version string) []int {
	var list []int
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil // GLIBC_PRIVATE and the like ask for no version
		}
		list = append(list, n)
	}
	return list
}
