package bridge

import (
	"os"
	"path/filepath"

	"osaurus/bridge/vz"
	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
	"osaurus/engine/sandbox/image"
)

func systemDriver(name string, store *artifact.Store, state string) sandbox.Driver {
	if name != "" && name != "vz" {
		return nil
	}
	return vz.New(vz.Options{Artifacts: store, Platform: GuestPlatform, State: state, Programs: func() ([]image.Entry, error) {
		guest, err := os.ReadFile(filepath.Join(store.Libexec, "osaurus-guest"))
		if err != nil {
			return nil, err
		}
		host, err := os.ReadFile(filepath.Join(store.Libexec, "osaurus-host"))
		return image.Programs(guest, host), err
	}})
}
