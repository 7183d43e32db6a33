package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Sizes in pixels.
const (
	boxWidth  = 108
	boxHeight = 30
	gapX      = 14
	gapY      = 34
	margin    = 20
)

// levels puts everything above what it imports.
func (g graph) levels() (map[string]int, error) {
	const visiting = -1
	at := map[string]int{}
	var visit func(string) error
	visit = func(name string) error {
		switch level, known := at[name]; {
		case level == visiting:
			return errors.New("the boxes import each other in a circle; " + name + " is part of it")
		case known:
			return nil
		}
		at[name] = visiting
		level := 0
		for to := range g[name] {
			if err := visit(to); err != nil {
				return err
			}
			level = max(level, at[to]+1)
		}
		at[name] = level
		return nil
	}
	for name := range g {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return at, nil
}

// direct are the imports of a box that no other import of it leads to.
func (g graph) direct(name string) []string {
	var list []string
	for to := range g[name] {
		implied := false
		for other := range g[name] {
			implied = implied || other != to && g.reaches(other, to, map[string]bool{})
		}
		if !implied && to != "foundation" { // everybody imports that
			list = append(list, to)
		}
	}
	slices.Sort(list)
	return list
}

func (g graph) reaches(from, to string, seen map[string]bool) bool {
	if seen[from] {
		return false
	}
	seen[from] = true
	for next := range g[from] {
		if next == to || g.reaches(next, to, seen) {
			return true
		}
	}
	return false
}

type place struct{ x, y int }

// draw writes the picture; the same imports give the same bytes.
func (g graph) draw() ([]byte, error) {
	at, err := g.levels()
	if err != nil {
		return nil, err
	}
	rows := map[int][]string{}
	for _, name := range slices.Sorted(maps.Keys(at)) {
		rows[at[name]] = append(rows[at[name]], name)
	}
	top, widest := len(rows)-1, 0
	for _, row := range rows {
		widest = max(widest, len(row))
	}
	width := 2*margin + widest*(boxWidth+gapX) - gapX
	height := 2*margin + len(rows)*(boxHeight+gapY) - gapY
	where := map[string]place{}
	for level, row := range rows {
		left := (width - len(row)*(boxWidth+gapX) + gapX) / 2
		for i, name := range row {
			where[name] = place{left + i*(boxWidth+gapX), margin + (top-level)*(boxHeight+gapY)}
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"Layers of Osaurus\">\n", width, height, width, height)
	b.WriteString("<!-- written by scripts/layers -->\n<style>text{font:12px sans-serif;text-anchor:middle;fill:#111}path{stroke:#999;fill:none}rect{stroke:#555;rx:5px}.page{fill:#fff;stroke:none}.app{fill:#d9e8ff}.bridge{fill:#ffe5c7}.engine{fill:#dff2d8}.foundation{fill:#eee}</style>\n")
	fmt.Fprintf(&b, "<rect class=\"page\" width=\"%d\" height=\"%d\"/>\n", width, height)
	names := slices.Sorted(maps.Keys(where))
	for _, name := range names {
		p := where[name]
		for _, to := range g.direct(name) {
			q := where[to]
			x1, y1, x2, y2 := p.x+boxWidth/2, p.y+boxHeight, q.x+boxWidth/2, q.y
			fmt.Fprintf(&b, "<path d=\"M%d %dC%d %d %d %d %d %d\"><title>%s imports %s</title></path>\n", x1, y1, x1, y1+gapY/2, x2, y2-gapY/2, x2, y2, name, to)
		}
	}
	for _, name := range names {
		p := where[name]
		kind, label, _ := strings.Cut(name, "/")
		if label == "" || kind == "app" {
			label = name
		}
		if name == "foundation" {
			label = "used by all"
		}
		fmt.Fprintf(&b, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/><text x=\"%d\" y=\"%d\">%s</text>\n", kind, p.x, p.y, boxWidth, boxHeight, p.x+boxWidth/2, p.y+boxHeight/2+4, label)
	}
	b.WriteString("</svg>\n")
	return b.Bytes(), nil
}
