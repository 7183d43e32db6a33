//go:build darwin && cgo

package appkit

import (
	"path/filepath"

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
	a.menu = appkit.NewMenuWithTitle("Osaurus")
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

// drawStatusItem draws the icon and the menu anew.
func (a *App) drawStatusItem() {
	m := a.c.Model.Menu()
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
	line := appkit.NewMenuItemWithAction(m.Line, "", nil)
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
		sub := appkit.NewMenuWithTitle(i.Label)
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
		alert := appkit.NewAlert()
		alert.SetMessageText("Osaurus")
		alert.SetInformativeText(a.c.Version)
		alert.RunModal()
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
