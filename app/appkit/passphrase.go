//go:build darwin && cgo

package appkit

import (
	"context"

	"github.com/progrium/darwinkit/macos/appkit"
	"github.com/progrium/darwinkit/macos/foundation"

	"osaurus/engine/secret"
)

// passphraseWidth is that of the field, in points.
const passphraseWidth = 300

// AskPassphrase asks for the passphrase of a sealed keystore; again says that
// the one before did not fit. It waits for the person or the end of ctx, and
// is never called on the main thread. AppKit keeps copies of what was typed.
func (a *App) AskPassphrase(ctx context.Context, again bool) (passphrase secret.Bytes, given bool) {
	type answer struct {
		passphrase secret.Bytes
		given      bool
	}
	answered := make(chan answer, 1)
	onMain(func() {
		ask := a.c.Model.PassphraseQuestion(again)
		field := appkit.NewSecureTextField()
		field.SetFrameSize(foundation.Size{Width: passphraseWidth, Height: 2 * fontSize})
		alert := appkit.NewAlert()
		alert.SetMessageText(ask.Title)
		alert.SetInformativeText(ask.Text[0])
		alert.SetAccessoryView(field)
		for _, act := range ask.Actions {
			alert.AddButtonWithTitle(act.Label)
		}
		a.app.ActivateIgnoringOtherApps(true)
		if alert.RunModal() != appkit.AlertFirstButtonReturn {
			answered <- answer{}
			return
		}
		answered <- answer{secret.New([]byte(field.StringValue())), true}
		field.SetStringValue("")
	})
	select {
	case <-ctx.Done():
		return secret.Bytes{}, false
	case got := <-answered:
		return got.passphrase, got.given
	}
}
