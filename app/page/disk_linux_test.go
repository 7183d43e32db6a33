package page

import (
	"os"
	"path/filepath"
	"testing"

	"osaurus/app/panes"
)

// sysfs makes a tree like /sys: each device with what lies below it.
func sysfs(t *testing.T, crypt map[string]bool, slaves map[string][]string) string {
	t.Helper()
	sys := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, below := range slaves {
		dir := filepath.Join(sys, "class", "block", name)
		must(os.MkdirAll(filepath.Join(dir, "slaves"), 0o755))
		must(os.MkdirAll(filepath.Join(dir, "dm"), 0o755))
		uuid := "LVM-x"
		if crypt[name] {
			uuid = "CRYPT-LUKS2-x"
		}
		must(os.WriteFile(filepath.Join(dir, "dm", "uuid"), []byte(uuid), 0o644))
		for _, b := range below {
			must(os.Mkdir(filepath.Join(dir, "slaves", b), 0o755))
		}
	}
	return sys
}

func TestDiskState(t *testing.T) {
	t.Parallel()
	sys := sysfs(t, map[string]bool{"luks": true}, map[string][]string{"sda": nil, "luks": {"sda"}, "lv": {"luks"}, "half": {"luks", "sda"}, "loop": {"loop"}})
	for name, want := range map[string]panes.DiskState{"sda": panes.DiskPlain, "luks": panes.DiskEncrypted, "lv": panes.DiskEncrypted, "half": panes.DiskPlain, "loop": panes.DiskUnknown, "gone": panes.DiskUnknown} {
		if got := diskState(sys, filepath.Join("class", "block", name), maxLayers); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if DiskOf(filepath.Join(sys, "nothing")) != panes.DiskUnknown {
		t.Error("a path that is not there has a disk")
	}
}
