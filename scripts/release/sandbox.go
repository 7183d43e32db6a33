package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"osaurus/engine/sandbox/artifact"
)

// runsc is gVisor's program, beside the image of what it runs.
const runsc = "osaurus-runsc"

// box is what agents run in: gVisor's program and the image of the guest.
type box struct {
	files      files
	licences   []byte
	components []component
}

// shipped are the pins of what is built here and lies beside the program. The
// kernel of the driver qemu is Debian's and stays there.
var shipped = []string{"runsc", "sandbox-image"}

// buildSandbox builds them into a folder and holds them against the pins that
// the program carries: it would start nothing else. The image is made by
// running a program of its own, so only for machines like this one.
func buildSandbox(tree, libexec string, env []string, p platform) (b box, err error) {
	if p.goos != "linux" || p.goarch != runtime.GOARCH {
		return b, nil
	}
	static := append(slices.Clone(env), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly -buildvcs=false")
	module := filepath.Join(tree, "scripts", "runsc")
	at := filepath.Join(libexec, runsc)
	if _, err := output(module, static, "go", "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-o", at, "gvisor.dev/gvisor/runsc"); err != nil {
		return b, err
	}
	if _, err := output(tree, env, "go", "run", "./scripts/image", "-out", filepath.Join(libexec, "image")); err != nil {
		return b, err
	}
	if err := asPinned(libexec, p); err != nil {
		return b, err
	}
	if b.files, err = filesBelow(libexec); err != nil {
		return b, err
	}
	program := files{runsc: b.files[runsc]}
	linked, err := linkedModules(program)
	if err != nil {
		return b, err
	}
	dirs, err := moduleDirs(module, static)
	if err != nil {
		return b, err
	}
	found, err := licencesOf(linked, dirs)
	if err != nil {
		return b, err
	}
	copyright, busybox, err := busyboxOf()
	b.licences = slices.Concat([]byte("\n"), found.text(runsc), copyright)
	b.components = append(goComponents(linked, found), busybox)
	return b, err
}

// asPinned refuses what the program would not start.
func asPinned(libexec string, p platform) error {
	store, err := artifact.Open(libexec, libexec)
	if err != nil {
		return err
	}
	for _, name := range shipped {
		pin, err := store.Pins.Find(name, p.goos+"/"+p.goarch)
		if err != nil {
			return err
		}
		if err := store.Verify(pin); err != nil {
			return fmt.Errorf("%s is not what is pinned; make sandbox sets the pin of this toolchain and this busybox: %w", name, err)
		}
	}
	return nil
}

func filesBelow(dir string) (files, error) {
	all := files{}
	err := filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		all[filepath.ToSlash(rel)], err = os.ReadFile(at)
		return err
	})
	return all, err
}

// busyboxOf names Debian's busybox, which the image holds: its licence, which
// asks for its sources to be named, and its place in the list of parts.
func busyboxOf() ([]byte, component, error) {
	said, err := output(".", nil, "dpkg-query", "--show", "--showformat=${Version}\t${source:Package}\t${source:Version}", "busybox-static")
	if err != nil {
		return nil, component{}, err
	}
	parts := strings.Split(said, "\t")
	if len(parts) != 3 {
		return nil, component{}, fmt.Errorf("dpkg-query says %q of busybox-static", said)
	}
	copyright, err := os.ReadFile("/usr/share/doc/busybox-static/copyright")
	if err != nil {
		return nil, component{}, err
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "\nWhat the sandbox's image holds besides osaurus' own programs: busybox of\nDebian, unchanged, from its source package %s %s.\n\n%s\n", parts[1], parts[2], bytes.TrimSpace(copyright))
	c := component{Type: "application", Ref: "pkg:deb/debian/busybox-static@" + parts[0], Name: "busybox-static", Version: parts[0], Desc: "the commands within the sandbox's image", Licences: chosen("GPL-2.0-only"), PURL: "pkg:deb/debian/busybox-static@" + parts[0], Properties: []property{{"osaurus:in", "libexec/osaurus/image"}}}
	return text.Bytes(), c, nil
}
