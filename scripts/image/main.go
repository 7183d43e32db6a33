// Command image builds the sandbox's image for this machine: busybox-static
// and the guest programs of this tree, as an OCI layout that is the same bit
// for bit from the same parts. It prints the digest to pin.
//
// Usage:
//
//	image [-busybox FILE] [-out FOLDER]
package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"osaurus/engine/sandbox/image"
)

func main() {
	busybox := flag.String("busybox", "/bin/busybox", "a static busybox")
	out := flag.String("out", "build/libexec/image", "the OCI layout to write")
	flag.Parse()
	digest, err := build(*busybox, *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
	fmt.Println(digest)
}

func build(busybox, out string) (string, error) {
	p, err := parts(busybox)
	if err != nil {
		return "", err
	}
	ix, err := image.Build("linux/"+runtime.GOARCH, image.Rootfs(p))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", err
	}
	return ix.Digest, ix.Write(out)
}

func parts(busybox string) (p image.Parts, err error) {
	if p.Busybox, err = os.ReadFile(busybox); err != nil {
		return p, fmt.Errorf("%w (Debian has it in busybox-static)", err)
	}
	if err := static(p.Busybox); err != nil {
		return p, fmt.Errorf("%s: %w", busybox, err)
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return p, fmt.Errorf("%s --list: %w", busybox, err)
	}
	p.Applets = strings.Fields(string(list))
	if p.Guest, err = program("osaurus-guest"); err != nil {
		return p, err
	}
	p.Host, err = program("osaurus-host")
	return p, err
}

// static refuses a program that needs libraries which the image has not.
func static(program []byte) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it is not static")
		}
	}
	return nil
}

// program builds one of the guest programs.
func program(name string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "image")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a folder of the system's
	out := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "./app/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building %s: %w\n%s", name, err, text)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return raw, static(raw)
}
