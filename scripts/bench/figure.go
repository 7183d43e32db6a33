package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// What engine/internal/benchratio reports beside a median.
const (
	medianPrefix = "median-"
	ratio        = "x"
	lowerUnit    = "q1"
	upperUnit    = "q3"
	atMostUnit   = "at-most"
	atLeastUnit  = "at-least"
)

// figure is one measured row.
type figure struct {
	Row     string  `json:"row"`
	What    string  `json:"what"`
	Unit    string  `json:"unit"` // x is a ratio
	Lower   float64 `json:"q1"`
	Median  float64 `json:"median"`
	Upper   float64 `json:"q3"`
	Goal    float64 `json:"goal"`
	AtLeast bool    `json:"at_least"` // the goal is a lower bound
	Met     bool    `json:"met"`

	// Stock is the same with the driver's own crypto in place of ours.
	Stock *float64 `json:"stock,omitzero"`

	// What a missed goal is excused with, from reasons.txt.
	Fallback *float64 `json:"fallback,omitzero"`
	Reason   string   `json:"reason,omitzero"`
}

// leaf is the last element of a benchmark's name: its row, what it measures,
// and the number of processors that go test appends.
var leaf = regexp.MustCompile(`^Benchmark.*/((?:[0-9]+[a-z]?)|(?:S[0-9]+))_([^/]+?)(?:-[0-9]+)?$`)

// parseLine reads one line of a benchmark with a goal. Other lines are false.
func parseLine(line string) (figure, bool, error) {
	f := strings.Fields(line)
	if len(f) < 4 || len(f)%2 != 0 {
		return figure{}, false, nil
	}
	name := leaf.FindStringSubmatch(f[0])
	if name == nil {
		return figure{}, false, nil
	}
	out := figure{Row: name[1], What: strings.ReplaceAll(name[2], "_", " ")}
	bounded := false
	for i := 2; i < len(f); i += 2 {
		value, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return figure{}, false, fmt.Errorf("%s: %q is no number", f[0], f[i])
		}
		switch unit := f[i+1]; {
		case unit == lowerUnit:
			out.Lower = value
		case unit == upperUnit:
			out.Upper = value
		case unit == atLeastUnit, unit == atMostUnit:
			out.Goal, out.AtLeast, bounded = value, unit == atLeastUnit, true
		case strings.HasPrefix(unit, medianPrefix):
			out.Median, out.Unit = value, strings.TrimPrefix(unit, medianPrefix)
		}
	}
	if !bounded || out.Unit == "" {
		return figure{}, false, fmt.Errorf("%s: it is named like a row and reports no goal", f[0])
	}
	out.Met = out.within(out.Goal)
	return out, true, nil
}

func (f *figure) within(bound float64) bool {
	if f.AtLeast {
		return f.Median >= bound
	}
	return f.Median <= bound
}

// sortRows puts 2a before 10 and both before S1.
func sortRows(table []figure) {
	key := func(row string) (storage bool, n int, letter string) {
		storage = strings.HasPrefix(row, "S")
		digits := strings.TrimLeft(row, "S")
		number := strings.TrimRight(digits, "abcdefghijklmnopqrstuvwxyz")
		n, _ = strconv.Atoi(number) // the expression let digits through only
		return storage, n, strings.TrimPrefix(digits, number)
	}
	slices.SortStableFunc(table, func(a, b figure) int {
		as, an, al := key(a.Row)
		bs, bn, bl := key(b.Row)
		if as != bs {
			if as {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(an, bn), cmp.Compare(al, bl))
	})
}

// reason excuses one row, down (or up) to a fallback bound.
type reason struct {
	row, what string
	fallback  float64
	text      string
}

// parseReasons reads lines of the form "row what | fallback | reason".
func parseReasons(s string) ([]reason, error) {
	var all []reason
	n := 0
	for line := range strings.Lines(s) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(line, "|", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("reasons.txt:%d: want \"row what | fallback | reason\"", n)
		}
		fallback, err := strconv.ParseFloat(strings.TrimSpace(f[1]), 64)
		if err != nil {
			return nil, fmt.Errorf("reasons.txt:%d: the fallback %q is no number", n, strings.TrimSpace(f[1]))
		}
		row, what, _ := strings.Cut(strings.TrimSpace(f[0]), " ")
		r := reason{row, what, fallback, strings.TrimSpace(f[2])}
		if r.row == "" || r.what == "" || r.text == "" {
			return nil, fmt.Errorf("reasons.txt:%d: a row, what it measures and a reason are needed", n)
		}
		all = append(all, r)
	}
	return all, nil
}

func (f *figure) explain(reasons []reason) {
	for _, r := range reasons {
		if r.row == f.Row && r.what == f.What {
			f.Fallback, f.Reason = &r.fallback, r.text
		}
	}
}

// unexplained names what -check fails for.
func unexplained(table []figure) []string {
	var bad []string
	for _, f := range table {
		switch {
		case f.Met:
		case f.Fallback == nil:
			bad = append(bad, fmt.Sprintf("row %s (%s) misses its goal: %s, goal %s", f.Row, f.What, f.figure(f.Median), f.goal(f.Goal)))
		case !f.within(*f.Fallback):
			bad = append(bad, fmt.Sprintf("row %s (%s) got worse than its reason allows: %s, was to stay %s", f.Row, f.What, f.figure(f.Median), f.goal(*f.Fallback)))
		}
	}
	return bad
}

func (f *figure) figure(v float64) string {
	if f.Unit == ratio {
		return fmt.Sprintf("%.3g ×", v)
	}
	return fmt.Sprintf("%.3g %s", v, f.Unit)
}

func (f *figure) goal(bound float64) string {
	if f.AtLeast {
		return "≥ " + f.figure(bound)
	}
	return "≤ " + f.figure(bound)
}

func render(w io.Writer, table []figure) error {
	var out bytes.Buffer
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	say := func(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) } // to memory
	stock := slices.ContainsFunc(table, func(f figure) bool { return f.Stock != nil })
	say(t, "row\twhat\tmedian\tquartiles\tgoal\t")
	if stock {
		say(t, "\tstock crypto")
	}
	say(t, "\n")
	met := 0
	for _, f := range table {
		verdict := "missed"
		if f.Met {
			verdict = "met"
			met++
		}
		say(t, "%s\t%s\t%s\t%.3g–%.3g\t%s\t%s", f.Row, f.What, f.figure(f.Median), f.Lower, f.Upper, f.goal(f.Goal), verdict)
		if f.Stock != nil {
			say(t, "\t%s", f.figure(*f.Stock))
		} else if stock {
			say(t, "\t")
		}
		say(t, "\n")
	}
	_ = t.Flush() // to memory
	for _, f := range table {
		if !f.Met && f.Reason != "" {
			say(&out, "\n%s %s: %s\n", f.Row, f.What, f.Reason)
		}
	}
	say(&out, "\n%d of %d goals met\n", met, len(table))
	_, err := out.WriteTo(w)
	return err
}
