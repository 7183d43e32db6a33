// Command models checks the Promela models beside the protocols with spin: each
// must hold, and each of its deliberately broken variants must fail, else the
// model proves nothing.
//
// Usage:
//
//	models [FILE…]
//
// The exit status is 0 when all is so, 1 when it is not and 2 when spin or a C
// compiler is missing.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

const (
	// Limit bounds one variant; the largest model takes seconds.
	limit = 5 * time.Minute
	// Depth is the longest path that is followed.
	depth = "-m200000"
)

func main() {
	for _, program := range []string{"spin", "cc"} {
		if _, err := exec.LookPath(program); err != nil {
			fmt.Fprintf(os.Stderr, "models: %s is missing; on Debian: apt-get install %s\n", program, map[string]string{"spin": "spin", "cc": "gcc"}[program])
			os.Exit(2)
		}
	}
	files := os.Args[1:]
	if len(files) == 0 {
		files, _ = filepath.Glob("engine/*/*.pml") // the pattern is well formed
	}
	if err := run(files); err != nil {
		fmt.Fprintln(os.Stderr, "models:", err)
		os.Exit(1)
	}
}

func run(files []string) error {
	if len(files) == 0 {
		return errors.New("no models below engine")
	}
	var failed error
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		broken := variants(source)
		if len(broken) == 0 {
			failed = errors.Join(failed, fmt.Errorf("%s has no broken variant", file))
		}
		for _, variant := range append([]string{""}, broken...) {
			states, violation, err := check(file, variant)
			if err != nil {
				return err
			}
			name := file
			if variant != "" {
				name += " " + variant
			}
			switch {
			case variant == "" && violation != "":
				failed = errors.Join(failed, fmt.Errorf("%s: %s", name, violation))
			case variant != "" && violation == "":
				failed = errors.Join(failed, fmt.Errorf("%s: nothing is found wrong with it", name))
			default:
				fmt.Printf("ok  %-45s %9s states  %s\n", name, states, violation)
			}
		}
	}
	return failed
}

var brokenName = regexp.MustCompile(`BROKEN_[A-Z]+`)

// variants lists the names under which a model has a mistake planted.
func variants(source []byte) []string {
	var all []string
	for _, name := range brokenName.FindAll(source, -1) {
		if !slices.Contains(all, string(name)) {
			all = append(all, string(name))
		}
	}
	slices.Sort(all)
	return all
}

var (
	stateCount = regexp.MustCompile(`(\d+) states, stored`)
	errorCount = regexp.MustCompile(`errors: (\d+)`)
	firstError = regexp.MustCompile(`(?m)^pan:\d+: (.*)$`)
	incomplete = regexp.MustCompile(`(?i)max search depth too small|out of memory|search not completed`)
)

// check explores every state of one variant. violation is what was found.
func check(file, variant string) (states, violation string, err error) {
	dir, err := os.MkdirTemp("", "osaurus-model-")
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	source, err := filepath.Abs(file)
	if err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	generate := []string{"spin", "-a"}
	if variant != "" {
		generate = append(generate, "-D"+variant)
	}
	var out []byte
	for _, args := range [][]string{append(generate, source), {"cc", "-w", "-O1", "-DSAFETY", "-o", "pan", "pan.c"}, {"./pan", depth, "-w24"}} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = dir
		out, err = cmd.CombinedOutput()
		if err != nil {
			return "", "", fmt.Errorf("%s %s: %s: %w\n%s", file, variant, args[0], err, bytes.TrimSpace(out))
		}
	}
	count, found := errorCount.FindSubmatch(out), stateCount.FindSubmatch(out)
	if count == nil || found == nil {
		return "", "", fmt.Errorf("%s %s: pan said something else:\n%s", file, variant, out)
	}
	first := firstError.FindSubmatch(out)
	switch {
	case string(count[1]) != "0" && first != nil:
		violation = string(first[1])
	case string(count[1]) != "0":
		violation = "an error without a name"
	case incomplete.Match(out):
		return "", "", fmt.Errorf("%s %s was not explored to its end", file, variant)
	}
	return string(found[1]), violation[:min(len(violation), 60)], nil
}
