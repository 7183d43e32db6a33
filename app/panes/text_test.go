package panes

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	keyLike     = regexp.MustCompile(`^[a-z]+(\.[a-z0-9]+)+$`)
	inTemplate  = regexp.MustCompile(`\{\{\s*t "([^"]+)"`)
	placeholder = regexp.MustCompile(`\{[a-z]+\}`)
	notTexts    = map[string]bool{"shell.html": true, "page.css": true, "page.js": true, "settings.html": true}
)

// literals lists the strings in the code and templates that look like a text's
// key, with where they stand.
func literals(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range []string{".", "../page", "../appkit"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if s, err := strconv.Unquote(lit.Value); err == nil && keyLike.MatchString(s) && !notTexts[s] {
						found[s] = name
					}
				}
				return true
			})
		}
	}
	pages, err := filepath.Glob("../../resources/page/*.html")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	for _, name := range pages {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range inTemplate.FindAllSubmatch(raw, -1) {
			found[string(m[1])] = name
		}
	}
	return found
}

func TestEveryTextExistsAndIsUsed(t *testing.T) {
	t.Parallel()
	all := english()
	used := map[string]bool{}
	for key, where := range literals(t) {
		_, plain := all[key]
		_, one := all[key+".one"]
		_, other := all[key+".other"]
		if !plain && (!one || !other) {
			t.Errorf("%s: there is no text %s", where, key)
		}
		used[key], used[key+".one"], used[key+".other"] = true, one, other
	}
	for key, text := range all {
		if !used[key] {
			t.Errorf("nothing uses %s", key)
		}
		if strings.TrimSpace(text) != text || text == "" {
			t.Errorf("%s is %q", key, text)
		}
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	m := &Model{texts: textsFor("xx-YY")} // no such language: English
	if got := m.n("agents.keys", 1); got != "1 active key" {
		t.Error(got)
	}
	if got := m.n("agents.keys", 0); got != "0 active keys" {
		t.Error(got)
	}
	if got := m.t("peers.forget.title", "name", "{id} {name}"); got != "Forget {id} {name}?" {
		t.Errorf("a value is taken for a placeholder: %s", got)
	}
	if got := m.Text("approval.left", "n", "7"); placeholder.MatchString(got) {
		t.Error(got)
	}
}
