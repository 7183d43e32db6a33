package initramfs

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"osaurus/engine/sandbox/image"
	"osaurus/engine/sandbox/wire"
)

// InitPath is the first program of a virtual machine, to be named to its
// kernel as rdinit.
const InitPath = "/osaurus-init"

// Where the machine has what its image does not.
const (
	bootPath  = "/boot.json"
	moduleDir = "lib/osaurus"
)

// portTenths is how long the serial port is waited for, in tenths of a second.
const portTenths = 300

// Machine is a virtual machine's file system: the image, with what it takes to
// get from a kernel to osaurus-guest.
type Machine struct {
	Boot        wire.Boot
	Modules     []image.Entry // kernel modules, loaded in this order
	Programs    []image.Entry // what the image lacks
	WorkspaceMB int           // of the workspace, kept in memory
	Share       string        // the tag of a shared workspace in its place
}

// Write packs the machine over the unpacked image.
func (m Machine) Write(w io.Writer, root *os.Root) error {
	boot, err := m.Boot.Encode()
	if err != nil {
		return err
	}
	extra := slices.Concat(m.Programs, []image.Entry{
		{Name: strings.TrimPrefix(bootPath, "/"), Mode: 0o600, Body: boot},
		{Name: strings.TrimPrefix(InitPath, "/"), Mode: 0o500, Body: []byte(m.script())},
	})
	if len(m.Modules) > 0 {
		extra = append(extra, image.Entry{Name: "lib", Mode: fs.ModeDir | 0o755}, image.Entry{Name: moduleDir, Mode: fs.ModeDir | 0o755})
	}
	for i, mod := range m.Modules {
		mod.Name = fmt.Sprintf("%s/%02d-%s", moduleDir, i, path.Base(mod.Name))
		extra = append(extra, mod)
	}
	return Write(w, root, extra...)
}

// script loads the modules, twice, since updates of a kernel turn round which
// of virtio and virtio_ring needs the other. It waits for the way to the host,
// mounts the workspace, puts /etc, where users are kept, into memory, makes the rest read-only, and becomes osaurus-guest,
// which mounts what is left.
func (m Machine) script() string {
	workspace := fmt.Sprintf("-t tmpfs -o nosuid,nodev,mode=0755,size=%dm tmpfs", m.WorkspaceMB)
	if m.Share != "" {
		workspace = "-t virtiofs -o nosuid,nodev " + m.Share
	}
	// The kernel makes a serial port some time after its module was loaded.
	wait := ""
	if port, ok := strings.CutPrefix(m.Boot.Transport, "virtio:"); ok {
		wait = fmt.Sprintf("n=0\nwhile [ ! -e %s ] && [ $n -lt %d ]; do $b sleep 0.1; n=$((n+1)); done", port, portTenths)
	}
	return fmt.Sprintf(`#!/bin/busybox sh
b=/bin/busybox
for pass in 1 2; do for module in /%s/*.ko; do
	[ -e "$module" ] && $b insmod "$module" 2>/dev/null
done; done
$b mount -t devtmpfs -o nosuid,mode=0755 devtmpfs /dev || exit 1
%s
$b mkdir -p %s /.etc && $b mount %s %s || exit 1
$b cp -a /etc/. /.etc/ && $b mount -t tmpfs -o nosuid,nodev,mode=0755,size=1m tmpfs /etc && $b cp -a /.etc/. /etc/ || exit 1
$b mount -n -t rootfs -o remount,ro rootfs / || exit 1
export PATH=%s
exec %s %s
`, moduleDir, wait, image.Workspace, workspace, image.Workspace, image.Path, image.GuestPath, bootPath)
}
