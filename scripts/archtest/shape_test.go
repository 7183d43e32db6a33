package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The bar for size. A function over maxFunc needs a row in longFuncs with the
// reason, which only a table or a switch over a closed set can have.
const (
	maxFile       = 700
	maxEngineFile = 450
	maxFunc       = 90
	medianFunc    = 12
	p90Func       = 45
)

var longFuncs = map[string]string{}

type source struct {
	path string // relative to the root
	text []byte
	file *ast.File
	fset *token.FileSet
}

func (s source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

func sources(t *testing.T) []source {
	t.Helper()
	top := root(t)
	var all []source
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, path)
		if d.IsDir() {
			if name := d.Name(); rel != "." && (strings.HasPrefix(name, ".") || name == "build" || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, text, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{rel, text, file, fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestFormatted(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		want, err := format.Source(s.text)
		if err != nil || !bytes.Equal(want, s.text) {
			t.Errorf("%s: gofmt differs", s.path)
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	var lengths []int
	for _, s := range sources(t) {
		lines := bytes.Count(s.text, []byte("\n"))
		limit := maxFile
		if strings.HasPrefix(s.path, "engine/") && !s.test() {
			limit = maxEngineFile
		}
		if lines > limit && !s.test() {
			t.Errorf("%s: %d lines, the limit is %d", s.path, lines, limit)
		}
		if s.test() {
			continue
		}
		for _, d := range s.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			n := s.fset.Position(fn.End()).Line - s.fset.Position(fn.Pos()).Line + 1
			lengths = append(lengths, n)
			where := fmt.Sprintf("%s:%s", s.path, fn.Name.Name)
			if n > maxFunc && longFuncs[where] == "" {
				t.Errorf("%s: %d lines, the limit is %d", where, n, maxFunc)
			}
		}
	}
	slices.Sort(lengths)
	if m := lengths[len(lengths)/2]; m > medianFunc {
		t.Errorf("median function length %d, the bar is %d", m, medianFunc)
	}
	if p := lengths[len(lengths)*9/10]; p > p90Func {
		t.Errorf("90th percentile of function length %d, the bar is %d", p, p90Func)
	}
}

func TestEveryExportedNameIsDocumented(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, d := range s.file.Decls {
			for _, name := range undocumented(d) {
				t.Errorf("%s: exported %s has no doc comment", s.path, name)
			}
		}
	}
}

func undocumented(d ast.Decl) []string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && exportedReceiver(d) && d.Doc == nil {
			return []string{d.Name.Name}
		}
	case *ast.GenDecl:
		var names []string
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil {
					names = append(names, spec.Name.Name)
				}
			case *ast.ValueSpec:
				// A comment on the group or on the line serves its members.
				if spec.Names[0].IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
					names = append(names, spec.Names[0].Name)
				}
			}
		}
		return names
	}
	return nil
}

func exportedReceiver(fn *ast.FuncDecl) bool {
	if fn.Recv == nil {
		return true
	}
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if idx, ok := typ.(*ast.IndexExpr); ok {
		typ = idx.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

func TestOnePackageComment(t *testing.T) {
	t.Parallel()
	count := map[string]int{}
	for _, s := range sources(t) {
		dir := filepath.Dir(s.path)
		if s.test() {
			continue
		}
		count[dir] += 0
		if s.file.Doc != nil {
			count[dir]++
			if !s.test() && s.file.Name.Name != "main" && !strings.HasPrefix(s.file.Doc.Text(), "Package "+s.file.Name.Name) {
				t.Errorf("%s: the package comment does not begin \"Package %s\"", s.path, s.file.Name.Name)
			}
		}
	}
	for dir, n := range count {
		if n != 1 {
			t.Errorf("%s has %d package comments, want 1", dir, n)
		}
	}
}

// TestHabits greps for what the house rules forbid outright.
func TestHabits(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.path == "scripts/archtest/shape_test.go" {
			continue
		}
		text := string(s.text)
		rules := []struct {
			bad, why string
			applies  bool
		}{
			{"time.Sleep(", "tests and engine wait on events or fake time", s.test() || strings.HasPrefix(s.path, "engine/")},
			{"runtime.GOOS", "a platform difference is a port with adapters", strings.HasPrefix(s.path, "engine/")},
			{"TO" + "DO", "open work belongs to the issue tracker", true},
			{"FIX" + "ME", "open work belongs to the issue tracker", true},
			{"os.Getenv(", "the environment is read in app only", strings.HasPrefix(s.path, "engine/") && !s.test()},
		}
		for _, r := range rules {
			if r.applies && strings.Contains(text, r.bad) {
				t.Errorf("%s: contains %s: %s", s.path, r.bad, r.why)
			}
		}
	}
}

// TestProtocolDocuments wants each protocol package to carry its own text and
// vectors, and its sources to cite a specification.
func TestProtocolDocuments(t *testing.T) {
	t.Parallel()
	for _, pkg := range []string{"identity", "accesskey", "channel", "pairing", "discovery", "relay", "server"} {
		dir := filepath.Join(root(t), "engine", pkg)
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("engine/%s is missing", pkg)
			continue
		}
		doc, err := os.ReadFile(filepath.Join(dir, "PROTOCOL.md"))
		if err != nil || !bytes.Contains(doc, []byte("\n## 1")) {
			t.Errorf("engine/%s has no PROTOCOL.md with numbered sections", pkg)
		}
		if found, _ := filepath.Glob(filepath.Join(dir, "testdata", "vectors", "*.json")); len(found) == 0 {
			t.Errorf("engine/%s has no vectors", pkg)
		}
		cited := false
		for _, s := range sources(t) {
			cited = cited || strings.HasPrefix(s.path, "engine/"+pkg+"/") && bytes.Contains(s.text, []byte("PROTOCOL.md section"))
		}
		if !cited {
			t.Errorf("engine/%s: no comment cites a \"PROTOCOL.md section\"", pkg)
		}
	}
}

// TestModuleFile keeps go.mod free of replacements.
func TestModuleFile(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile(filepath.Join(root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mod, []byte("replace ")) {
		t.Error("go.mod replaces a module")
	}
}

var namedTests = regexp.MustCompile("`([a-z/]+)`\\s((?:(?:Test|Fuzz)[A-Za-z0-9]+(?:, )?)+)")

// TestSecurityNamesItsTests keeps every test that SECURITY.md leans on.
func TestSecurityNamesItsTests(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root(t), "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := namedTests.FindAllStringSubmatch(string(text), -1)
	if len(found) == 0 {
		t.Fatal("SECURITY.md names no test")
	}
	for _, sentence := range unheld(string(text)) {
		t.Errorf("SECURITY.md has no test for %q", sentence)
	}
	for _, m := range found {
		files, err := filepath.Glob(filepath.Join(root(t), m[1], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var source []byte
		for _, f := range files {
			part, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			source = append(source, part...)
		}
		for name := range strings.SplitSeq(strings.TrimSuffix(m[2], ", "), ", ") {
			if !bytes.Contains(source, []byte("\nfunc "+name+"(")) {
				t.Errorf("SECURITY.md names %s of %s, which is not there", name, m[1])
			}
		}
	}
}

var (
	threat    = regexp.MustCompile(`(?m)^\|[^|\n]+\|[^|\n]+\|.*$`)
	admission = regexp.MustCompile(`(?m)^- [^\n]+(?:\n  [^\n]+)*`)
	suite     = regexp.MustCompile("suite `[a-z-]+`")
)

// unheld returns the rows of SECURITY.md's tables and what it says plainly that
// name no test.
func unheld(text string) (bad []string) {
	for _, row := range threat.FindAllString(text, -1) {
		head := strings.HasPrefix(row, "|---") || strings.Contains(row, "| held by |")
		if !head && !namedTests.MatchString(row) {
			bad = append(bad, row)
		}
	}
	_, plainly, _ := strings.Cut(text, "Said plainly:")
	plainly, _, _ = strings.Cut(plainly, "\n## ")
	for _, said := range admission.FindAllString(plainly, -1) {
		if !namedTests.MatchString(said) && !suite.MatchString(said) {
			bad = append(bad, said)
		}
	}
	return bad
}

// TestUnheldFinds plants rows without a test.
func TestUnheldFinds(t *testing.T) {
	t.Parallel()
	const text = "| attacker | can | held by |\n|---|---|---|\n| a | b | `engine` TestX |\n| c | d | nobody |\n\nSaid plainly:\n\n- one\n  (`engine` TestX)\n- two\n  lines\n- three (suite `darwin-types`)\n\n## Next\n\n- four\n"
	if got := unheld(text); len(got) != 2 || !strings.Contains(got[0], "nobody") || !strings.HasPrefix(got[1], "- two") {
		t.Errorf("%q", got)
	}
}
