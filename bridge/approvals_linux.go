package bridge

import (
	"context"
	"errors"

	"osaurus/bridge/desktop"
	"osaurus/engine/control"
	"osaurus/engine/pairing"
)

// Approvals shows requests to pair as notifications of the desktop, until ctx
// ends. review is called when somebody wants to look at one; it is never
// approved here. Without a desktop, or one that offers no actions, it returns
// at once.
func Approvals(ctx context.Context, host *control.Client, review func(pairing.Prompt)) error {
	n, err := desktop.Connect(ctx)
	if errors.Is(err, desktop.ErrUnavailable) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = n.Close() }() // the desktop may be gone
	if !n.Offers() {
		return nil
	}
	return n.Approvals(ctx, host, review)
}
