package page

import (
	"errors"
	"os/exec"

	"osaurus/app/panes"
)

// DiskOf tells whether FileVault is on: fdesetup answers with its exit code.
func DiskOf(string) panes.DiskState {
	err := exec.Command("/usr/bin/fdesetup", "isactive").Run() //nolint:noctx // answers at once
	if err == nil {
		return panes.DiskEncrypted
	}
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return panes.DiskPlain
	}
	return panes.DiskUnknown
}
