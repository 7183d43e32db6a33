package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestChart(t *testing.T) {
	all := append(table(t, ""), figure{Row: "1b", What: `cached <hit> & "more"`, Unit: ratio, Lower: 500, Median: 544, Upper: 600, Goal: 300, AtLeast: true, Met: true})
	out := chart(all)
	dec := xml.NewDecoder(bytes.NewReader(out))
	bars := map[string]int{}
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars[e.Attr[0].Value]++
		}
	}
	// One of each in the legend; 5g is no ratio.
	if bars["met"] != 3 || bars["missed"] != 2 || bars["page"] != 1 {
		t.Errorf("bars %v", bars)
	}
	for _, want := range []string{"prefers-color-scheme: dark", "0.54 ×", "0.476 ×", "544 ×", "&lt;hit&gt; &amp;"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in the chart", want)
		}
	}
	if strings.Contains(string(out), "lookup") {
		t.Error("a figure that is no ratio is drawn")
	}
}

func TestAcross(t *testing.T) {
	for speed, want := range map[float64]float64{0.1: barsFrom, 10: barsTo, 1: (barsFrom + barsTo) / 2, 0.001: barsFrom, 544: barsTo} {
		if got := across(speed); got < want-0.01 || got > want+0.01 {
			t.Errorf("%g is at %g, want %g", speed, got, want)
		}
	}
	if cost := (&figure{}).speed(2); cost != 0.5 {
		t.Errorf("a cost of 2 is a speed of %g", cost)
	}
}
