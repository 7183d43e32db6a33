//go:build darwin && cgo

package appkit

import (
	"reflect"
	"slices"

	"github.com/progrium/darwinkit/macos/appkit"
	"github.com/progrium/darwinkit/macos/foundation"

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
	tabs   appkit.TabViewController
	items  []appkit.TabViewItem // one for each of panes.All, in its order
	panes  []appkit.ScrollView
	drawn  []*panes.View // what they show
	open   bool
	sheet  *sheet
}

func newSettings(a *App) *settings {
	s := &settings{app: a}
	s.window = appkit.NewWindowWithSizeAndStyle(windowWidth, windowHeight, appkit.WindowStyleMaskTitled|appkit.WindowStyleMaskClosable|appkit.WindowStyleMaskResizable)
	keep(s.window)
	s.window.SetReleasedWhenClosed(false)
	s.window.SetTitle("Osaurus")
	s.startTabs()
	s.window.SetContentViewController(s.tabs)
	s.window.SetToolbarStyle(appkit.WindowToolbarStylePreference)
	s.window.SetContentSize(foundation.Size{Width: windowWidth, Height: windowHeight})
	s.window.Center()
	delegate := &appkit.WindowDelegate{}
	delegate.SetWindowShouldClose(func(appkit.Window) bool {
		s.open = false
		return true
	})
	s.window.SetDelegate(delegate)
	return s
}

// startTabs makes a tab for each pane, in the window's toolbar. The views in
// them are drawn anew; the tabs stay, so that AppKit keeps the chosen one.
func (s *settings) startTabs() {
	s.tabs = appkit.NewTabViewController()
	keep(s.tabs)
	s.tabs.SetTabStyle(appkit.TabViewControllerTabStyleToolbar)
	s.items, s.panes, s.drawn = make([]appkit.TabViewItem, len(panes.All)), make([]appkit.ScrollView, len(panes.All)), make([]*panes.View, len(panes.All))
	for i := range panes.All {
		s.panes[i] = appkit.NewScrollView()
		s.panes[i].SetHasVerticalScroller(true)
		keep(s.panes[i])
		holder := appkit.NewViewController()
		holder.SetView(s.panes[i])
		s.items[i] = appkit.NewTabViewItem()
		s.items[i].SetViewController(holder)
		keep(s.items[i])
		s.tabs.AddTabViewItem(s.items[i])
	}
}

// pane is the one whose tab is chosen.
func (s *settings) pane() panes.Pane {
	return panes.All[max(0, min(s.tabs.SelectedTabViewItemIndex(), len(panes.All)-1))]
}

func (s *settings) show(p panes.Pane) {
	s.open = true
	s.draw()
	if i := slices.Index(panes.All, p); i >= 0 {
		s.tabs.SetSelectedTabViewItemIndex(i)
	}
	s.app.app.ActivateIgnoringOtherApps(true)
	s.window.MakeKeyAndOrderFront(nil)
}

// forget has every pane drawn anew the next time.
func (s *settings) forget() { clear(s.drawn) }

// draw draws the panes that changed while the window is open. The others keep
// what is selected in them.
func (s *settings) draw() {
	if !s.open {
		return
	}
	var front *panes.Sheet
	for i, p := range panes.All {
		v := s.app.c.Model.View(p)
		front = v.Sheet
		v.Sheet, v.Approval = nil, nil // drawn in windows of their own
		if s.drawn[i] != nil && reflect.DeepEqual(*s.drawn[i], v) {
			continue
		}
		s.drawn[i] = &v
		s.items[i].SetLabel(tabTitle(v.Tabs[i]))
		put(s.panes[i], s.app.view(v))
	}
	s.drawSheet(front)
}

// put shows a view in a scroll view as far from its top as the one before was.
// AppKit counts from the bottom.
func put(in appkit.ScrollView, view appkit.StackView) {
	above, clip := 0.0, in.ContentSize()
	if old := in.DocumentView(); !old.IsNil() {
		seen := in.DocumentVisibleRect()
		above = old.Frame().Size.Height - seen.Origin.Y - seen.Size.Height
	}
	size := view.FittingSize()
	size = foundation.Size{Width: max(size.Width, clip.Width), Height: max(size.Height, clip.Height)}
	view.SetFrameSize(size)
	view.SetAutoresizingMask(appkit.ViewMinYMargin) // it stays at the top of a window that grows
	in.SetDocumentView(view)
	view.ScrollPoint(foundation.Point{Y: max(0, size.Height-clip.Height-above)})
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
