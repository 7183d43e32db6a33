package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"osaurus/app/cli"
)

// platform is a system and what compiles C for it.
type platform struct{ goos, goarch, cc, deb string }

// known are the platforms that Debian's compilers reach.
var known = []platform{
	{"linux", "amd64", "x86_64-linux-gnu-gcc", "amd64"},
	{"linux", "arm64", "aarch64-linux-gnu-gcc", "arm64"},
}

func (p platform) String() string { return p.goos + "-" + p.goarch }

func (o *options) parsePlatforms(names string) error {
	for name := range strings.SplitSeq(names, ",") {
		found := false
		for _, p := range known {
			if p.goos+"/"+p.goarch != name {
				continue
			}
			if _, err := exec.LookPath(p.cc); err != nil {
				return fmt.Errorf("%s needs the C compiler %s, for SQLCipher: on Debian, apt-get install gcc-%s", name, p.cc, strings.TrimSuffix(strings.ReplaceAll(p.cc, "_", "-"), "-gcc"))
			}
			o.platforms, found = append(o.platforms, p), true
		}
		if !found {
			return fmt.Errorf("%s is not built by this program; -platforms takes linux/amd64 and linux/arm64", name)
		}
	}
	return nil
}

// source is a commit to build.
type source struct {
	root, commit string
	time         time.Time // of the commit: the time of every file
}

// headOf returns what is checked out, which must be unchanged.
func headOf(dir string) (source, error) {
	changed, err := output(dir, nil, "git", "status", "--porcelain")
	if err != nil {
		return source{}, err
	}
	if changed != "" {
		return source{}, errors.New("the tree has changes; a release is of a commit")
	}
	commit, err := output(dir, nil, "git", "rev-parse", "HEAD")
	if err != nil {
		return source{}, err
	}
	stamp, err := output(dir, nil, "git", "show", "--no-patch", "--format=%ct", "HEAD")
	if err != nil {
		return source{}, err
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return source{}, err
	}
	root, err := output(dir, nil, "git", "rev-parse", "--show-toplevel")
	return source{root, commit, time.Unix(seconds, 0).UTC()}, err
}

// output runs a program and returns what it prints.
func output(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, env
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, &complaint)
	}
	return strings.TrimSpace(string(out)), nil
}

// buildEnv leaves nothing of the caller's settings but where modules come from.
func buildEnv(dir string, p platform, at time.Time) []string {
	env := []string{
		"CGO_ENABLED=1", "CC=" + p.cc, "CGO_CFLAGS=-O2 -g0 -fstack-protector-strong", "GOOS=" + p.goos, "GOARCH=" + p.goarch, "GOTOOLCHAIN=" + toolchain, "GOENV=off", "GOWORK=off",
		"GOFLAGS=-mod=readonly -trimpath -buildvcs=true -tags=sqlite_fts5,sqlite_json",
		"GOCACHE=" + filepath.Join(dir, "cache"), "LC_ALL=C", "TZ=UTC", "SOURCE_DATE_EPOCH=" + strconv.FormatInt(at.Unix(), 10),
	}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GOMODCACHE", "GOPATH", "GOPROXY", "GOSUMDB"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// all makes every file of a release in a folder of its own.
func (o *options) all(src source, dir string) (files, error) {
	tree := filepath.Join(dir, "src")
	if _, err := output(".", nil, "git", "clone", "--quiet", "--no-hardlinks", "--no-checkout", src.root, tree); err != nil {
		return nil, err
	}
	if _, err := output(tree, nil, "git", "checkout", "--quiet", "--detach", src.commit); err != nil {
		return nil, err
	}
	completions, err := cli.Completions()
	if err != nil {
		return nil, err
	}
	shared, err := sharedFiles(tree)
	if err != nil {
		return nil, err
	}
	all, tools := files{}, files{}
	for _, p := range o.platforms {
		start := time.Now()
		b, err := o.build(src, dir, tree, p)
		if err != nil {
			return nil, err
		}
		fmt.Printf("built %s in %.0f s\n", p, time.Since(start).Seconds())
		if len(b.sandbox) == 0 {
			fmt.Printf("%s comes without the sandbox: its image is built where its programs run\n", p)
		}
		b.shared, b.manual, b.completions = shared, cli.Manual(src.time), completions
		if err := o.pack(all, src, b); err != nil {
			return nil, err
		}
		tools[p.String()] = []byte(b.compilers)
		if len(b.sandbox) > 0 {
			tools[p.String()] = append(tools[p.String()], "; with the sandbox"...)
		}
	}
	if err := o.packSource(all, src, tree); err != nil {
		return nil, err
	}
	all["BUILD.txt"] = o.describe(src, tools)
	return all, nil
}

// built is one platform's part of a release.
type built struct {
	platform    platform
	programs    files // what users run
	sandbox     files // what their agents run in, by name below libexec/osaurus
	compilers   string
	licences    []byte
	sbom        []byte
	shared      files
	manual      files
	completions files
}

// build compiles the program, and what its agents run in.
func (o *options) build(src source, dir, tree string, p platform) (built, error) {
	b := built{platform: p, programs: files{}}
	env := buildEnv(dir, p, src.time)
	out := filepath.Join(dir, p.String())
	at := filepath.Join(out, "osaurus")
	_, err := output(tree, env, "go", "build", "-buildmode=pie", "-ldflags", "-s -w -X osaurus/app/cli.Version="+o.version+" -extldflags '-Wl,-z,relro,-z,now'", "-o", at, "./app/osaurus")
	if err != nil {
		return b, err
	}
	if b.programs["osaurus"], err = os.ReadFile(at); err != nil {
		return b, err
	}
	box, err := buildSandbox(tree, filepath.Join(out, "libexec"), env, p)
	if err != nil {
		return b, err
	}
	b.sandbox = box.files
	linked, err := linkedModules(b.programs)
	if err != nil {
		return b, err
	}
	dirs, err := moduleDirs(tree, env)
	if err != nil {
		return b, err
	}
	found, err := licencesOf(linked, dirs)
	if err != nil {
		return b, err
	}
	b.licences = append(found.text("osaurus"), box.licences...)
	if b.sbom, err = sbom(o.version, src, p, b.programs, linked, found, dirs, box.components...); err != nil {
		return b, err
	}
	b.compilers, err = output(tree, env, p.cc, "--version")
	b.compilers, _, _ = strings.Cut(b.compilers, "\n")
	return b, err
}

// describe names everything the bytes depend on.
func (o *options) describe(src source, compilers files) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "version   %s\ncommit    %s\ntoolchain %s\n", o.version, src.commit, toolchain)
	for _, name := range compilers.names() {
		fmt.Fprintf(&b, "C for     %s: %s\n", name, compilers[name])
	}
	fmt.Fprintf(&b, "\nTo repeat it, at this commit:\n  scripts/verify-release SHA256SUMS %s -base-url %s\n", o.version, o.baseURL)
	return b.Bytes()
}
