//go:build darwin && cgo

package appkit

import (
	"bytes"
	"image/png"
	"path/filepath"
	"strings"

	"github.com/progrium/darwinkit/helper/action"
	"github.com/progrium/darwinkit/macos/appkit"
	"github.com/progrium/darwinkit/macos/foundation"
	"github.com/progrium/darwinkit/objc"
	"rsc.io/qr"

	"osaurus/app/panes"
)

// sheet is one sheet of the settings window, until the model takes it away.
type sheet struct {
	settings *settings
	id       string
	window   appkit.Window
	content  appkit.StackView
	fields   map[string]field
	live     []appkit.TextField // hints of fields that are checked while they are typed
	problem  appkit.TextField
	buttons  []appkit.Button
}

// field reads and clears one control.
type field struct {
	read  func() string
	write func(string)
}

func newSheet(s *settings, now panes.Sheet) *sheet {
	w := &sheet{settings: s, id: now.ID, fields: map[string]field{}}
	w.window = appkit.NewWindowWithSizeAndStyle(windowWidth-120, windowHeight-120, appkit.WindowStyleMaskTitled)
	keep(w.window)
	w.window.SetReleasedWhenClosed(false)
	w.content = column(heading(now.Title))
	for _, t := range now.Text {
		w.content.AddArrangedSubview(label(t, now.Tone))
	}
	w.content.AddArrangedSubview(s.app.facts(now.Facts))
	w.secret(now)
	for _, f := range now.Fields {
		w.content.AddArrangedSubview(w.field(f))
	}
	w.problem = label(now.Error, panes.Danger)
	w.content.AddArrangedSubview(w.problem)
	w.content.AddArrangedSubview(w.actions(now.Actions))
	w.window.SetContentView(padded(w.content))
	w.update(now)
	s.window.BeginSheetCompletionHandler(w.window, func(appkit.ModalResponse) {})
	return w
}

// actions draws the buttons; the last one leaves, and Esc is its key. Return
// is the key of none that is dangerous (the model refuses it as well).
func (w *sheet) actions(actions []panes.Action) appkit.StackView {
	line := row()
	for i, act := range actions {
		b := appkit.NewButtonWithTitle(act.Label)
		switch {
		case i == len(actions)-1:
			b.SetKeyEquivalent("\x1b")
		case act.Primary && act.Tone != panes.Danger:
			b.SetKeyEquivalent("\r")
		}
		action.Set(b, func(objc.Object) { w.act(act) })
		w.buttons = append(w.buttons, b)
		line.AddArrangedSubview(b)
	}
	return line
}

func (w *sheet) act(act panes.Action) {
	if act.Effect == panes.Paste {
		w.fields[act.Field].write(appkit.Pasteboard_GeneralPasteboard().StringForType(appkit.PasteboardTypeString))
		w.check() // what is set by us is not told to the delegate
		return
	}
	w.settings.app.act(act, w.values())
}

// check has the model say something about what is typed.
func (w *sheet) check() {
	text := w.settings.app.c.Model.Check(w.values())
	for _, hint := range w.live {
		if text != "" {
			hint.SetStringValue(text)
		}
	}
}

func (w *sheet) values() map[string]string {
	values := map[string]string{}
	for name, f := range w.fields {
		values[name] = f.read()
	}
	return values
}

// wordsInRow makes six rows of a phrase, each no wider than textWidth.
const wordsInRow = 4

// secret shows what is shown once: words in rows, or a text with its QR code.
func (w *sheet) secret(now panes.Sheet) {
	if now.Secret == nil {
		return
	}
	if words := now.Secret.Words(); words != nil {
		for i := 0; i < len(words); i += wordsInRow {
			w.content.AddArrangedSubview(mono(numbered(words[i:min(i+wordsInRow, len(words))], i)))
		}
	} else {
		w.content.AddArrangedSubview(mono(now.Secret.Text()))
	}
	if code := now.Secret.Code.Text(); code != "" {
		w.content.AddArrangedSubview(row(label(now.Secret.Code.Label, panes.Plain), mono(code)))
	}
	if now.QR {
		if view, ok := qrCode(now.Secret.Text()); ok {
			w.content.AddArrangedSubview(view)
		}
	}
}

func numbered(words []string, from int) string {
	var b strings.Builder
	for i, word := range words {
		n := from + i + 1
		b.WriteString(string(rune('0'+n/10)) + string(rune('0'+n%10)) + " " + word + strings.Repeat(" ", max(1, 10-len(word))))
	}
	return b.String()
}

func qrCode(text string) (appkit.ImageView, bool) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return appkit.ImageView{}, false
	}
	var raw bytes.Buffer
	if png.Encode(&raw, code.Image()) != nil {
		return appkit.ImageView{}, false
	}
	view := appkit.NewImageView()
	view.SetImage(appkit.NewImageWithData(raw.Bytes()))
	return view, true
}

// field draws one control and remembers how to read it.
func (w *sheet) field(f panes.Field) appkit.StackView {
	s := column(label(f.Label, panes.Plain))
	switch f.Kind {
	case panes.Choice:
		w.choice(s, f)
	default:
		text := appkit.NewTextField()
		if f.Sensitive {
			text = appkit.NewSecureTextField().TextField
		}
		text.SetStringValue(f.Value)
		w.fields[f.Name] = field{text.StringValue, text.SetStringValue}
		if f.Live {
			delegate := &appkit.TextFieldDelegate{}
			delegate.SetControlTextDidChange(func(foundation.Notification) { w.check() })
			text.SetDelegate(delegate)
		}
		s.AddArrangedSubview(text)
		w.chooser(s, f)
	}
	hint := label(f.Hint, panes.Plain)
	s.AddArrangedSubview(hint)
	if f.Live {
		w.live = append(w.live, hint)
	}
	return s
}

func (w *sheet) choice(s appkit.StackView, f panes.Field) {
	menu := appkit.NewPopUpButton()
	for i, o := range f.Options {
		title := o.Label
		if o.Caption != "" {
			title += ": " + o.Caption
		}
		menu.AddItemWithTitle(title)
		if o.Value == f.Value {
			menu.SelectItemAtIndex(i)
		}
	}
	w.fields[f.Name] = field{func() string {
		if i := menu.IndexOfSelectedItem(); i >= 0 && i < len(f.Options) {
			return f.Options[i].Value
		}
		return ""
	}, func(string) {}}
	s.AddArrangedSubview(menu)
}

// chooser adds the system's panel for folders and new files.
func (w *sheet) chooser(s appkit.StackView, f panes.Field) {
	write := w.fields[f.Name].write
	switch f.Kind {
	case panes.Folder:
		b := appkit.NewButtonWithTitle("…")
		action.Set(b, func(objc.Object) {
			panel := appkit.OpenPanel_OpenPanel()
			panel.SetCanChooseDirectories(true)
			panel.SetCanChooseFiles(false)
			panel.BeginSheetModalForWindowCompletionHandler(w.window, func(r appkit.ModalResponse) {
				if urls := panel.URLs(); r == appkit.ModalResponseOK && len(urls) > 0 {
					write(urls[0].Path())
				}
			})
		})
		s.AddArrangedSubview(b)
	case panes.NewFile:
		b := appkit.NewButtonWithTitle("…")
		action.Set(b, func(objc.Object) {
			panel := appkit.SavePanel_SavePanel()
			if f.Value != "" {
				panel.SetNameFieldStringValue(filepath.Base(f.Value))
			}
			panel.BeginSheetModalForWindowCompletionHandler(w.window, func(r appkit.ModalResponse) {
				if r == appkit.ModalResponseOK {
					write(panel.URL().Path())
				}
			})
		})
		s.AddArrangedSubview(b)
	}
}

// update shows what changed while the sheet is open.
func (w *sheet) update(now panes.Sheet) {
	w.problem.SetStringValue(now.Error)
	for i, act := range now.Actions {
		if i < len(w.buttons) {
			w.buttons[i].SetEnabled(!act.Off && !now.Busy)
		}
	}
}

// end takes the sheet away and clears what was typed and shown.
func (w *sheet) end() {
	for _, f := range w.fields {
		f.write("")
	}
	w.window.SetContentView(column())
	w.settings.window.EndSheet(w.window)
	w.window.Release()
}
