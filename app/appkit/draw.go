//go:build darwin && cgo

package appkit

import (
	"fmt"

	"github.com/progrium/darwinkit/helper/action"
	"github.com/progrium/darwinkit/macos/appkit"
	"github.com/progrium/darwinkit/macos/foundation"
	"github.com/progrium/darwinkit/objc"

	"osaurus/app/panes"
)

// Measures in points.
const (
	spacing   = 8
	margin    = 16
	fontSize  = 13
	textWidth = 420 // where texts wrap; the narrowest window holds it
)

// column stacks views from top to bottom, at the leading edge.
func column(views ...appkit.IView) appkit.StackView {
	s := appkit.NewVerticalStackView()
	s.SetAlignment(appkit.LayoutAttributeLeading)
	s.SetSpacing(spacing)
	for _, v := range views {
		s.AddArrangedSubview(v)
	}
	return s
}

// padded keeps what fills a window off its edges.
func padded(s appkit.StackView) appkit.StackView {
	s.SetEdgeInsets(foundation.EdgeInsets{Top: margin, Left: margin, Bottom: margin, Right: margin})
	return s
}

func row(views ...appkit.IView) appkit.StackView {
	s := appkit.NewHorizontalStackView()
	s.SetSpacing(spacing)
	for _, v := range views {
		s.AddArrangedSubview(v)
	}
	return s
}

// label is a text in lines of at most textWidth.
func label(s string, t panes.Tone) appkit.TextField {
	l := appkit.TextField_WrappingLabelWithString(s)
	l.SetPreferredMaxLayoutWidth(textWidth)
	l.SetSelectable(true)
	switch t {
	case panes.Good:
		l.SetTextColor(appkit.Color_SystemGreenColor())
	case panes.Warn:
		l.SetTextColor(appkit.Color_SystemOrangeColor())
	case panes.Danger:
		l.SetTextColor(appkit.Color_SystemRedColor())
	}
	return l
}

func heading(s string) appkit.TextField {
	l := label(s, panes.Plain)
	l.SetFont(appkit.Font_BoldSystemFontOfSize(fontSize + 2))
	return l
}

func mono(s string) appkit.TextField {
	l := label(s, panes.Plain)
	l.SetFont(appkit.Font_MonospacedSystemFontOfSizeWeight(fontSize, appkit.FontWeightRegular))
	return l
}

// button is one action of a pane.
func (a *App) button(act panes.Action) appkit.Button {
	b := appkit.NewButtonWithTitle(act.Label)
	b.SetEnabled(!act.Off)
	action.Set(b, func(objc.Object) { a.act(act, nil) })
	return b
}

// act does an action of a pane, or of a sheet with its values.
func (a *App) act(act panes.Action, values map[string]string) {
	switch act.Effect {
	case panes.CopyText:
		copyText(act.Text)
	case panes.CopySecret:
		a.c.Model.CopySecret()
	case panes.Go:
		a.settings.show(panes.Pane(act.Text))
	case panes.Print:
		a.settings.print()
	default:
		a.do(panes.Input{Action: act.ID, Values: values, Via: panes.Click})
	}
}

// copier is a button that copies a text and says so until it is drawn anew.
func (a *App) copier(text string) appkit.Button {
	b := appkit.NewButtonWithTitle(a.c.Model.Text("common.copy"))
	action.Set(b, func(objc.Object) {
		copyText(text)
		b.SetTitle(a.c.Model.Text("page.copied"))
	})
	return b
}

func (a *App) buttons(actions []panes.Action) appkit.StackView {
	s := row()
	for _, act := range actions {
		s.AddArrangedSubview(a.button(act))
	}
	return s
}

func (a *App) facts(facts []panes.Fact) appkit.StackView {
	s := column()
	for _, f := range facts {
		value := label(f.Value, panes.Plain)
		if f.Mono {
			value = mono(f.Value)
		}
		line := row(label(f.Label+":", panes.Plain), value)
		if f.Copy {
			line.AddArrangedSubview(a.copier(f.Value))
		}
		s.AddArrangedSubview(line)
	}
	return s
}

func (a *App) banner(b panes.Banner) appkit.StackView {
	s := column(label(b.Title, b.Tone), label(b.Text, panes.Plain))
	for _, l := range b.Lines {
		s.AddArrangedSubview(mono(l))
	}
	s.AddArrangedSubview(a.buttons(b.Actions))
	return s
}

func (a *App) section(sec panes.Section) appkit.StackView {
	s := column(heading(sec.Title))
	if sec.Caption != "" {
		s.AddArrangedSubview(label(sec.Caption, sec.Tone))
	}
	s.AddArrangedSubview(a.facts(sec.Facts))
	for _, r := range sec.Rows {
		s.AddArrangedSubview(a.row(r))
	}
	if len(sec.Rows) == 0 && sec.Empty != "" {
		s.AddArrangedSubview(label(sec.Empty, panes.Plain))
	}
	s.AddArrangedSubview(a.buttons(sec.Actions))
	return s
}

func (a *App) row(r panes.Row) appkit.StackView {
	title := row(label(r.Title, panes.Plain))
	for _, b := range r.Badges {
		title.AddArrangedSubview(label(b.Text, b.Tone))
	}
	if r.Address != "" {
		short := mono(r.Short)
		short.SetToolTip(r.Address)
		title.AddArrangedSubview(short)
		title.AddArrangedSubview(a.copier(r.Address))
	}
	s := column(title)
	if r.Text != "" {
		s.AddArrangedSubview(label(r.Text, panes.Plain))
	}
	s.AddArrangedSubview(a.facts(r.Facts))
	s.AddArrangedSubview(a.buttons(r.Actions))
	for _, below := range r.Rows {
		s.AddArrangedSubview(a.row(below))
	}
	if len(r.Rows) == 0 && r.Empty != "" {
		s.AddArrangedSubview(label(r.Empty, panes.Plain))
	}
	return s
}

func (a *App) working(w *panes.Working) appkit.StackView {
	bar := appkit.NewProgressIndicator()
	bar.SetIndeterminate(w.Total == 0)
	if w.Total > 0 {
		bar.SetDoubleValue(100 * float64(w.Done) / float64(w.Total))
	} else {
		bar.StartAnimation(nil)
	}
	s := column(label(w.Title, panes.Plain), bar, label(w.Text, panes.Plain))
	if w.Cancel != nil {
		s.AddArrangedSubview(a.button(*w.Cancel))
	}
	return s
}

// view draws a pane from top to bottom.
func (a *App) view(v panes.View) appkit.StackView {
	s := column(heading(v.Title))
	if v.Intro != "" {
		s.AddArrangedSubview(label(v.Intro, panes.Plain))
	}
	if v.Working != nil {
		s.AddArrangedSubview(a.working(v.Working))
	}
	for _, b := range v.Banners {
		s.AddArrangedSubview(a.banner(b))
	}
	for _, sec := range v.Sections {
		s.AddArrangedSubview(a.section(sec))
	}
	return padded(s)
}

func tabTitle(t panes.Tab) string {
	if t.Count > 0 {
		return fmt.Sprintf("%s (%d)", t.Title, t.Count)
	}
	return t.Title
}
