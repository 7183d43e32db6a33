//go:build darwin && cgo

package appkit

import (
	"context"

	"github.com/progrium/darwinkit/helper/action"
	"github.com/progrium/darwinkit/macos/appkit"
	"github.com/progrium/darwinkit/macos/foundation"
	"github.com/progrium/darwinkit/objc"

	"osaurus/app/panes"
	"osaurus/engine/secret"
)

// Size of the passphrase panel, in points.
const (
	passphraseWidth  = 360
	passphraseHeight = 150
)

// passphrase is an answer to the question, given or not.
type passphrase struct {
	value secret.Bytes
	given bool
}

// passphrasePanel asks for the passphrase of a sealed keystore. Like the
// approval panel it is no modal loop: such a loop, begun from the main queue,
// holds up everything else that is drawn, and nothing could end it.
type passphrasePanel struct {
	panel    appkit.Panel
	field    appkit.SecureTextField
	answered chan passphrase // of one; the first answer counts
}

// AskPassphrase asks for the passphrase of a sealed keystore; again says that
// the one before did not fit. It waits for the person or the end of ctx, and
// is never called on the main thread. AppKit keeps copies of what was typed.
func (a *App) AskPassphrase(ctx context.Context, again bool) (value secret.Bytes, given bool) {
	p := &passphrasePanel{answered: make(chan passphrase, 1)}
	onMain(func() { p.show(a, a.c.Model.PassphraseQuestion(again)) })
	defer onMain(p.end) // after show, whatever happened: the queue keeps its order
	select {
	case <-ctx.Done():
		return secret.Bytes{}, false
	case got := <-p.answered:
		return got.value, got.given
	}
}

func (p *passphrasePanel) show(a *App, ask panes.Sheet) {
	rect := foundation.Rect{Size: foundation.Size{Width: passphraseWidth, Height: passphraseHeight}}
	p.panel = appkit.NewPanelWithContentRectStyleMaskBackingDefer(rect, appkit.WindowStyleMaskTitled|appkit.WindowStyleMaskClosable, appkit.BackingStoreBuffered, false)
	keep(p.panel)
	p.panel.SetReleasedWhenClosed(false)
	p.panel.SetHidesOnDeactivate(false)
	delegate := &appkit.WindowDelegate{}
	delegate.SetWindowShouldClose(func(appkit.Window) bool {
		p.answer(false)
		return false
	})
	p.panel.SetDelegate(delegate)
	p.field = appkit.NewSecureTextField()
	keep(p.field)
	content := column(heading(ask.Title))
	for _, t := range ask.Text {
		content.AddArrangedSubview(label(t, ask.Tone))
	}
	content.AddArrangedSubview(p.field)
	content.AddArrangedSubview(p.actions(ask.Actions))
	p.panel.SetContentView(padded(content))
	p.panel.SetInitialFirstResponder(p.field)
	p.panel.Center()
	a.app.ActivateIgnoringOtherApps(true)
	p.panel.MakeKeyAndOrderFront(nil)
}

// actions draws the buttons; the first one gives what was typed, and Esc
// leaves.
func (p *passphrasePanel) actions(actions []panes.Action) appkit.StackView {
	line := row()
	for i, act := range actions {
		b := appkit.NewButtonWithTitle(act.Label)
		b.SetKeyEquivalent(map[bool]string{true: "\r", false: "\x1b"}[i == 0])
		action.Set(b, func(objc.Object) { p.answer(i == 0) })
		line.AddArrangedSubview(b)
	}
	return line
}

func (p *passphrasePanel) answer(given bool) {
	got := passphrase{given: given}
	if given {
		got.value = secret.New([]byte(p.field.StringValue()))
	}
	select {
	case p.answered <- got:
	default:
		got.value.Destroy()
	}
}

// end takes the panel away, and what nobody waits for any more.
func (p *passphrasePanel) end() {
	p.field.SetStringValue("")
	p.panel.OrderOut(nil)
	p.panel.SetContentView(column())
	p.field.Release()
	p.panel.Release()
	select {
	case got := <-p.answered:
		got.value.Destroy()
	default:
	}
}
