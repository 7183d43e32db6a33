package cli

import (
	"os"
	"strings"

	xterm "golang.org/x/term"
	"rsc.io/qr"
)

const (
	quietZone = 4 // light modules around a code (ISO/IEC 18004)

	// black on white, whatever the terminal's own colours are
	qrColors = "\x1b[38;5;16;48;5;231m"
	qrReset  = "\x1b[0m"
)

// qrCode draws text as a QR code for a terminal, two rows of modules in each
// line. Without colour it takes the terminal to be light on dark. width is in
// columns.
func qrCode(text string, color bool) (lines []string, width int, err error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil, 0, err
	}
	width = code.Size + 2*quietZone
	for y := 0; y < width; y += 2 {
		var line strings.Builder
		for x := range width {
			top, bottom := dark(code, x, y), dark(code, x, y+1)
			if !color { // what is drawn is light then
				top, bottom = !top, !bottom && y+1 < width
			}
			line.WriteRune(half(top, bottom))
		}
		if color {
			lines = append(lines, qrColors+line.String()+qrReset)
		} else {
			lines = append(lines, line.String())
		}
	}
	return lines, width, nil
}

// dark reports a module of the code with its quiet zone; outside is light.
func dark(c *qr.Code, x, y int) bool { return c.Black(x-quietZone, y-quietZone) }

func half(top, bottom bool) rune {
	switch {
	case top && bottom:
		return '█'
	case top:
		return '▀'
	case bottom:
		return '▄'
	}
	return ' '
}

// showQR draws a link for a person at a terminal that is wide enough.
func (a *app) showQR(link string) {
	stderr, ok := a.Stderr.(*os.File)
	if !ok || !a.term.interactive || a.json || a.quiet {
		return
	}
	lines, width, err := qrCode(link, a.term.color)
	if err != nil {
		return // a link too long for a code is still a link
	}
	if columns, _, err := xterm.GetSize(int(stderr.Fd())); err != nil || columns < width {
		a.say("(In a terminal of %d columns or more a QR code stands here.)", width)
		return
	}
	a.say("%s", strings.Join(lines, "\n"))
}
