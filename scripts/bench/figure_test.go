package main

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const output = `goos: linux
goarch: amd64
pkg: osaurus/engine/channel
BenchmarkCall/5a_4_KiB-2         	       1	         0 ns/op	         0.750 at-least	         0.540 median-x	         0.520 q1	         0.560 q3
BenchmarkStorage/S9_open-2       	       1	         0 ns/op	         2.600 at-most	         2.100 median-x	         2 q1	         2.2 q3
BenchmarkLookup/5g_lookup-2      	       1	         0 ns/op	       120 at-most	       125 median-ns	       120 q1	       130 q3
BenchmarkOther-2                 	    1000	       100 ns/op
PASS
ok  	osaurus/engine/channel	3.1s
`

func table(t *testing.T, reasons string) []figure {
	t.Helper()
	all, err := read(strings.NewReader(output), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parseReasons(reasons)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		all[i].explain(parsed)
	}
	return all
}

func TestRead(t *testing.T) {
	want := []figure{
		{Row: "5a", What: "4 KiB", Unit: "x", Lower: 0.52, Median: 0.54, Upper: 0.56, Goal: 0.75, AtLeast: true},
		{Row: "5g", What: "lookup", Unit: "ns", Lower: 120, Median: 125, Upper: 130, Goal: 120},
		{Row: "S9", What: "open", Unit: "x", Lower: 2, Median: 2.1, Upper: 2.2, Goal: 2.6, Met: true},
	}
	if got := table(t, ""); !reflect.DeepEqual(got, want) {
		t.Errorf("\n%+v, want\n%+v", got, want)
	}
}

func TestRowWithoutGoal(t *testing.T) {
	for _, line := range []string{
		"BenchmarkCall/5a_x-2 1 0 ns/op",
		"BenchmarkCall/5a_x-2 1 0 ns/op 3 median-x",
		"BenchmarkCall/5a_x-2 1 0 ns/op three median-x",
	} {
		if _, _, err := parseLine(line); err == nil {
			t.Errorf("%q is taken", line)
		}
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		reasons string
		want    []string
	}{
		"no reason": {"", []string{
			"row 5a (4 KiB) misses its goal: 0.54 ×, goal ≥ 0.75 ×",
			"row 5g (lookup) misses its goal: 125 ns, goal ≤ 120 ns",
		}},
		"explained":       {"5a 4 KiB | 0.5 | twice base64\n5g lookup | 140 | noise\n", nil},
		"below its floor": {"5a 4 KiB | 0.6 | twice base64\n5g lookup | 140 | noise\n", []string{"row 5a (4 KiB) got worse than its reason allows: 0.54 ×, was to stay ≥ 0.6 ×"}},
	} {
		if got := unexplained(table(t, c.reasons)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestReasons(t *testing.T) {
	for _, bad := range []string{"5a", "5a 4 KiB | x | why", "5a | 1 | why", "5a 4 KiB | 1 | "} {
		if _, err := parseReasons("# comment\n" + bad); err == nil || !strings.Contains(err.Error(), "reasons.txt:2:") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := parseReasons(reasonsFile); err != nil {
		t.Error(err)
	}
}

func TestRender(t *testing.T) {
	var out bytes.Buffer
	if err := render(&out, table(t, "5a 4 KiB | 0.5 | the body is base64 twice")); err != nil {
		t.Fatal(err)
	}
	const want = `row  what    median  quartiles  goal      
5a   4 KiB   0.54 ×  0.52–0.56  ≥ 0.75 ×  missed
5g   lookup  125 ns  120–130    ≤ 120 ns  missed
S9   open    2.1 ×   2–2.2      ≤ 2.6 ×   met

5a 4 KiB: the body is base64 twice

1 of 3 goals met
`
	if out.String() != want {
		t.Errorf("\n%s\nwant\n%s", &out, want)
	}
}

// TestRealBenchmarks: the names that go test prints are read.
func TestRealBenchmarks(t *testing.T) {
	if testing.Short() {
		t.Skip("measures")
	}
	all, err := measure("2a", []string{"osaurus/engine/pairing"})
	if err != nil || len(all) != 2 || all[0].Row != "2a" || all[0].Unit != ratio || all[0].Median <= 0 || all[0].Goal == 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := measure("99", []string{"osaurus/engine/pairing"}); err == nil {
		t.Error("no row is no error")
	}
}

// TestMeasured: the packages with rows are found, and a choice stays one.
func TestMeasured(t *testing.T) {
	t.Chdir("../..")
	all, err := measured(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"accesskey", "channel", "identity", "pairing", "relay/server", "server", "storage/sealed", "storage/sqlcipher"} {
		if !slices.Contains(all, "osaurus/engine/"+want) {
			t.Errorf("%s is not among %v", want, all)
		}
	}
	if len(all) > 15 || !slices.Contains(all, "osaurus/engine") {
		t.Errorf("%v", all)
	}
	if one, err := measured([]string{"./x"}); err != nil || len(one) != 1 {
		t.Errorf("%v %v", one, err)
	}
}
