package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"osaurus/app/cli"
)

var commitTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// program is built once, as the working tree has it.
var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "osaurus-release-test-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	at := filepath.Join(dir, "osaurus")
	if _, err := output("../..", nil, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-X osaurus/app/cli.Version=1.2.3", "-o", at, "./app/osaurus"); err != nil {
		return nil, err
	}
	return os.ReadFile(at)
})

// fresh is a platform's part of a release, with the real program in it.
func fresh(t *testing.T) (options, source, built) {
	t.Helper()
	body, err := program()
	if err != nil {
		t.Fatal(err)
	}
	o, src := options{version: "1.2.3", baseURL: "https://example.invalid/osaurus"}, source{commit: strings.Repeat("0123abcd", 5), time: commitTime}
	b := built{platform: platform{runtime.GOOS, runtime.GOARCH, "cc", runtime.GOARCH}, programs: files{"osaurus": body}, manual: cli.Manual(commitTime)}
	if b.completions, err = cli.Completions(); err != nil {
		t.Fatal(err)
	}
	if b.shared, err = sharedFiles("../.."); err != nil {
		t.Fatal(err)
	}
	linked, err := linkedModules(b.programs)
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := moduleDirs("../..", nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := licencesOf(linked, dirs)
	if err != nil {
		t.Fatal(err)
	}
	b.licences = found.text("osaurus")
	if b.sbom, err = sbom(o.version, src, b.platform, b.programs, linked, found, dirs); err != nil {
		t.Fatal(err)
	}
	return o, src, b
}

// builtSandbox is what make sandbox made, which make test runs first.
func builtSandbox(t *testing.T) files {
	t.Helper()
	all := files{}
	for _, name := range []string{runsc, "image"} {
		below, err := filesBelow("../../build/libexec/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			t.Log("make sandbox did not run: the package is made without the sandbox")
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		for at, body := range below {
			all[path.Join(name, at)] = body
		}
	}
	return all
}

// TestSandboxAsPinned: what differs from its pin is not released.
func TestSandboxAsPinned(t *testing.T) {
	t.Parallel()
	all, dir := builtSandbox(t), t.TempDir()
	if all == nil || runtime.GOARCH != "amd64" {
		t.Skip("make sandbox did not run, or not for amd64")
	}
	for name, body := range all {
		if err := place(filepath.Join(dir, name), body, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := asPinned(dir, known[0]); err != nil {
		t.Fatal(err)
	}
	if err := place(filepath.Join(dir, runsc), append(bytes.Clone(all[runsc]), 0), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := asPinned(dir, known[0]); err == nil || !strings.Contains(err.Error(), "runsc is not what is pinned") {
		t.Errorf("%v", err)
	}
	if none, err := buildSandbox(dir, dir, nil, platform{"linux", "other", "", ""}); err != nil || none.files != nil {
		t.Errorf("built for another machine: %v, %v", none.files.names(), err)
	}
}

func TestArchives(t *testing.T) {
	t.Parallel()
	f := files{"p/bin/x": []byte("program"), "p/a": []byte("text"), "p/libexec/osaurus/osaurus-runsc": nil, "p/libexec/osaurus/image/blob": nil}
	one, err := f.archive(commitTime)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := f.archive(commitTime); err != nil || !bytes.Equal(one, two) {
		t.Errorf("two archives of the same files differ, %v", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(one))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || !h.ModTime.Equal(commitTime) || h.Uid != 0 || (h.Mode == 0o755) != (h.Name == "p/bin/x" || h.Name == "p/libexec/osaurus/osaurus-runsc") {
			t.Fatalf("%+v, %v", h, err)
		}
		names = append(names, h.Name)
	}
	if got := strings.Join(names, " "); got != "p/a p/bin/x p/libexec/osaurus/image/blob p/libexec/osaurus/osaurus-runsc" {
		t.Error(got)
	}
}

func TestSums(t *testing.T) {
	t.Parallel()
	sums := files{"b": []byte("x"), "a": nil}.sums()
	const want = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881  b\n"
	if sums != want {
		t.Errorf("%s", sums)
	}
	if err := compareSums(want+"00  more\n", sums); err != nil {
		t.Error(err)
	}
	for name, published := range map[string]string{"missing": sums[:strings.Index(sums, "\n")+1], "other": strings.Replace(sums, "2d71", "2d72", 1), "nothing": ""} {
		if compareSums(published, sums) == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if same(files{"a": nil}, files{"a": []byte("x")}) == nil || same(files{"a": nil}, files{}) == nil || same(files{}, files{"a": nil}) == nil {
		t.Error("builds that differ were taken for the same")
	}
	if err := same(files{"a": []byte("x")}, files{"a": []byte("x")}); err != nil {
		t.Error(err)
	}
}

// TestSBOM holds the list to the go.mod and to the C sources.
func TestSBOM(t *testing.T) {
	t.Parallel()
	_, _, b := fresh(t)
	var got bom
	if err := json.Unmarshal(b.sbom, &got); err != nil || got.Format != "CycloneDX" || got.Spec != "1.6" || !strings.HasPrefix(got.Serial, "urn:uuid:") {
		t.Fatalf("%v %+v", err, got.Metadata)
	}
	versions, refs := map[string]string{}, map[string]bool{}
	for _, c := range got.Components {
		versions[c.Name] = c.Version
		if refs[c.Ref] || c.PURL == "" || len(c.Licences) == 0 {
			t.Errorf("%s: ref twice, no purl or no licence: %+v", c.Name, c)
		}
		refs[c.Ref] = true
	}
	for name, version := range map[string]string{"sqlcipher": "4.4.2", "sqlite": "3.33.0", "std": strings.TrimPrefix(toolchain, "go"), sqlcipherModule: "v4.4.2", "github.com/decred/dcrd/dcrec/secp256k1/v4": "v4.4.1"} {
		if versions[name] != version {
			t.Errorf("%s is %q, want %s", name, versions[name], version)
		}
	}
	if versions["libtomcrypt"] == "" || versions["pgregory.net/rapid"] != "" {
		t.Errorf("libtomcrypt %q, and of the tests' alone %q", versions["libtomcrypt"], versions["pgregory.net/rapid"])
	}
	for _, on := range got.Dependencies[0].On {
		if !refs[on] {
			t.Errorf("%s is depended on and not there", on)
		}
	}
}

func TestLicences(t *testing.T) {
	t.Parallel()
	_, _, b := fresh(t)
	for _, want := range []string{"\nfilippo.io/age v", "\nstd go", "\n" + sqlcipherModule + " v", "ZETETIC LLC", "The Go Authors"} {
		if !bytes.Contains(b.licences, []byte(want)) {
			t.Errorf("the licences lack %q", want)
		}
	}
	dir := t.TempDir()
	linked, dirs := map[string]string{"x": "v1"}, map[string]string{"x": dir, "std": runtime.GOROOT()} //nolint:staticcheck // the tests run where they were built
	if _, err := licencesOf(linked, dirs); err == nil {
		t.Error("a module without a licence was taken")
	}
	if err := os.WriteFile(filepath.Join(dir, "LICENSE"), []byte("All rights reserved."), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := licencesOf(linked, dirs); err == nil {
		t.Error("a licence that nobody knows was taken")
	}
	if _, err := licencesOf(linked, map[string]string{"std": dirs["std"]}); err == nil {
		t.Error("a module that is not in the cache was taken")
	}
}

// TestDebianPackage installs the package into a root of its own, runs what is
// in it, and takes it away again.
func TestDebianPackage(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"dpkg", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is missing", tool)
		}
	}
	o, src, b := fresh(t)
	b.sandbox = builtSandbox(t)
	deb, err := o.debian(src, b)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := o.debian(src, b); err != nil || !bytes.Equal(deb, again) {
		t.Errorf("a second package differs, %v", err)
	}
	dir := t.TempDir()
	file, root := filepath.Join(dir, "osaurus.deb"), filepath.Join(dir, "root")
	if err := os.WriteFile(file, deb, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"info", "updates", "triggers"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", at), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"status", "available"} {
		if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dpkg := func(args ...string) string {
		t.Helper()
		// The root has no libc6 of its own; the program finds that of the machine.
		out, err := output(dir, nil, "dpkg", append([]string{"--root=" + root, "--log=" + filepath.Join(dir, "log"), "--force-not-root", "--force-depends", "--force-unsafe-io", "--force-script-chrootless"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	dpkg("--install", file)
	if out := dpkg("--status", "osaurus"); !strings.Contains(out, "Status: install ok installed") || !strings.Contains(out, "Depends: libc6 (>= 2.") {
		t.Error(out)
	}
	if out := dpkg("--verify", "osaurus"); out != "" {
		t.Errorf("what was installed does not verify: %s", out)
	}
	bin, home := filepath.Join(root, "usr/bin/osaurus"), filepath.Join(dir, "h")
	if out, err := output(dir, nil, bin, "version"); err != nil || out != "osaurus 1.2.3" {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := output(dir, nil, bin, "--home", home, "doctor"); err != nil || !strings.Contains(out, "There is no identity yet") {
		t.Errorf("%q, %v", out, err)
	}
	for _, name := range []string{"usr/share/man/man1/osaurus-serve.1.gz", "usr/lib/systemd/user/osaurus.service", "usr/share/bash-completion/completions/osaurus", "usr/share/doc/osaurus/copyright"} {
		if info, err := os.Stat(filepath.Join(root, name)); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if out, err := output(dir, nil, bin, "--home", home, "artifacts", "verify", "--json"); len(b.sandbox) > 0 && (err != nil || strings.Count(out, `"state":"ok"`) != len(shipped)) {
		t.Errorf("the installed program does not find what it came with: %s, %v", out, err)
	}
	dpkg("--purge", "osaurus")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/osaurus")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the program is still there: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "usr/*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDependsOnTheLibcItNeeds(t *testing.T) {
	t.Parallel()
	body, err := program()
	if err != nil {
		t.Fatal(err)
	}
	got, err := newestLibc(files{"osaurus": body})
	if v := numbers(got); err != nil || len(v) != 2 || v[0] != 2 || v[1] < 17 {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := newestLibc(files{"x": []byte("no program")}); err == nil {
		t.Error("a text was taken for a program")
	}
}

// TestUnits asks systemd whether it understands the units.
func TestUnits(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is missing")
	}
	dir := t.TempDir()
	for _, name := range []string{"osaurus.service", "osaurus-home.service"} {
		body, err := os.ReadFile(filepath.Join("../../resources/packaging", name))
		if err != nil {
			t.Fatal(err)
		}
		// Where nothing is installed, true stands in for the program.
		body = bytes.ReplaceAll(body, []byte("/usr/bin/osaurus "), []byte("/bin/true "))
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := exec.Command("systemd-analyze", "--user", "--man=no", "--recursive-errors=one", "verify", filepath.Join(dir, "osaurus.service"))
	verify.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
	if out, err := verify.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}

func TestPlist(t *testing.T) {
	t.Parallel()
	body, err := os.ReadFile("../../resources/packaging/org.osaurus.host.plist")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for d := xml.NewDecoder(bytes.NewReader(body)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := token.(xml.StartElement); ok && s.Name.Local == "key" {
			var key string
			if err := d.DecodeElement(&key, &s); err != nil {
				t.Fatal(err)
			}
			keys[key] = true
		}
	}
	for _, want := range []string{"Label", "ProgramArguments", "RunAtLoad", "KeepAlive", "Umask"} {
		if !keys[want] {
			t.Errorf("the plist lacks %s", want)
		}
	}
}

func TestFormula(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../resources/packaging/osaurus.rb")
	if err != nil {
		t.Fatal(err)
	}
	o := options{version: "1.2.3", baseURL: "https://example.invalid/d/"}
	got, err := o.formula(text, nil)
	if err != nil || !bytes.Contains(got, []byte(`url "https://example.invalid/d/osaurus-1.2.3-source.tar.gz"`)) || !bytes.Contains(got, []byte(`sha256 "e3b0c442`)) {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := o.formula([]byte("@OTHER@"), nil); err == nil {
		t.Error("a placeholder was left")
	}
	if ruby, err := exec.LookPath("ruby"); err == nil {
		cmd := exec.Command(ruby, "-c")
		cmd.Stdin = bytes.NewReader(got)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s", out)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"", "v1", "1.0-1", "1/0", "1 0"} {
		if versions.MatchString(v) {
			t.Errorf("%q was taken for a version", v)
		}
	}
	var o options
	if err := o.parsePlatforms("darwin/arm64"); err == nil || !strings.Contains(err.Error(), "darwin/arm64") {
		t.Errorf("%v", err)
	}
	repo := t.TempDir()
	for _, args := range [][]string{{"init", "-q"}, {"-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "--allow-empty", "-m", "x"}} {
		if _, err := output(repo, nil, "git", args...); err != nil {
			t.Fatal(err)
		}
	}
	if src, err := headOf(repo); err != nil || len(src.commit) != 40 || src.time.IsZero() {
		t.Errorf("%+v, %v", src, err)
	}
	if err := os.WriteFile(filepath.Join(repo, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := headOf(repo); err == nil {
		t.Error("a tree with changes was taken")
	}
}
