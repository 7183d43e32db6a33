//go:build darwin && cgo

package appkit

import (
	"path/filepath"
	"reflect"

	"github.com/progrium/darwinkit/macos/appkit"
	"github.com/progrium/darwinkit/macos/foundation"
	"github.com/progrium/darwinkit/objc"

	"osaurus/app/panes"
)

// iconSide is the side of the status item's image in points (MB-1).
const iconSide = 18

func (a *App) startStatusItem() {
	a.item = appkit.StatusBar_SystemStatusBar().StatusItemWithLength(appkit.VariableStatusItemLength)
	keep(a.item)
	a.menu = newMenu("Osaurus")
	keep(a.menu)
	a.item.SetMenu(a.menu)
	for _, name := range []string{"plain", "running", "waiting"} {
		image := appkit.NewImageWithContentsOfFile(filepath.Join(a.c.Images, "menubar-"+name+"Template.png"))
		image.SetTemplate(true)
		image.SetSize(foundation.Size{Width: iconSide, Height: iconSide})
		keep(image)
		a.images[name] = image
	}
}

// newMenu returns a menu whose items are on as they are drawn: left to itself
// AppKit turns on every item that has an action.
func newMenu(title string) appkit.Menu {
	m := appkit.NewMenuWithTitle(title)
	m.SetAutoenablesItems(false)
	return m
}

// startMainMenu gives the app the menu that it never shows, but which the keys
// of its windows go through: without it nothing can be pasted with ⌘V.
func (a *App) startMainMenu() {
	text := a.c.Model.Text
	app, edit := appkit.NewMenuWithTitle("Osaurus"), appkit.NewMenuWithTitle(text("menu.edit"))
	for _, i := range a.c.Model.Menu().Items {
		if i.Shortcut != "" {
			app.AddItem(a.menuItem(i))
		}
	}
	app.AddItem(appkit.NewMenuItemWithSelector(text("menu.close"), "w", objc.Sel("performClose:")))
	for _, i := range []struct{ label, key, selector string }{{text("menu.cut"), "x", "cut:"}, {text("common.copy"), "c", "copy:"}, {text("common.paste"), "v", "paste:"}, {text("menu.all"), "a", "selectAll:"}} {
		edit.AddItem(appkit.NewMenuItemWithSelector(i.label, i.key, objc.Sel(i.selector)))
	}
	all := appkit.NewMenuWithTitle("")
	for _, m := range []appkit.Menu{app, edit} {
		item := appkit.NewMenuItemWithSelector("", "", objc.Selector{})
		item.SetSubmenu(m)
		all.AddItem(item)
	}
	a.app.SetMainMenu(all) // which retains it
}

// drawStatusItem draws the icon and the menu, where they changed: it may be
// open.
func (a *App) drawStatusItem() {
	m := a.c.Model.Menu()
	if a.drawn != nil && reflect.DeepEqual(*a.drawn, m) {
		return
	}
	a.drawn = &m
	image := "plain"
	switch {
	case m.Waiting:
		image = "waiting"
	case m.Running:
		image = "running"
	}
	a.item.Button().SetImage(a.images[image])
	a.item.Button().SetToolTip(m.Line)
	a.menu.RemoveAllItems()
	line := appkit.NewMenuItemWithSelector(m.Line, "", objc.Selector{})
	line.SetEnabled(false)
	a.menu.AddItem(line)
	if m.URL != "" {
		a.menu.AddItem(appkit.NewMenuItemWithAction(m.URL, "", func(objc.Object) { copyText(m.URL) }))
	}
	a.menu.AddItem(appkit.MenuItem_SeparatorItem())
	for _, i := range m.Items {
		a.menu.AddItem(a.menuItem(i))
	}
}

func (a *App) menuItem(i panes.Item) appkit.MenuItem {
	label := i.Label
	if i.Detail != "" {
		label += "  " + i.Detail
	}
	item := appkit.NewMenuItemWithAction(label, i.Shortcut, func(objc.Object) { a.choose(i) })
	item.SetEnabled(!i.Off)
	if i.Checked {
		item.SetState(appkit.ControlStateValueOn)
	}
	if len(i.Items) > 0 {
		sub := newMenu(i.Label)
		for _, below := range i.Items {
			sub.AddItem(a.menuItem(below))
		}
		item.SetSubmenu(sub)
	}
	return item
}

// choose does what only a renderer can, and gives the rest to the model.
func (a *App) choose(i panes.Item) {
	switch {
	case i.ID == "quit":
		a.app.Terminate(nil)
	case i.ID == "about":
		a.app.ActivateIgnoringOtherApps(true)
		a.app.OrderFrontStandardAboutPanel(nil) // it reads the bundle
	case i.Effect == panes.Go:
		a.settings.show(panes.Pane(i.Text))
	default:
		a.do(panes.Input{Action: i.ID, Via: panes.Click})
		// What it asks shows in the settings window.
		if p := a.settings.pane(); a.c.Model.View(p).Sheet != nil {
			a.settings.show(p)
		}
	}
}
