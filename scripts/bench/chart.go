package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// The chart's measures, in pixels.
const (
	chartWidth = 900
	barsFrom   = 330
	barsTo     = 800
	rowHeight  = 20
	chartTop   = 96
	chartFoot  = 40
)

// The scale is logarithmic. What lies beyond an end is drawn to it; the figure
// beside the bar is exact.
const (
	slowest = 0.1
	fastest = 10.0
)

// speed is how fast the subject was, in units of what it was compared with: a
// cost is turned over.
func (f *figure) speed(ratio float64) float64 {
	if f.AtLeast {
		return ratio
	}
	return 1 / ratio
}

func across(speed float64) float64 {
	at := (math.Log(min(max(speed, slowest), fastest)) - math.Log(slowest)) / (math.Log(fastest) - math.Log(slowest))
	return barsFrom + at*(barsTo-barsFrom)
}

// style is for light and for dark pages. Colours differ in lightness too, so
// that they can be told apart without seeing them.
const style = `
.page { fill: #ffffff } .text { fill: #1f2328 } .quiet { fill: #59636e } .line { stroke: #d1d9e0 } .one { stroke: #59636e }
.met { fill: #1a7f64 } .missed { fill: #d18616 } .goal { stroke: #1f2328 } .spread { stroke: #1f2328; stroke-opacity: 0.45 }
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif } .title { font-size: 17px; font-weight: 600 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .text { fill: #e6edf3 } .quiet { fill: #9198a1 } .line { stroke: #30363d } .one { stroke: #9198a1 }
.met { fill: #3fb896 } .missed { fill: #e3a23c } .goal { stroke: #e6edf3 } .spread { stroke: #e6edf3; stroke-opacity: 0.45 }
}
`

// chart draws the ratios of a table as one SVG image.
func chart(table []figure) []byte {
	var rows []figure
	for _, f := range table {
		if f.Unit == ratio && f.Median > 0 && f.Lower > 0 && f.Upper > 0 {
			rows = append(rows, f)
		}
	}
	bottom := chartTop + rowHeight*len(rows)
	var out bytes.Buffer
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(&out, format+"\n", args...) } // to memory
	say(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="Speed of each part against its reference">`, chartWidth, bottom+chartFoot, chartWidth, bottom+chartFoot)
	say("<style>%s</style>", style)
	say(`<rect class="page" width="%d" height="%d" rx="6"/>`, chartWidth, bottom+chartFoot)
	say(`<text class="text title" x="20" y="32">Speed against the reference of each row</text>`)
	say(`<text class="quiet" x="20" y="52">CPU time, both in one process and in turn; 1 is as fast as the reference. Median, quartiles (thin line) and goal (upright mark).</text>`)
	say(`<rect class="met" x="20" y="63" width="10" height="10"/><text class="quiet" x="35" y="72">goal met</text>`)
	say(`<rect class="missed" x="105" y="63" width="10" height="10"/><text class="quiet" x="120" y="72">missed, within what scripts/bench/reasons.txt gives a reason for</text>`)
	for _, at := range []float64{0.1, 0.2, 0.5, 1, 2, 5, 10} {
		class := "line"
		if at == 1 {
			class = "one"
		}
		say(`<line class="%s" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, class, across(at), across(at), chartTop-8, bottom)
		say(`<text class="quiet" x="%.1f" y="%d" text-anchor="middle">%g ×</text>`, across(at), bottom+18, at)
	}
	for i := range rows {
		rows[i].draw(say, chartTop+rowHeight*i)
	}
	say("</svg>")
	return out.Bytes()
}

func (f *figure) draw(say func(format string, args ...any), top int) {
	class := "missed"
	if f.Met {
		class = "met"
	}
	one, end, middle := across(1), across(f.speed(f.Median)), top+rowHeight/2
	say(`<text class="text" x="20" y="%d">%s</text><text class="text" x="52" y="%d">%s</text>`, middle+4, f.Row, middle+4, escaped(f.What))
	say(`<rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d" rx="1"/>`, class, min(one, end), top+4, max(math.Abs(end-one), 1.5), rowHeight-8)
	say(`<line class="spread" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, across(f.speed(f.Lower)), across(f.speed(f.Upper)), middle, middle)
	say(`<line class="goal" x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke-width="2"/>`, across(f.speed(f.Goal)), across(f.speed(f.Goal)), top+2, top+rowHeight-2)
	say(`<text class="text" x="%d" y="%d">%.3g ×</text>`, barsTo+16, middle+4, f.speed(f.Median))
}

func escaped(s string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(s)) // to memory
	return out.String()
}
