package initramfs_test

import (
	"bytes"
	"strings"
	"testing"

	"osaurus/engine/sandbox/image"
	"osaurus/engine/sandbox/initramfs"
	"osaurus/engine/sandbox/wire"
)

func TestMachine(t *testing.T) {
	t.Parallel()
	boot := wire.Boot{Sandbox: "osr-a", Nonce: strings.Repeat("ab", wire.NonceSize), Transport: "virtio:/dev/vport0p1", Init: true}
	for name, c := range map[string]struct {
		machine  initramfs.Machine
		has, not []string
	}{
		"modules in their order": {
			initramfs.Machine{Boot: boot, WorkspaceMB: 64, Modules: []image.Entry{{Name: "z.ko"}, {Name: "a.ko"}}},
			[]string{"lib/osaurus/00-z.ko", "lib/osaurus/01-a.ko", "size=64m tmpfs /workspace", "[ ! -e /dev/vport0p1 ]", `"nonce":"abab`, "remount,ro"},
			[]string{"virtiofs"},
		},
		"a shared workspace": {
			initramfs.Machine{Boot: wire.Boot{Sandbox: "osr-a", Nonce: boot.Nonce, Transport: "vsock:2:1024"}, Share: "workspace", Programs: image.Programs([]byte("g"), []byte("h"))},
			[]string{"-t virtiofs -o nosuid,nodev workspace /workspace", "sbin/osaurus-guest", "usr/local/bin/osaurus-host"},
			[]string{"vport", "lib/osaurus\x00"},
		},
	} {
		var out bytes.Buffer
		if err := c.machine.Write(&out, tree(t)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, want := range c.has {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q", name, want)
			}
		}
		for _, bad := range c.not {
			if strings.Contains(out.String(), bad) {
				t.Errorf("%s: there is %q", name, bad)
			}
		}
	}
	if err := (initramfs.Machine{}).Write(&bytes.Buffer{}, tree(t)); err == nil {
		t.Error("a machine without a boot file was written")
	}
}
