//go:build darwin && cgo

package appkit

import (
	"strings"

	"github.com/progrium/darwinkit/helper/action"
	"github.com/progrium/darwinkit/macos/appkit"
	"github.com/progrium/darwinkit/macos/foundation"
	"github.com/progrium/darwinkit/objc"

	"osaurus/app/panes"
)

// Size of the approval panel in points.
const (
	panelWidth  = 460
	panelHeight = 340
)

// approvalPanel floats above everything while a request waits (PA-1). It is
// no modal loop, so that the deadline and other answers can close it.
type approvalPanel struct {
	app    *App
	panel  appkit.Panel
	shown  bool
	drawn  string // what was drawn last, without the countdown
	left   appkit.TextField
	choice appkit.PopUpButton
	now    panes.Approval
}

func newApprovalPanel(a *App) *approvalPanel {
	p := &approvalPanel{app: a}
	rect := foundation.Rect{Size: foundation.Size{Width: panelWidth, Height: panelHeight}}
	p.panel = appkit.NewPanelWithContentRectStyleMaskBackingDefer(rect, appkit.WindowStyleMaskTitled|appkit.WindowStyleMaskClosable, appkit.BackingStoreBuffered, false)
	keep(p.panel)
	p.panel.SetReleasedWhenClosed(false)
	p.panel.SetFloatingPanel(true)
	p.panel.SetHidesOnDeactivate(false)
	p.panel.SetLevel(appkit.StatusWindowLevel)
	p.panel.SetCollectionBehavior(appkit.WindowCollectionBehaviorCanJoinAllSpaces | appkit.WindowCollectionBehaviorFullScreenAuxiliary)
	delegate := &appkit.WindowDelegate{}
	// Closing denies (PA-5).
	delegate.SetWindowShouldClose(func(appkit.Window) bool {
		p.deny()
		return false
	})
	// Keys sleep for a second from here on (PA-4).
	delegate.SetWindowDidBecomeKey(func(foundation.Notification) { a.c.Model.Activated() })
	p.panel.SetDelegate(delegate)
	return p
}

func (p *approvalPanel) deny() {
	p.app.do(panes.Input{Action: p.now.Deny.ID, Via: p.via()})
}

// via tells a key from a click: the model lets keys sleep (PA-4).
func (p *approvalPanel) via() panes.Via {
	if e := p.app.app.CurrentEvent(); !e.IsNil() && e.Type() == appkit.EventTypeKeyDown {
		return panes.Key
	}
	return panes.Click
}

// buttons draws Deny, which is the default and what Esc does, and Allow. A
// button has one key, so that of Esc is one that nobody sees.
func (p *approvalPanel) buttons() appkit.StackView {
	deny, esc := appkit.NewButtonWithTitle(p.now.Deny.Label), appkit.NewButtonWithTitle("")
	deny.SetKeyEquivalent("\r")
	esc.SetKeyEquivalent("\x1b")
	esc.SetBordered(false)
	esc.SetAlphaValue(0)
	for _, b := range []appkit.Button{deny, esc} {
		action.Set(b, func(objc.Object) { p.deny() })
	}
	allow := appkit.NewButtonWithTitle(p.now.Allow.Label)
	allow.SetKeyEquivalent(p.now.AllowKey)
	action.Set(allow, func(objc.Object) { p.allow() })
	return row(allow, deny, esc)
}

// draw shows the request that waits, or nothing.
func (p *approvalPanel) draw() {
	now := p.app.c.Model.View(panes.Requests).Approval
	if now == nil {
		if p.shown {
			p.shown, p.drawn = false, ""
			p.panel.OrderOut(nil)
		}
		return
	}
	p.now = *now
	if p.drawn != now.ID {
		p.drawn = now.ID
		p.fill()
	}
	p.left.SetStringValue(now.Countdown)
	if !p.shown {
		p.shown = true
		p.place()
		p.app.app.ActivateIgnoringOtherApps(true)
		p.panel.MakeKeyAndOrderFront(nil)
	}
}

// tick draws the countdown.
func (p *approvalPanel) tick() {
	if p.shown {
		p.draw()
	}
}

// drop lets go of the controls of the request before.
func (p *approvalPanel) drop() {
	for _, o := range []objc.IObject{p.choice, p.left} {
		if !o.IsNil() {
			o.Release()
		}
	}
}

func (p *approvalPanel) fill() {
	content := column(heading(p.now.Title))
	for _, t := range p.now.Text {
		content.AddArrangedSubview(label(t, panes.Plain))
	}
	content.AddArrangedSubview(p.app.facts(p.now.Facts))
	p.drop()
	p.choice = appkit.NewPopUpButton()
	keep(p.choice)
	for i, o := range p.now.Options {
		p.choice.AddItemWithTitle(strings.TrimSuffix(o.Label+": "+o.Caption, ": "))
		if o.Value == p.now.Value {
			p.choice.SelectItemAtIndex(i)
		}
	}
	p.left = label(p.now.Countdown, panes.Warn)
	keep(p.left)
	content.AddArrangedSubview(p.choice)
	content.AddArrangedSubview(p.left)
	content.AddArrangedSubview(p.buttons())
	p.panel.SetContentView(padded(content))
}

func (p *approvalPanel) allow() {
	value := p.now.Value
	if i := p.choice.IndexOfSelectedItem(); i >= 0 && i < len(p.now.Options) {
		value = p.now.Options[i].Value
	}
	p.app.do(panes.Input{Action: p.now.Allow.ID, Values: map[string]string{"validity": value}, Via: p.via()})
}

// place puts the panel on the screen with the pointer.
func (p *approvalPanel) place() {
	at := appkit.Event_MouseLocation()
	for _, s := range appkit.Screen_Screens() {
		f := s.VisibleFrame()
		if at.X >= f.Origin.X && at.X < f.Origin.X+f.Size.Width && at.Y >= f.Origin.Y && at.Y < f.Origin.Y+f.Size.Height {
			p.panel.SetFrameOrigin(foundation.Point{X: f.Origin.X + (f.Size.Width-panelWidth)/2, Y: f.Origin.Y + (f.Size.Height-panelHeight)*2/3})
			return
		}
	}
	p.panel.Center()
}
