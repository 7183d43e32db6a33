//go:build linux

package qemu

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"osaurus/engine/atomicfile"
	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
	"osaurus/engine/sandbox/image"
	"osaurus/engine/sandbox/initramfs"
)

// Where the initramfs has what the image does not.
const (
	initPath  = "/osaurus-init"
	bootPath  = "/boot.json"
	moduleDir = "lib/osaurus"
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
	for i, m := range d.o.Kernel.Modules {
		raw, err := artifact.ReadSHA256(m.Path, m.SHA256, maxKernel)
		if err != nil {
			return verified{}, err
		}
		name := fmt.Sprintf("%s/%02d-%s", moduleDir, i, filepath.Base(m.Path))
		v.modules = append(v.modules, image.Entry{Name: name, Mode: 0o400, Body: raw})
	}
	return v, nil
}

// writeInitramfs packs the image, the modules, the boot file and what comes
// before osaurus-guest.
func (s *Sandbox) writeInitramfs(spec sandbox.Spec, k verified) (err error) {
	boot := spec.Boot
	boot.Transport, boot.Init = "virtio:"+portDevice, true
	raw, err := boot.Encode()
	if err != nil {
		return err
	}
	extra := append(k.modules,
		image.Entry{Name: strings.TrimPrefix(bootPath, "/"), Mode: 0o600, Body: raw},
		image.Entry{Name: strings.TrimPrefix(initPath, "/"), Mode: 0o500, Body: []byte(initScript(spec))},
	)
	if len(k.modules) > 0 {
		extra = append(extra, folder("lib"), folder(moduleDir))
	}
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
	return errors.Join(initramfs.Write(w, root, extra...), w.Flush(), f.Close())
}

func folder(name string) image.Entry { return image.Entry{Name: name, Mode: os.ModeDir | 0o755} }

// initScript loads the modules, makes the workspace and the root read-only,
// and becomes osaurus-guest, which mounts the rest.
func initScript(spec sandbox.Spec) string {
	return fmt.Sprintf(`#!/bin/busybox sh
for module in /%s/*.ko; do
	[ -e "$module" ] && /bin/busybox insmod "$module"
done
/bin/busybox mount -t tmpfs -o nosuid,nodev,mode=0755,size=%dm tmpfs %s
/bin/busybox mount -n -t rootfs -o remount,ro rootfs /
export PATH=%s
exec %s %s
`, moduleDir, spec.MemoryMB/2, image.Workspace, image.Path, image.GuestPath, bootPath)
}
