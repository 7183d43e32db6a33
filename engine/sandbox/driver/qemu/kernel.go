//go:build linux

package qemu

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"osaurus/engine/atomicfile"
	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
	"osaurus/engine/sandbox/image"
	"osaurus/engine/sandbox/initramfs"
)

// maxKernel caps kernel and modules in bytes.
const maxKernel = 128 << 20

// verified is a kernel whose bytes were hashed.
type verified struct {
	image   []byte
	modules []image.Entry
}

// kernel reads kernel and modules and verifies what was read.
func (d *Driver) kernel() (verified, error) {
	if d.o.Kernel == nil {
		return d.pinnedKernel()
	}
	raw, err := artifact.ReadSHA256(d.o.Kernel.Image.Path, d.o.Kernel.Image.SHA256, maxKernel)
	if err != nil {
		return verified{}, err
	}
	v := verified{image: raw}
	for _, m := range d.o.Kernel.Modules {
		raw, err := artifact.ReadSHA256(m.Path, m.SHA256, maxKernel)
		if err != nil {
			return verified{}, err
		}
		v.modules = append(v.modules, image.Entry{Name: filepath.Base(m.Path), Mode: 0o400, Body: raw})
	}
	return v, nil
}

// pinnedKernel is the kernel of the store, with its modules where there are
// any, in the order of their tar.
func (d *Driver) pinnedKernel() (verified, error) {
	raw, err := d.read(artifact.Kernel)
	if err != nil {
		return verified{}, err
	}
	v := verified{image: raw}
	raw, err = d.read(artifact.Modules)
	if errors.Is(err, artifact.ErrPin) {
		return v, nil // it has all it needs built in
	}
	if err != nil {
		return verified{}, err
	}
	for t := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return v, nil
		}
		if err != nil {
			return verified{}, fmt.Errorf("the tar of kernel modules: %w", err)
		}
		body, err := io.ReadAll(t) // within what was read
		if err != nil {
			return verified{}, fmt.Errorf("the tar of kernel modules: %w", err)
		}
		v.modules = append(v.modules, image.Entry{Name: filepath.Base(h.Name), Mode: 0o400, Body: body})
	}
}

func (d *Driver) read(name string) ([]byte, error) {
	pin, err := d.o.Artifacts.Pins.Find(name, d.o.Platform)
	if err != nil {
		return nil, err
	}
	return artifact.ReadSHA256(d.o.Artifacts.Path(pin), pin.SHA256, pin.MaxBytes)
}

// writeInitramfs packs the image with the modules and the boot file.
func (s *Sandbox) writeInitramfs(spec sandbox.Spec, k verified) (err error) {
	boot := spec.Boot
	boot.Transport, boot.Init = "virtio:"+portDevice, true
	root, err := os.OpenRoot(s.path("rootfs"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	f, err := os.OpenFile(s.path("initramfs"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, atomicfile.Mode)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	m := initramfs.Machine{Boot: boot, Modules: k.modules, WorkspaceMB: spec.MemoryMB / 2}
	return errors.Join(m.Write(w, root), w.Flush(), f.Close())
}
