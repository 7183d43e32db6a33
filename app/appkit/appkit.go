//go:build darwin && cgo

// Package appkit draws the models of app/panes with AppKit: the status item
// and its menu, the settings window, the approval panel, save and print
// panels. It decides nothing. Everything here runs on the main thread; other
// goroutines come in through onMain. Objects that outlive a callback go through
// keep.
package appkit

import (
	"context"
	"sync"

	"github.com/progrium/darwinkit/dispatch"
	"github.com/progrium/darwinkit/macos/appkit"
	"github.com/progrium/darwinkit/macos/foundation"
	"github.com/progrium/darwinkit/objc"

	"osaurus/app/panes"
)

// Config is what App needs.
type Config struct {
	Model *panes.Model
	// Images is the directory of the menu bar's template images.
	Images string
}

// App is the running renderer.
type App struct {
	c   Config
	app appkit.Application

	item     appkit.StatusItem
	menu     appkit.Menu
	drawn    *panes.Menu // what the menu shows
	images   map[string]appkit.Image
	settings *settings
	panel    *approvalPanel
	timer    foundation.Timer
}

// keep retains an object for as long as the app lives, or until Release. It is
// not objc.Retain, which releases with the Go variable it is given: that must
// be one of its own, which a field is not, and a copy of it keeps nothing.
func keep(o objc.IObject) { o.Retain() }

// onMain runs f on the main thread, later. It never waits: a wait from the
// main thread itself would never end.
func onMain(f func()) { dispatch.MainQueue().DispatchAsync(f) }

// Start draws the app for the first time and keeps it up to date until ctx
// ends. It is called on the main thread, once.
func Start(ctx context.Context, app appkit.Application, c Config) *App {
	a := &App{c: c, app: app, images: map[string]appkit.Image{}}
	app.SetActivationPolicy(appkit.ApplicationActivationPolicyAccessory)
	a.startMainMenu()
	a.startStatusItem()
	a.settings = newSettings(a)
	a.panel = newApprovalPanel(a)
	a.draw()
	// The countdown of a request, and nothing else, changes by itself.
	a.timer = foundation.Timer_ScheduledTimerWithTimeIntervalRepeatsBlock(1, true, func(foundation.Timer) { a.panel.tick() })
	keep(a.timer)
	// While a menu is open, only what is in the common modes goes on.
	foundation.RunLoop_MainRunLoop().AddTimerForMode(a.timer, foundation.RunLoopCommonModes)
	go a.follow(ctx)
	return a
}

// follow draws again whenever the model changed. Changes that come faster than
// they are drawn are drawn once.
func (a *App) follow(ctx context.Context) {
	var once sync.Mutex
	pending := false
	for {
		_, next := a.c.Model.Changed()
		once.Lock()
		if !pending {
			pending = true
			onMain(func() {
				once.Lock()
				pending = false
				once.Unlock()
				a.draw()
			})
		}
		once.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

func (a *App) draw() {
	a.drawStatusItem()
	a.settings.draw()
	a.panel.draw()
}

// do gives an action to the model. An action that is not offered any more was
// drawn too long ago, so it is drawn anew; later, because that takes away the
// button that is being pressed.
func (a *App) do(in panes.Input) {
	if err := a.c.Model.Do(in); err != nil {
		onMain(func() {
			a.settings.forget()
			a.draw()
		})
	}
}

// Leave lets the app end that was told to wait (NSTerminateLater).
func (a *App) Leave() { onMain(func() { a.app.ReplyToApplicationShouldTerminate(true) }) }

// ShowPane opens the settings window at a pane, for notices and links.
func (a *App) ShowPane(p panes.Pane) { onMain(func() { a.settings.show(p) }) }

// OpenLink shows the sheet of an osaurus:// link.
func (a *App) OpenLink(link string) {
	onMain(func() {
		a.c.Model.OpenLink(link)
		a.settings.show(panes.Peers)
	})
}

// copyText puts a text on the pasteboard.
func copyText(s string) {
	board := appkit.Pasteboard_GeneralPasteboard()
	board.ClearContents()
	board.SetStringForType(s, appkit.PasteboardTypeString)
}

// Pasteboard is the pasteboard for the model, which clears secrets from it.
type Pasteboard struct{}

// Read implements panes.Clipboard. It is called off the main thread.
func (Pasteboard) Read() string {
	out := make(chan string, 1)
	onMain(func() { out <- appkit.Pasteboard_GeneralPasteboard().StringForType(appkit.PasteboardTypeString) })
	return <-out
}

// Write implements panes.Clipboard.
func (Pasteboard) Write(s string) { onMain(func() { copyText(s) }) }
