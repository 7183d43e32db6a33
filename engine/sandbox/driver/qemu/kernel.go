//go:build linux

package qemu

import (
	"bufio"
	"errors"
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
		pin, err := d.o.Artifacts.Pins.Find(artifact.Kernel, d.o.Platform)
		if err != nil {
			return verified{}, err
		}
		raw, err := artifact.ReadSHA256(d.o.Artifacts.Path(pin), pin.SHA256, pin.MaxBytes)
		return verified{image: raw}, err
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
