// Command suites runs every check of the project, prints how long each took,
// names what was skipped and why, and ends with the counts.
//
// Usage:
//
//	suites [-only name,name] [-list]
//
// The exit status is 0 when everything passed, 1 when something failed and 2
// when a suite could not be started.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// suite is one named check. run reports through the tally; an error is a
// failure of the suite as a whole.
type suite struct {
	name, what string
	run        func(*tally) error
}

var suites = []suite{
	{"packages", "Debian packages that suites need", installPackages},
	{"sqlcipher", "another SQLCipher 4 for the tests of engine/storage", fetchSQLCipher},
	{"kernel", "a kernel for the virtual machines of engine/sandbox", fetchKernel},
	{"sandbox", "gVisor's program and the sandbox's image", buildSandbox},
	{"modules", "go.mod and go.sum are complete and untouched", modules},
	{"scripts", "import directions, sizes, documentation, and the tests of these programs", goTest("./scripts/...")},
	{"darwin-types", "macOS code type-checks for arm64 and amd64", darwinTypes},
	{"darwin-build", "packages without cgo build for macOS", darwinBuild},
	{"lint", "golangci-lint, which has go vet in it", lint},
	{"models", "protocol models and their broken variants, with spin", models},
	{"test", "every test of the product under the race detector, fuzz seeds included", raceTest},
	{"demo", "two hosts, one paired run, every refusal", command("go", "run", "./scripts/demo")},
}

func main() {
	only := flag.String("only", "", "comma-separated suites to run")
	list := flag.Bool("list", false, "list the suites and stop")
	flag.Parse()
	if *list {
		for _, s := range suites {
			fmt.Printf("%-14s %s\n", s.name, s.what)
		}
		return
	}
	var wanted []string
	if *only != "" {
		wanted = strings.Split(*only, ",")
		for _, name := range wanted {
			if !slices.ContainsFunc(suites, func(s suite) bool { return s.name == name }) {
				fmt.Fprintf(os.Stderr, "suites: no suite named %q; -list shows them\n", name)
				os.Exit(2)
			}
		}
	}
	os.Exit(runAll(wanted))
}

func runAll(wanted []string) int {
	t := &tally{}
	type timing struct {
		name string
		took time.Duration
	}
	var timings []timing
	for _, s := range suites {
		if len(wanted) > 0 && !slices.Contains(wanted, s.name) {
			continue
		}
		fmt.Printf("== %s: %s\n", s.name, s.what)
		t.suite = s.name
		before, start := *t, time.Now()
		if err := s.run(t); err != nil {
			t.fail(err.Error())
		} else if before.passed == t.passed && before.failed == t.failed && len(before.skips) == len(t.skips) {
			t.passed++
		}
		timings = append(timings, timing{s.name, time.Since(start)})
	}
	fmt.Println("\nSeconds per suite:")
	for _, tm := range timings {
		fmt.Printf("  %-14s %6.1f\n", tm.name, tm.took.Seconds())
	}
	return t.close()
}

// tally counts results over all suites.
type tally struct {
	suite          string
	passed, failed int
	failures       []string
	skips          []string
}

func (t *tally) fail(what string) {
	t.failed++
	t.failures = append(t.failures, t.suite+": "+what)
}

func (t *tally) skip(what string) { t.skips = append(t.skips, t.suite+": "+what) }

func (t *tally) close() int {
	if len(t.skips) > 0 {
		fmt.Println("\nSkipped:")
		for _, s := range t.skips {
			fmt.Println("  " + s)
		}
	}
	if len(t.failures) > 0 {
		fmt.Println("\nFailed:")
		for _, f := range t.failures {
			fmt.Println("  " + f)
		}
	}
	fmt.Printf("\n%d passed, %d failed, %d skipped\n", t.passed, t.failed, len(t.skips))
	if t.failed > 0 {
		return 1
	}
	return 0
}
