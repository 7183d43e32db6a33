// Command bench runs every benchmark that has a goal and prints, for each, the
// median and quartiles of what was measured, the goal, and whether it was met.
//
// Usage:
//
//	bench [-rows regexp] [-check] [-json] [-svg file] [package …]
//
// With -svg the ratios are also drawn into a file.
// A goal that is missed has a reason and a fallback bound in reasons.txt. With
// -check the exit status is 1 when a figure is beyond its goal and its fallback,
// and when a reason is left over for a goal that is met by far. The exit status
// is 2 when a benchmark could not be run.
package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

//go:embed reasons.txt
var reasonsFile string

func main() {
	rows := flag.String("rows", "[0-9S]", "regular expression for the start of the rows to run")
	check := flag.Bool("check", false, "fail when a goal is missed without a reason")
	svg := flag.String("svg", "", "file to draw the ratios into")
	asJSON := flag.Bool("json", false, "print the figures as JSON")
	flag.Parse()
	packages, err := measured(flag.Args())
	var table []figure
	if err == nil {
		table, err = measure(*rows, packages)
	}
	if err == nil {
		err = addStock(table)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if *asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(table)
	} else {
		err = render(os.Stdout, table)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if *svg != "" {
		if err := os.WriteFile(*svg, chart(table), 0o644); err != nil { //nolint:gosec // a picture for everybody
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(2)
		}
	}
	if bad := unexplained(table); *check && len(bad) > 0 {
		for _, line := range bad {
			fmt.Fprintln(os.Stderr, "bench:", line)
		}
		os.Exit(1)
	}
}

// goals is imported by every test that has a row, and by nothing else.
const goals = "osaurus/engine/internal/benchratio"

// measured returns the packages that have rows; without a choice, among all.
// Linking the tests of the others would take longer than the benchmarks.
func measured(chosen []string) ([]string, error) {
	if len(chosen) > 0 {
		return chosen, nil
	}
	cmd := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .TestImports \" \"}} {{join .XTestImports \" \"}}", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var with []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); slices.Contains(f[1:], goals) {
			with = append(with, f[0])
		}
	}
	return with, nil
}

// measure runs the benchmarks one package after the other, telling each
// figure on stderr as it comes.
func measure(rows string, packages []string) ([]figure, error) {
	reasons, err := parseReasons(reasonsFile)
	if err != nil {
		return nil, err
	}
	table, err := run(rows, packages)
	if err != nil {
		return nil, err
	}
	if len(table) == 0 {
		return nil, fmt.Errorf("no benchmark has a row that starts with %q", rows)
	}
	for i := range table {
		table[i].explain(reasons)
	}
	return table, nil
}

// stockTags leave the driver's own crypto in place.
const stockTags = "-tags=sqlite_fts5,sqlite_json,osaurus_stockcrypto"

// addStock measures the rows of databases again with the driver's own crypto.
func addStock(table []figure) error {
	if !slices.ContainsFunc(table, func(f figure) bool { return strings.HasPrefix(f.Row, "S") }) {
		return nil
	}
	stock, err := run("S", []string{stockTags, "./engine/storage/sqlcipher"})
	if err != nil {
		return err
	}
	for i := range table {
		for _, s := range stock {
			if s.Row == table[i].Row && s.What == table[i].What {
				table[i].Stock = &s.Median
			}
		}
	}
	return nil
}

// run returns the figures of go test, whose last arguments are given.
func run(rows string, arguments []string) ([]figure, error) {
	args := append([]string{"test", "-p", "1", "-run", "^$", "-bench", ".*/^" + rows, "-benchtime", "1x"}, arguments...)
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	table, err := read(out, func(line string) { fmt.Fprintln(os.Stderr, line) })
	return table, errors.Join(err, cmd.Wait())
}

// read takes the figures from the output of go test, and tells each as it
// comes, and what failed.
func read(r io.Reader, tell func(line string)) ([]figure, error) {
	var table []figure
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f, ok, err := parseLine(lines.Text())
		switch {
		case err != nil:
			return nil, err
		case ok:
			table = append(table, f)
			tell(fmt.Sprintf("%-3s %s", f.Row, f.What))
		case !noise(lines.Text()):
			tell(lines.Text())
		}
	}
	sortRows(table)
	return table, lines.Err()
}

func noise(line string) bool {
	for _, prefix := range []string{"goos:", "goarch:", "cpu:", "pkg:", "PASS", "ok ", "ok\t", "?"} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}
