package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "osaurus"

// listed is what the tests need of "go list -json".
type listed struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	CgoFiles     []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Incomplete   bool
	Error        *struct{ Err string }
}

func (p listed) name() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// packages lists the module as one system would build it.
func packages(t *testing.T, goos, goarch string) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json", "./...")
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		t.Fatal("go list found no package")
	}
	return all
}

var systems = []struct{ goos, goarch string }{{"linux", "amd64"}, {"darwin", "arm64"}}

func TestImportDirections(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("policy.txt")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := parsePolicy(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, sys := range systems {
		t.Run(sys.goos, func(t *testing.T) {
			t.Parallel()
			all := packages(t, sys.goos, sys.goarch)
			for _, problem := range rules.violations(all) {
				t.Error(problem)
			}
		})
	}
}

// TestPolicyCanFail plants broken imports and expects each to be reported.
func TestPolicyCanFail(t *testing.T) {
	t.Parallel()
	rules, err := parsePolicy("*: engine/secret\nengine/secret:\nengine/a: engine/b\nengine/b:\ntests engine/...: engine/...\napp/...: engine/... app/...\n")
	if err != nil {
		t.Fatal(err)
	}
	bad := []listed{
		{ImportPath: "osaurus/engine/b", Imports: []string{"osaurus/engine/a"}},
		{ImportPath: "osaurus/engine/a", Imports: []string{"osaurus/app/cli"}},
		{ImportPath: "osaurus/engine/unknown", Imports: []string{"osaurus/engine/a"}},
		{ImportPath: "osaurus/engine/a", TestImports: []string{"osaurus/app/cli"}},
		{ImportPath: "osaurus/engine/a", Imports: []string{"C"}},
		{ImportPath: "osaurus/engine/a", Imports: []string{"github.com/progrium/darwinkit/objc"}},
	}
	for _, p := range bad {
		if len(rules.violations([]listed{p})) == 0 {
			t.Errorf("%s importing %v%v was not reported", p.ImportPath, p.Imports, p.TestImports)
		}
	}
	good := []listed{
		{ImportPath: "osaurus/engine/a", Imports: []string{"osaurus/engine/b", "osaurus/engine/secret", "fmt"}},
		{ImportPath: "osaurus/engine/b", XTestImports: []string{"osaurus/engine/a"}},
		{ImportPath: "osaurus/app/cli", Imports: []string{"osaurus/engine/a"}},
	}
	if got := rules.violations(good); len(got) != 0 {
		t.Errorf("allowed imports were reported: %v", got)
	}
	if _, err := parsePolicy("engine/a engine/b"); err == nil {
		t.Error("a rule without a colon was accepted")
	}
}

// TestOnePlaceForEach pins the libraries that only one package may touch.
func TestOnePlaceForEach(t *testing.T) {
	t.Parallel()
	only := map[string][]string{
		"github.com/mutecomm/go-sqlcipher/v4":       {"engine/storage/..."},
		"github.com/decred/dcrd/dcrec/secp256k1/v4": {"engine/signature"},
		"github.com/tyler-smith/go-bip39":           {"engine/identity"},
		"github.com/cloudflare/circl/hpke":          {"engine/pairing"},
		"github.com/brutella/dnssd":                 {"engine/discovery/..."},
		"github.com/keybase/go-keychain":            {"bridge/..."},
		"github.com/progrium/darwinkit":             {"app/..."},
		"github.com/spf13/cobra":                    {"app/..."},
	}
	// Nothing that speaks to a network can hold the storage key (decisions C23).
	only["osaurus/engine/storage/dek"] = []string{"engine/storage", "engine/storage/..."}
	for _, sys := range systems {
		for _, p := range packages(t, sys.goos, sys.goarch) {
			for _, imp := range p.Imports {
				for lib, where := range only {
					if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !slices.ContainsFunc(where, func(w string) bool { return matches(w, p.name()) }) {
						t.Errorf("%s: %s imports %s; only %v may", sys.goos, p.name(), imp, where)
					}
				}
			}
		}
	}
}
