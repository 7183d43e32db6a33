// Command fuzz runs every fuzz target of the project, one after the other.
//
// Usage:
//
//	fuzz [-time 10s] [-run regexp] [-keep n] [-list] [package …]
//
// With -keep each target's corpus in the tree, testdata/fuzz of its package, is
// filled up to n inputs with those that the fuzzer found interesting.
//
// The exit status is 0 when no target failed, 1 when one did and 2 when the
// targets could not be run. What go test found lies below testdata/fuzz of its
// package and is a test from then on.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	each := flag.Duration("time", 10*time.Second, "time for each target")
	match := flag.String("run", "", "regular expression for the targets, as in osaurus/engine/channel.FuzzFrame")
	keep := flag.Int("keep", 0, "how many inputs of each target to have in the tree")
	list := flag.Bool("list", false, "list the targets and stop")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	targets, err := find(*match, packages)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(2)
	}
	failed := 0
	for i, t := range targets {
		fmt.Printf("[%d/%d] %s\n", i+1, len(targets), t)
		if *list {
			continue
		}
		if !t.fuzz(*each) {
			failed++
		}
		if n, err := t.keep(*keep); err != nil {
			fmt.Fprintln(os.Stderr, "fuzz:", err)
			os.Exit(2)
		} else if n > 0 {
			fmt.Printf("      %d inputs kept\n", n)
		}
	}
	if failed > 0 {
		fmt.Fprintf(os.Stderr, "fuzz: %d of %d targets failed\n", failed, len(targets))
		os.Exit(1)
	}
}

// target is one fuzz function.
type target struct{ pkg, name string }

func (t target) String() string { return t.pkg + "." + t.name }

// minimise is how long a failing or an interesting input is made smaller. Go's
// minute would be all the time that a target has.
const minimise = 3 * time.Second

// fuzz is false when the target failed, which go test has told by then.
func (t target) fuzz(each time.Duration) bool {
	cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(), "-fuzzminimizetime", minimise.String(), t.pkg)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run() == nil
}

// keep copies inputs from the fuzzer's cache to the target's package until n
// stand there, and returns how many it copied.
func (t target) keep(n int) (int, error) {
	if n == 0 {
		return 0, nil
	}
	cache, err := output("go", "env", "GOCACHE")
	if err != nil {
		return 0, err
	}
	dir, err := output("go", "list", "-f", "{{.Dir}}", t.pkg)
	if err != nil {
		return 0, err
	}
	return keep(filepath.Join(cache, "fuzz", filepath.FromSlash(t.pkg), t.name), filepath.Join(dir, "testdata", "fuzz", t.name), n)
}

// maxKept is the size of an input that the tree is spared, in bytes.
const maxKept = 2 << 10

// keep chooses among the inputs by size, from the smallest to the largest.
func keep(from, to string, n int) (int, error) {
	there, err := os.ReadDir(to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	inputs := map[string][]byte{}
	entries, err := os.ReadDir(from)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return 0, err
		}
		if len(text) <= maxKept && !slices.ContainsFunc(there, func(t os.DirEntry) bool { return t.Name() == e.Name() }) {
			inputs[e.Name()] = text
		}
	}
	names := slices.SortedFunc(maps.Keys(inputs), func(a, b string) int { return cmp.Or(len(inputs[a])-len(inputs[b]), strings.Compare(a, b)) })
	wanted := min(n-len(there), len(names))
	if wanted <= 0 {
		return 0, nil
	}
	if err := os.MkdirAll(to, 0o755); err != nil { //nolint:gosec // part of the source
		return 0, err
	}
	for i := range wanted {
		name := names[i*len(names)/wanted]
		if err := os.WriteFile(filepath.Join(to, name), inputs[name], 0o644); err != nil { //nolint:gosec // as above
			return i, err
		}
	}
	return wanted, nil
}

func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// find lists the targets of the packages whose name matches.
func find(match string, packages []string) ([]target, error) {
	wanted, err := regexp.Compile(match)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	const form = `{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}`
	var stderr bytes.Buffer
	cmd := exec.Command("go", append([]string{"list", "-f", form}, packages...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the tests: %w\n%s", err, &stderr)
	}
	var all []target
	for line := range strings.Lines(string(out)) {
		pkg, file, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, name := range declared(source) {
			if t := (target{pkg, name}); wanted.MatchString(t.String()) {
				all = append(all, t)
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no fuzz target matches %q", match)
	}
	return all, nil
}

var declaration = regexp.MustCompile(`(?m)^func (Fuzz[A-Za-z0-9_]*)\([a-z]+ \*testing\.F\)`)

// declared returns the fuzz functions of a file. Asking go test for them would
// link the tests of every package.
func declared(source []byte) (names []string) {
	for _, m := range declaration.FindAllSubmatch(source, -1) {
		names = append(names, string(m[1]))
	}
	return names
}
