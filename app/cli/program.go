package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// ProgramName returns how the program that was started as arg0 is typed: its
// bare name where the search path finds it.
func ProgramName(arg0 string) string {
	found, err := exec.LookPath(filepath.Base(arg0))
	if err != nil {
		return arg0
	}
	a, errA := os.Stat(found)
	b, errB := os.Stat(arg0)
	if filepath.Base(arg0) == arg0 || errA == nil && errB == nil && os.SameFile(a, b) {
		return filepath.Base(arg0)
	}
	return arg0
}

// typed makes the commands in a text ones that work as they stand: for this
// program, and for this home when it was named by a flag.
func (a *app) typed(text string) string {
	program, home := a.Program, ""
	if program == "" {
		program = "osaurus"
	}
	for _, arg := range a.Args {
		if a.home != "" && (arg == "--home" || strings.HasPrefix(arg, "--home=")) { // a command that is not known has not found it
			home = " --home " + quoted(a.home)
		}
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		with := program + home
		if strings.Contains(line, "--home ") {
			with = program
		}
		lines[i] = commandStart.ReplaceAllString(line, "${1}"+strings.ReplaceAll(with, "$", "$$")+" ")
	}
	return strings.Join(lines, "\n")
}

// commandStart is where a command to type begins. Elsewhere the word is prose that
// names the program.
var commandStart = regexp.MustCompile(`(^|  |: )osaurus `)

// quoted makes a path one word of a shell.
func quoted(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
