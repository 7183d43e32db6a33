package sandbox

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// DefaultSetupHosts are the package indexes of the guest, and GitHub with its
// object store.
var DefaultSetupHosts = []string{
	"dl-cdn.alpinelinux.org", "pypi.org", "files.pythonhosted.org", "registry.npmjs.org", "crates.io", "static.crates.io", "index.crates.io",
	"github.com", "raw.githubusercontent.com", "codeload.github.com", "objects.githubusercontent.com",
}

// urlHost finds the authority of every http address in a text.
var urlHost = regexp.MustCompile(`(?i)https?://([^\s/'"\x60<>|;&)\\?#]*)`)

// ForeignHost returns the first host of an http address in text that none of
// the patterns allows, "" when there is none. It is a lint over text, which a
// command can evade; the egress proxy is the control.
func ForeignHost(text string, patterns []string) string {
	for _, m := range urlHost.FindAllStringSubmatch(text, -1) {
		host := m[1]
		if at := strings.LastIndexByte(host, '@'); at >= 0 {
			host = host[at+1:] // user:password@host
		}
		if colon := strings.LastIndexByte(host, ':'); colon >= 0 && !strings.HasSuffix(host, "]") {
			host = host[:colon]
		}
		host = NormalHost(host)
		if !AllowedHost(host, patterns) {
			if host == "" {
				return m[0]
			}
			return host
		}
	}
	return ""
}

// NormalHost lower-cases a host name and drops the dot of the root.
func NormalHost(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }

// label is one part of a host name (RFC 1123).
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

const maxHost = 253 // characters of a name (RFC 1035 section 2.3.4)

// ValidPattern reports whether p, in lower case, can allow hosts: a name of at
// least two labels, or "*." and such a name. Addresses are none.
func ValidPattern(p string) bool {
	name := strings.TrimPrefix(p, "*.")
	if len(p) > maxHost {
		return false
	}
	labels := strings.Split(name, ".")
	if len(labels) < 2 || numeric(labels[len(labels)-1]) {
		return false
	}
	return !slices.ContainsFunc(labels, func(l string) bool { return !label.MatchString(l) })
}

// numeric reports what the last label of an address in any notation is:
// digits, or 0x and hex digits. No top-level domain is.
func numeric(l string) bool {
	return strings.Trim(l, "0123456789") == "" || strings.HasPrefix(l, "0x") && strings.Trim(l[2:], "0123456789abcdef") == ""
}

// AllowedHost reports whether a pattern allows a host: "example.com" itself,
// "*.example.com" every name below it and not itself. Addresses match nothing.
func AllowedHost(host string, patterns []string) bool {
	host = NormalHost(host)
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || !ValidPattern(host) || host[0] == '*' {
		return false
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		if below, wild := strings.CutPrefix(p, "*."); wild {
			return strings.HasSuffix(host, "."+below)
		}
		return host == p
	})
}

// NormalPatterns lower-cases, trims, sorts and dedupes patterns. ok is false
// when one is invalid or there is none.
func NormalPatterns(list []string) (patterns []string, ok bool) {
	for _, p := range list {
		p = strings.ToLower(strings.TrimSpace(p))
		if !ValidPattern(p) {
			return nil, false
		}
		patterns = append(patterns, p)
	}
	slices.Sort(patterns)
	return slices.Compact(patterns), len(patterns) > 0
}
