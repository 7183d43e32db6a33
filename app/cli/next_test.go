package cli

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"osaurus/engine/control"
	"osaurus/engine/fault"
)

// told finds commands in texts that people read: at the start of a line, after
// two spaces, or after a colon.
var told = regexp.MustCompile("(?m)(?:^|  |: |`)osaurus ([^\n;,()…`]*)")

// word is one word of a shell, quoted or not.
var word = regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s]+`)

// prose begins like a command and is none.
var prose = []string{"keeps your identity", "%s", "X"}

// checkCommand says what is wrong with a command that somebody is told to type.
func checkCommand(line string) error {
	var words []string
	for _, w := range word.FindAllString(line, -1) {
		if w == "<" || w == "or" || w == "|" {
			break
		}
		if w != "--help" && w != "--X" { // each command has the one; the other is known at run time
			words = append(words, strings.Trim(w, `"'`))
		}
	}
	root := tree()
	c, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if strings.HasSuffix(line, "--help") {
		return nil // arguments may be missing
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	args := c.Flags().Args()
	if c.HasSubCommands() && len(args) > 0 {
		return fmt.Errorf("%s has no %s", c.CommandPath(), args[0])
	}
	return c.ValidateArgs(args)
}

// folded is a string expression with X for what is known only at run time.
func folded(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return text
		}
	case *ast.BinaryExpr:
		return folded(e.X) + folded(e.Y)
	case *ast.ParenExpr:
		return folded(e.X)
	}
	return "X"
}

// strs calls f with every string of a file, sums of strings as one.
func strs(file ast.Node, f func(ast.Expr, string)) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			if n.Op == token.ADD && strings.Trim(folded(n), "X") != "" {
				f(n, folded(n))
				return false
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				f(n, folded(n))
			}
		}
		return true
	})
}

func parsed(t *testing.T, dirs ...string) map[string]*ast.File {
	t.Helper()
	all := map[string]*ast.File{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			all[path], err = parser.ParseFile(token.NewFileSet(), path, nil, 0)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestCommandsThatPeopleAreTold types every command that stands in a text of
// the engine or of the command line.
func TestCommandsThatPeopleAreTold(t *testing.T) {
	t.Parallel()
	count := 0
	for path, file := range parsed(t, "../../engine", ".") {
		strs(file, func(_ ast.Expr, text string) {
		next:
			for _, m := range told.FindAllStringSubmatch(text, -1) {
				for _, p := range prose {
					if strings.HasPrefix(m[1], p) {
						continue next
					}
				}
				count++
				if err := checkCommand(m[1]); err != nil {
					t.Errorf("%s: \"osaurus %s\": %v", path, m[1], err)
				}
			}
		})
	}
	if count < 60 {
		t.Errorf("only %d commands were found", count)
	}
	for _, bad := range []string{"statuses", "agents create", "doctor --anyhow", "identity drift now"} {
		if err := checkCommand(bad); err == nil {
			t.Errorf("osaurus %s was taken for a command", bad)
		}
	}
}

// TestFindingsAreWhole: whatever is not well is explained, and has a remedy.
func TestFindingsAreWhole(t *testing.T) {
	t.Parallel()
	count := 0
	for path, file := range parsed(t, "../../engine") {
		ast.Inspect(file, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			list := []ast.Expr{lit}
			if a, ok := lit.Type.(*ast.ArrayType); ok && named(a.Elt) {
				list = lit.Elts
			} else if !named(lit.Type) {
				return true
			}
			for _, e := range list {
				if f, ok := e.(*ast.CompositeLit); ok && len(f.Elts) > 0 {
					count++
					whole(t, path, f)
				}
			}
			return true
		})
	}
	if count < 20 {
		t.Errorf("only %d findings were looked at", count)
	}
}

func named(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == "Finding"
}

func whole(t *testing.T, path string, f *ast.CompositeLit) {
	t.Helper()
	fields := map[string]string{}
	for i, e := range f.Elts {
		name, value := []string{"ID", "Level", "Title", "Text", "Next"}[i], e
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			name, value = fmt.Sprint(kv.Key), kv.Value
		}
		fields[name] = folded(value)
	}
	switch level := fields["Level"]; {
	case fields["ID"] == "" || fields["Title"] == "":
		t.Errorf("%s: a finding without a name: %v", path, fields)
	case level == "ok":
	case level != "warning" && level != "error":
		t.Errorf("%s: %s has the level %q", path, fields["Title"], level)
	case fields["Text"] == "" || fields["Next"] == "":
		t.Errorf("%s: %q is not explained, or has no remedy", path, fields["Title"])
	}
}

// TestEveryRefusalHasANextStep walks the closed set of outcomes.
func TestEveryRefusalHasANextStep(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	if exit, code, next := classify(&control.Error{Message: "x", Exit: exitFailed}); exit != exitFailed || code != "failed" || next == "" {
		t.Errorf("an error that another host did not name: %d, %q, %q", exit, code, next)
	}
	for code := fault.Code(1); code < 512; code++ {
		name := code.Name()
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		next := nextFor(name)
		if next == "" {
			t.Errorf("%s has no next step", name)
		}
		if exit, _, _ := classify(code); exit < exitFailed || exit > exitConfirm {
			t.Errorf("%s ends with %d", name, exit)
		}
	}
	if len(seen) < 40 {
		t.Errorf("only %d outcomes were looked at", len(seen))
	}
}
