package cli

import (
	"context"
	"os/exec"
)

// opener is how a Linux desktop opens a file; nil where there is none.
func opener(ctx context.Context, getenv func(string) string, path string) *exec.Cmd {
	if getenv("DISPLAY") == "" && getenv("WAYLAND_DISPLAY") == "" {
		return nil
	}
	program, err := exec.LookPath("xdg-open")
	if err != nil {
		return nil
	}
	return exec.CommandContext(ctx, program, path)
}
