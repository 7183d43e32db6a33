package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// debian lists the programs that suites call and the files they read, and the
// package that brings each.
var debian = []struct{ program, pkg string }{
	{"ip", "iproute2"},
	{"cc", "gcc"},
	{"strace", "strace"},
	{"spin", "spin"},
	{"redis-server", "redis-server"},
	{"busybox", "busybox-static"},
	{"qemu-system-x86_64", "qemu-system-x86"},
	{"chromium", "chromium"},  // the settings page
	{"zbarimg", "zbar-tools"}, // reads its QR codes
	{"avahi-daemon", "avahi-daemon"},
	{"dbus-daemon", "dbus"},
	{"gnome-keyring-daemon", "gnome-keyring"},
	{"clang-19", "clang-19"},
	{"/usr/include/dns_sd.h", "libavahi-compat-libdnssd-dev"},
	{"/usr/include/GNUstep/Foundation/Foundation.h", "libgnustep-base-dev"},
	{"man", "man-db"},
	{"systemd-analyze", "systemd"},
}

func installPackages(t *tally) error {
	var missing []string
	for _, d := range debian {
		_, err := exec.LookPath(d.program)
		if strings.HasPrefix(d.program, "/") {
			_, err = os.Stat(d.program)
		}
		if err != nil {
			missing = append(missing, d.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	apt, err := exec.LookPath("apt-get")
	if err == nil && os.Geteuid() == 0 {
		if err := command(apt, "-q", "update")(t); err != nil {
			return err
		}
		return command(apt, append([]string{"-q", "-y", "--no-install-recommends", "install"}, missing...)...)(t)
	}
	t.skip("cannot install " + strings.Join(missing, ", ") + ": needs Debian and root")
	return nil
}

// fetchKernel unpacks Debian's kernel for virtual machines below build/.
func fetchKernel(t *tally) error {
	if found, _ := filepath.Glob("build/kernel/boot/vmlinuz-*"); len(found) == 1 {
		return nil
	}
	out, err := exec.Command("sh", "engine/sandbox/driver/qemu/testdata/fetch-kernel.sh").CombinedOutput()
	if err != nil {
		t.skip(fmt.Sprintf("no kernel could be fetched, so no virtual machine is booted: %v: %s", err, lastLine(bytes.NewBuffer(out))))
	}
	return nil
}

// buildSandbox makes what sandboxes run on: minutes the first time. A machine
// without a static busybox has no image.
func buildSandbox(t *tally) error {
	if err := command("make", "--no-print-directory", "runsc")(t); err != nil {
		return err
	}
	if _, err := exec.LookPath("busybox"); err == nil {
		return command("make", "--no-print-directory", "image")(t)
	}
	t.skip("no image: install busybox-static")
	return nil
}

// fetchSQLCipher unpacks a SQLCipher that is not ours below build/.
func fetchSQLCipher(t *tally) error {
	if _, err := os.Stat("build/sqlcipher/sqlcipher"); err == nil {
		return nil
	}
	out, err := exec.Command("sh", "engine/storage/sqlcipher/testdata/fetch-sqlcipher.sh").CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.skip(fmt.Sprintf("no other SQLCipher could be fetched: %v: %s", err, lines[len(lines)-1]))
	}
	return nil
}

// command runs a program with its output shown.
func command(name string, args ...string) func(*tally) error {
	return func(*tally) error {
		cmd := exec.Command(name, args...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
		}
		return nil
	}
}

func env(extra ...string) []string { return append(os.Environ(), extra...) }

func modules(t *tally) error {
	if err := command("go", "mod", "verify")(t); err != nil {
		return err
	}
	out, err := exec.Command("go", "mod", "tidy", "-diff").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go mod tidy would change go.mod or go.sum:\n%s", out)
	}
	return nil
}

func darwinTypes(t *tally) error {
	for _, arch := range []string{"arm64", "amd64"} {
		if err := command("go", "run", "./scripts/darwincheck", "-v", "-tests", "-goarch", arch, "-tags", "sqlite_fts5,sqlite_json", "./...")(t); err != nil {
			return err
		}
	}
	return nil
}

// darwinBuild compiles, for macOS and without cgo, every package that has no
// cgo in its dependencies.
func darwinBuild(*tally) error {
	list := exec.Command("go", "list", "-deps", "-f", "{{if and .Module (eq .Module.Path \"osaurus\")}}{{if not .Standard}}{{.ImportPath}} {{len .CgoFiles}} {{join .Deps \",\"}}{{end}}{{end}}{{if .CgoFiles}}{{if not .Standard}}\ncgo {{.ImportPath}}{{end}}{{end}}", "./...")
	list.Env = env("GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=1")
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("go list for darwin: %w", err)
	}
	packages := withoutCgo(string(out))
	if len(packages) == 0 {
		return errors.New("no package without cgo was found")
	}
	build := exec.Command("go", append([]string{"build"}, packages...)...)
	build.Env = env("GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building for macOS without cgo: %w\n%s", err, out)
	}
	fmt.Printf("%d packages built\n", len(packages))
	return nil
}

func withoutCgo(list string) []string {
	cgo := map[string]bool{}
	type entry struct {
		path string
		deps []string
	}
	var ours []entry
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "cgo":
			cgo[f[1]] = true
		case len(f) >= 2 && f[1] == "0":
			e := entry{path: f[0]}
			if len(f) > 2 {
				e.deps = strings.Split(f[2], ",")
			}
			ours = append(ours, e)
		}
	}
	var pure []string
	for _, e := range ours {
		native := false
		for _, d := range e.deps {
			native = native || cgo[d]
		}
		if !native {
			pure = append(pure, e.path)
		}
	}
	return pure
}

func lint(t *tally) error {
	const bin = "build/tools/golangci-lint"
	build := exec.Command("go", "build", "-o", "../../"+bin, "github.com/golangci/golangci-lint/v2/cmd/golangci-lint")
	build.Dir = "scripts/lint"
	build.Env = env("GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building golangci-lint: %w\n%s", err, out)
	}
	return command(bin, "run", "--allow-parallel-runners", "--timeout", "15m", "./...")(t)
}

func exists(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

func models(t *tally) error {
	if exists("spin") {
		return command("go", "run", "./scripts/models")(t)
	}
	t.skip("spin is missing")
	return nil
}

// raceTest leaves out scripts, which have no goroutines worth a detector that
// makes the type checker ten times slower; their suite runs them. The detector
// sleeps for a second before each process ends, for the last reports of other
// threads. Here each of some hundred processes has ended its goroutines by then.
func raceTest(t *tally) error {
	out, err := exec.Command("go", "list", "./...").Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	packages := slices.DeleteFunc(strings.Fields(string(out)), func(p string) bool { return strings.HasPrefix(p, "osaurus/scripts/") })
	if err := os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0")); err != nil {
		return err
	}
	return goTest(append([]string{"-race"}, packages...)...)(t)
}

// goTest runs go test with -json and counts every test and subtest. Suite lint
// has all that go vet looks for.
func goTest(args ...string) func(*tally) error {
	return func(t *tally) error {
		cmd := exec.Command("go", append([]string{"test", "-json", "-vet=off", "-timeout", "20m"}, args...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		failedBefore := t.failed
		count(t, bufio.NewReaderSize(out, 1<<20))
		if err := cmd.Wait(); err != nil && t.failed == failedBefore {
			return fmt.Errorf("go test: %w", err)
		}
		return nil
	}
}

// testEvent is what "go test -json" prints (cmd/test2json).
type testEvent struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

func count(t *tally, lines *bufio.Reader) {
	output := map[string]*bytes.Buffer{}
	for {
		line, err := lines.ReadBytes('\n')
		var e testEvent
		if len(line) > 0 && json.Unmarshal(line, &e) == nil {
			countEvent(t, e, output)
		}
		if err != nil {
			return
		}
	}
}

func countEvent(t *tally, e testEvent, output map[string]*bytes.Buffer) {
	key := e.Package + " " + e.Test
	if e.ImportPath != "" {
		key = e.ImportPath
	}
	switch e.Action {
	case "output", "build-output":
		if output[key] == nil {
			output[key] = &bytes.Buffer{}
		}
		output[key].WriteString(e.Output)
		return
	case "pass":
		if e.Test != "" {
			t.passed++
		} else {
			fmt.Printf("ok    %-55s %6.1fs\n", e.Package, e.Elapsed)
		}
	case "skip":
		if e.Test != "" {
			t.skip(strings.TrimSpace(key) + ": " + lastLine(output[key]))
		}
	case "fail", "build-fail":
		t.fail(strings.TrimSpace(key))
		if b := output[key]; b != nil {
			fmt.Printf("FAIL  %s\n%s\n", key, b)
		}
	default:
		return
	}
	delete(output, key)
}

// lastLine finds the reason a test gave for skipping.
func lastLine(b *bytes.Buffer) string {
	if b == nil {
		return "no reason given"
	}
	var reason string
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			reason = line
		}
	}
	return reason
}
