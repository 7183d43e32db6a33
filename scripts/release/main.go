// Command release builds what strangers install, twice in different folders,
// and gives it out only when both are the same to the bit.
//
// Usage:
//
//	release [-out dist] [-version V] [-platforms linux/amd64,linux/arm64]
//	        [-base-url URL] [-against SHA256SUMS] [-once]
//
// It builds the commit that is checked out, from clones of its own, and refuses
// a tree with changes. What it writes depends on the commit, the version, the
// Go toolchain named below and the C compiler, which BUILD.txt names; nothing
// of the machine enters it. -against compares with sums published elsewhere;
// scripts/verify-release uses it.
//
// macOS is not built here: its parts in cgo need Apple's compiler and SDK.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"osaurus/app/cli"
)

// toolchain is the compiler of releases. Where it is not installed, the go
// command fetches exactly this one.
const toolchain = "go1.26.8"

type options struct {
	out, version, baseURL, against string
	platforms                      []platform
	once                           bool
}

func main() {
	var o options
	flag.StringVar(&o.out, "out", "dist", "folder for the result; must not exist, or be empty")
	flag.StringVar(&o.version, "version", "", "version (default: 0.0.0+DATE.COMMIT)")
	flag.StringVar(&o.baseURL, "base-url", "https://example.invalid/osaurus", "where the files will be downloaded from, for the Homebrew formula")
	flag.StringVar(&o.against, "against", "", "SHA256SUMS to compare with")
	flag.BoolVar(&o.once, "once", false, "build once and compare nothing; not for publishing")
	names := flag.String("platforms", "linux/amd64,linux/arm64", "what to build")
	flag.Parse()
	err := o.parsePlatforms(*names)
	if err == nil {
		err = o.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// versions is what Debian and a file name can both carry.
var versions = regexp.MustCompile(`^[0-9][0-9A-Za-z.+~]*$`)

func (o *options) run() (err error) {
	src, err := headOf(".")
	if err != nil {
		return err
	}
	if o.version == "" {
		o.version = "0.0.0+" + src.time.Format("20060102") + "." + src.commit[:8]
	}
	if !versions.MatchString(o.version) {
		return fmt.Errorf("%q is no version: want digits, letters, dots, + and ~, a digit first", o.version)
	}
	if old, err := os.ReadDir(o.out); err == nil && len(old) > 0 {
		return fmt.Errorf("%s is not empty", o.out)
	}
	cli.Version = o.version
	work, err := os.MkdirTemp("", "osaurus-release-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	first, err := o.all(src, filepath.Join(work, "one"))
	if err != nil {
		return err
	}
	if !o.once {
		second, err := o.all(src, filepath.Join(work, "another", "folder"))
		if err != nil {
			return err
		}
		if err := same(first, second); err != nil {
			return err
		}
		fmt.Printf("%d files are the same from both folders\n", len(first))
	}
	return o.publish(first)
}

// same compares two builds.
func same(a, b files) error {
	var differ []string
	for name := range a {
		if string(a[name]) != string(b[name]) {
			differ = append(differ, name)
		}
	}
	if len(a) != len(b) || len(differ) > 0 {
		slices.Sort(differ)
		return fmt.Errorf("the two builds differ: %s", strings.Join(differ, ", "))
	}
	return nil
}

// publish writes the files and their sums, or compares the sums with others.
func (o *options) publish(all files) error {
	sums := all.sums()
	if o.against != "" {
		published, err := os.ReadFile(o.against)
		if err != nil {
			return err
		}
		return compareSums(string(published), sums)
	}
	all["SHA256SUMS"] = []byte(sums)
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	for _, name := range all.names() {
		if err := os.WriteFile(filepath.Join(o.out, name), all[name], 0o644); err != nil {
			return err
		}
		fmt.Printf("%10d  %s\n", len(all[name]), filepath.Join(o.out, name))
	}
	return nil
}

// compareSums wants every file that was built here to be among those published
// with the same sum.
func compareSums(published, built string) error {
	known := map[string]string{}
	for line := range strings.Lines(published) {
		if f := strings.Fields(line); len(f) == 2 {
			known[strings.TrimPrefix(f[1], "*")] = f[0]
		}
	}
	var wrong []string
	for line := range strings.Lines(built) {
		f := strings.Fields(line)
		verdict := "same"
		switch known[f[1]] {
		case f[0]:
		case "":
			verdict = "not published"
		default:
			verdict = "DIFFERENT"
		}
		fmt.Printf("%-13s  %s\n", verdict, f[1])
		if verdict != "same" {
			wrong = append(wrong, f[1])
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d files are not what was published: compare BUILD.txt with the published one; the compilers must be the same", len(wrong))
	}
	return nil
}
