//go:build !linux

package bridge

import (
	"context"

	"osaurus/engine/control"
	"osaurus/engine/pairing"
)

// Approvals does nothing here: on macOS the app in the menu bar asks.
func Approvals(context.Context, *control.Client, func(pairing.Prompt)) error { return nil }
