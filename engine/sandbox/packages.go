package sandbox

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of a request for packages.
const (
	MaxPackages       = 32
	MaxSpecifier      = 256               // characters
	SystemPackageTime = 120 * time.Second // that apk may be silent
	ScriptPackageTime = 240 * time.Second // that a setup may be, with its pip or npm
)

// QuotePackages checks package specifiers and quotes each as one word of a
// POSIX shell. None can be taken for an option.
func QuotePackages(list []string) ([]string, error) {
	if len(list) == 0 || len(list) > MaxPackages {
		return nil, fmt.Errorf("name between 1 and %d packages", MaxPackages)
	}
	quoted := make([]string, 0, len(list))
	for i, s := range list {
		s = strings.TrimSpace(s)
		switch {
		case s == "":
			return nil, fmt.Errorf("package %d is empty", i+1)
		case utf8.RuneCountInString(s) > MaxSpecifier:
			return nil, fmt.Errorf("package %d has more than %d characters", i+1, MaxSpecifier)
		case s[0] == '-':
			return nil, fmt.Errorf("package %d begins with a dash", i+1)
		case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
			return nil, fmt.Errorf("package %d contains a control character", i+1)
		}
		quoted = append(quoted, Quote(s))
	}
	return quoted, nil
}

// Quote makes s one word of a POSIX shell.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
