package page

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"osaurus/app/panes"
)

// DiskOf tells whether the disk under a path is encrypted by the device mapper
// (LUKS, plain dm-crypt), also below LVM. Other ways are not known here.
func DiskOf(path string) panes.DiskState {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return panes.DiskUnknown
	}
	return diskState("/sys", fmt.Sprintf("dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), maxLayers)
}

// maxLayers bounds how many devices may lie upon each other.
const maxLayers = 8

func diskState(sys, device string, layers int) panes.DiskState {
	dir := filepath.Join(sys, device)
	if _, err := os.Stat(dir); err != nil || layers == 0 {
		return panes.DiskUnknown // an overlay, a network, a file system without a disk
	}
	if id, err := os.ReadFile(filepath.Join(dir, "dm", "uuid")); err == nil && strings.HasPrefix(string(id), "CRYPT-") {
		return panes.DiskEncrypted
	}
	below, err := os.ReadDir(filepath.Join(dir, "slaves"))
	if err != nil || len(below) == 0 {
		return panes.DiskPlain
	}
	for _, d := range below {
		if s := diskState(sys, filepath.Join("class", "block", d.Name()), layers-1); s != panes.DiskEncrypted {
			return s
		}
	}
	return panes.DiskEncrypted
}
