//go:build darwin && cgo

package appkit

import (
	"github.com/progrium/darwinkit/helper/action"
	"github.com/progrium/darwinkit/macos/appkit"
	"github.com/progrium/darwinkit/objc"

	"osaurus/app/panes"
)

// Size of the settings window in points.
const (
	windowWidth  = 760
	windowHeight = 620
)

// settings is the settings window. It lives as long as the app and is shown
// and hidden.
type settings struct {
	app    *App
	window appkit.Window
	pane   panes.Pane
	open   bool
	sheet  *sheet
}

func newSettings(a *App) *settings {
	s := &settings{app: a, pane: panes.Identity}
	s.window = appkit.NewWindowWithSizeAndStyle(windowWidth, windowHeight, appkit.WindowStyleMaskTitled|appkit.WindowStyleMaskClosable|appkit.WindowStyleMaskResizable)
	objc.Retain(&s.window)
	s.window.SetReleasedWhenClosed(false)
	s.window.SetTitle("Osaurus")
	s.window.Center()
	delegate := &appkit.WindowDelegate{}
	delegate.SetWindowShouldClose(func(appkit.Window) bool {
		s.open = false
		return true
	})
	s.window.SetDelegate(delegate)
	return s
}

func (s *settings) show(p panes.Pane) {
	s.pane, s.open = p, true
	s.draw()
	s.app.app.ActivateIgnoringOtherApps(true)
	s.window.MakeKeyAndOrderFront(nil)
}

// draw draws the pane anew while the window is open.
func (s *settings) draw() {
	if !s.open {
		return
	}
	v := s.app.c.Model.View(s.pane)
	tabs := row()
	for _, t := range v.Tabs {
		b := appkit.NewButtonWithTitle(tabTitle(t))
		b.SetEnabled(t.Pane != s.pane)
		action.Set(b, func(objc.Object) { s.show(t.Pane) })
		tabs.AddArrangedSubview(b)
	}
	scroll := appkit.NewScrollView()
	scroll.SetHasVerticalScroller(true)
	scroll.SetDocumentView(s.app.view(v))
	s.window.SetContentView(column(tabs, scroll))
	s.drawSheet(v.Sheet)
}

// drawSheet opens, redraws or ends the sheet in front of the panes. A sheet
// that only changed keeps what was typed.
func (s *settings) drawSheet(now *panes.Sheet) {
	switch {
	case now == nil && s.sheet != nil:
		s.sheet.end()
		s.sheet = nil
	case now != nil && (s.sheet == nil || s.sheet.id != now.ID):
		if s.sheet != nil {
			s.sheet.end()
		}
		s.sheet = newSheet(s, *now)
	case now != nil:
		s.sheet.update(*now)
	}
}

// print prints what the sheet shows.
func (s *settings) print() {
	if s.sheet != nil {
		appkit.PrintOperation_PrintOperationWithView(s.sheet.content).RunOperation()
	}
}
