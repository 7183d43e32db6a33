package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// native lists what engine never imports: it must build and pass its tests on
// a machine that is no Mac.
var native = []string{
	"github.com/progrium/darwinkit",
	"github.com/keybase/go-keychain",
	"github.com/Code-Hex/vz",
	"github.com/godbus/dbus",
}

// cgoAllowed is where "C" may be imported: the bridge and the SQL crypto
// provider. The SQL driver itself is another module.
var cgoAllowed = []string{"bridge/...", "engine/storage/cipher"}

type policy struct {
	allowed map[string][]string // pattern -> patterns it may import
	tests   map[string][]string // the same, for test files only
}

func parsePolicy(text string) (policy, error) {
	p := policy{allowed: map[string][]string{}, tests: map[string][]string{}}
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		from, to, ok := strings.Cut(line, ":")
		if !ok {
			return policy{}, fmt.Errorf("policy.txt:%d: want \"packages: imports\"", i+1)
		}
		into := p.allowed
		if rest, ok := strings.CutPrefix(from, "tests "); ok {
			into, from = p.tests, rest
		}
		for _, f := range strings.Fields(from) {
			into[f] = append(into[f], strings.Fields(to)...)
		}
	}
	return p, nil
}

// matches reports whether pattern ("a/b", "a/..." or "*") covers name.
func matches(pattern, name string) bool {
	if pattern == "*" {
		return true
	}
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == prefix || strings.HasPrefix(name, prefix+"/")
	}
	return name == pattern
}

func (p policy) violations(all []listed) []string {
	var found []string
	for _, pkg := range all {
		name := pkg.name()
		var may []string
		known := false
		for from, to := range p.allowed {
			if matches(from, name) {
				known = known || from != "*"
				may = append(may, to...)
			}
		}
		if !known {
			found = append(found, fmt.Sprintf("%s: no rule in policy.txt names this package", name))
		}
		// A package's own test package and test helpers below it are its own.
		own := func(imp string) bool { return imp == name || strings.HasPrefix(imp, name+"/") }
		check := func(imports []string, may []string) {
			for _, imp := range imports {
				if problem := importProblem(name, imp, may, own); problem != "" {
					found = append(found, problem)
				}
			}
		}
		check(pkg.Imports, may)
		for from, to := range p.tests {
			if matches(from, name) {
				may = append(may, to...)
			}
		}
		check(slices.Concat(pkg.TestImports, pkg.XTestImports), may)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func importProblem(name, imp string, may []string, own func(string) bool) string {
	engine := matches("engine/...", name)
	if imp == "C" && !slices.ContainsFunc(cgoAllowed, func(w string) bool { return matches(w, name) }) {
		return fmt.Sprintf("%s: cgo is allowed in %v only", name, cgoAllowed)
	}
	for _, lib := range native {
		if engine && (imp == lib || strings.HasPrefix(imp, lib+"/")) {
			return fmt.Sprintf("%s: engine imports nothing native, and %s is", name, imp)
		}
	}
	inside, ok := strings.CutPrefix(imp, module+"/")
	if !ok && imp == module {
		inside, ok = "", true
	}
	if !ok || own(inside) || slices.ContainsFunc(may, func(m string) bool { return matches(m, inside) }) {
		return ""
	}
	return fmt.Sprintf("%s must not import %s", name, inside)
}
