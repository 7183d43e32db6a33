package page

import (
	"bytes"
	"fmt"
	"html/template"
	"strings"

	"rsc.io/qr"

	"osaurus/app/panes"
	"osaurus/resources"
)

// drawn is a view as HTML, a region at a time, so that the script replaces
// only what has changed.
type drawn struct {
	Pane     panes.Pane `json:"pane"`
	Version  uint64     `json:"version"`
	Nav      string     `json:"nav"`
	Working  string     `json:"working"`
	Main     string     `json:"main"`
	Sheet    string     `json:"sheet"`
	Approval string     `json:"approval"`
}

// templates reads those of resources, with the texts of a model.
func templates(text func(key string, pairs ...string) string) (*template.Template, error) {
	return template.New("page").Funcs(template.FuncMap{"t": text, "qr": drawCode}).ParseFS(resources.Page, "page/*.html")
}

func draw(t *template.Template, m *panes.Model, p panes.Pane) (drawn, error) {
	version, _ := m.Changed() // before the view: a change in between is drawn twice, never missed
	v := m.View(p)
	out := drawn{Pane: p, Version: version}
	for name, to := range map[string]*string{"nav": &out.Nav, "working": &out.Working, "main": &out.Main, "sheet": &out.Sheet, "approval": &out.Approval} {
		var b bytes.Buffer
		if err := t.ExecuteTemplate(&b, name, v); err != nil {
			return drawn{}, fmt.Errorf("drawing %s: %w", name, err)
		}
		*to = b.String()
	}
	return out, nil
}

// quiet is the blank border that readers of QR codes need, in modules.
const quiet = 4

// drawCode draws a QR code as an SVG: black on white whatever the theme, since
// not every reader knows the inverse. The path holds nothing but digits.
func drawCode(text string) (template.HTML, error) {
	if text == "" {
		return "", nil
	}
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return "", err
	}
	var path strings.Builder
	for y := range code.Size {
		for x := range code.Size {
			if code.Black(x, y) {
				fmt.Fprintf(&path, "M%d %dh1v1h-1z", x+quiet, y+quiet)
			}
		}
	}
	side := code.Size + 2*quiet
	return template.HTML(fmt.Sprintf(`<svg class="qr" role="img" aria-label="QR" viewBox="0 0 %d %d" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h%dv%dH0z"/><path fill="#000" d="%s"/></svg>`, side, side, side, side, path.String())), nil //nolint:gosec // numbers only
}
