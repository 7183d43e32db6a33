// Command icons draws resources/icons/*.svg: the app's icon as an icns file
// and the menu bar's template images as PNG at both scales.
//
// Usage:
//
//	icons -from resources/icons -to DIR
package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"

	"github.com/srwiley/oksvg"
	"github.com/srwiley/rasterx"
)

func main() {
	from := flag.String("from", "resources/icons", "directory of the SVG files")
	to := flag.String("to", "build/icons", "where the images go")
	flag.Parse()
	if err := draw(*from, *to); err != nil {
		fmt.Fprintln(os.Stderr, "icons:", err)
		os.Exit(1)
	}
}

// sizes are the images of an icns file: its type and its side in pixels.
var sizes = []struct {
	kind string
	side int
}{{"icp4", 16}, {"icp5", 32}, {"ic11", 32}, {"ic12", 64}, {"ic07", 128}, {"ic13", 256}, {"ic08", 256}, {"ic14", 512}, {"ic09", 512}, {"ic10", 1024}}

// menuSide is the side of a menu-bar image in points (panes.md, MB-1).
const menuSide = 18

func draw(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	app, err := os.ReadFile(filepath.Join(from, "app.svg"))
	if err != nil {
		return err
	}
	icon, err := icns(app)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(to, "Osaurus.icns"), icon, 0o644); err != nil {
		return err
	}
	templates, err := filepath.Glob(filepath.Join(from, "menubar-*.svg"))
	if err != nil || len(templates) == 0 {
		return fmt.Errorf("no menubar-*.svg in %s", from)
	}
	for _, name := range templates {
		svg, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		base := strings.TrimSuffix(filepath.Base(name), ".svg")
		for scale, suffix := range map[int]string{1: "Template.png", 2: "Template@2x.png"} {
			raw, err := raster(svg, menuSide*scale)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if err := os.WriteFile(filepath.Join(to, base+suffix), raw, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// raster draws an SVG as a square PNG.
func raster(svg []byte, side int) ([]byte, error) {
	icon, err := oksvg.ReadIconStream(bytes.NewReader(svg), oksvg.StrictErrorMode)
	if err != nil {
		return nil, err
	}
	icon.SetTarget(0, 0, float64(side), float64(side))
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	icon.Draw(rasterx.NewDasher(side, side, rasterx.NewScannerGV(side, side, img, img.Bounds())), 1)
	var out bytes.Buffer
	err = png.Encode(&out, img)
	return out.Bytes(), err
}

// icns writes the container: "icns", the whole length, and for each image its
// type, its length with these eight bytes, and the PNG. Numbers are big endian.
func icns(svg []byte) ([]byte, error) {
	body := []byte{}
	for _, s := range sizes {
		img, err := raster(svg, s.side)
		if err != nil {
			return nil, err
		}
		body = append(binary.BigEndian.AppendUint32(append(body, s.kind...), uint32(len(img)+8)), img...)
	}
	return append(binary.BigEndian.AppendUint32([]byte("icns"), uint32(len(body)+8)), body...), nil
}
