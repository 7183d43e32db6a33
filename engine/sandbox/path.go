package sandbox

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// PathError says why a path was refused, in words for a model.
type PathError struct {
	Reason PathReason
	Char   rune // with PathCharacter
}

// PathReason is one of a closed set.
type PathReason uint8

// The reasons, in the order of the checks.
const (
	invalidPathReason PathReason = iota
	PathEmpty
	PathTraversal
	PathNUL
	PathCharacter
	PathOutside
)

// Error returns the text.
func (e *PathError) Error() string {
	switch e.Reason {
	case PathEmpty:
		return "path is empty"
	case PathTraversal:
		return "path contains `..` (path traversal not allowed)"
	case PathNUL:
		return "path contains a NUL byte"
	case PathCharacter:
		if unicode.IsControl(e.Char) || e.Char == utf8.RuneError {
			return "path contains a control character"
		}
		return "path contains the disallowed character `" + string(e.Char) + "`"
	case PathOutside:
		return "absolute path is outside the agent home and `/workspace/shared`"
	}
	return "path is invalid"
}

// shellCharacters would mean something to a shell.
const shellCharacters = ";|&$`(){}'\"\\"

// Sanitize turns what a model gave as a path into an absolute path of the
// guest, inside home or SharedDir. It is lexical: host code that follows such
// a path must open it below an os.Root, since an agent can plant links.
func Sanitize(p, home string) (string, error) {
	switch {
	case p == "":
		return "", &PathError{Reason: PathEmpty}
	case strings.Contains(p, ".."):
		return "", &PathError{Reason: PathTraversal}
	case strings.IndexByte(p, 0) >= 0:
		return "", &PathError{Reason: PathNUL}
	}
	for _, r := range p {
		if strings.ContainsRune(shellCharacters, r) || unicode.IsControl(r) || r == utf8.RuneError || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			return "", &PathError{Reason: PathCharacter, Char: r}
		}
	}
	switch {
	case p == "~":
		return home, nil
	case strings.HasPrefix(p, "~/"):
		return home + "/" + p[2:], nil
	case strings.HasPrefix(p, "/"):
		if !within(p, home) && !within(p, SharedDir) {
			return "", &PathError{Reason: PathOutside}
		}
		return p, nil
	}
	return home + "/" + p, nil
}

// within compares whole components: /a/bc is not within /a/b.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, dir+"/")
}
