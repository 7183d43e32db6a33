package server

import (
	"net/http"
	"slices"
	"strings"
)

// allowOrigin returns what Access-Control-Allow-Origin says; "" for nothing.
// An origin of this machine is only echoed to trusted loopback.
func allowOrigin(list []string, origin string, trusted bool) (value string, vary bool) {
	switch {
	case slices.Contains(list, "*"):
		return "*", false
	case origin == "":
		return "", false
	case slices.Contains(list, origin), trusted && loopbackOrigin(origin):
		return origin, true
	}
	return "", false
}

func setCORS(h http.Header, list []string, origin string, trusted bool) bool {
	value, vary := allowOrigin(list, origin, trusted)
	if value == "" {
		return false
	}
	h.Set("Access-Control-Allow-Origin", value)
	if vary {
		h.Add("Vary", "Origin")
	}
	return true
}

const corsMethods = "GET, POST, PUT, DELETE, OPTIONS"

// preflight answers OPTIONS: 204 with CORS headers or none.
func preflight(w http.ResponseWriter, r *http.Request, list []string, trusted bool) {
	if setCORS(w.Header(), list, r.Header.Get("Origin"), trusted) {
		w.Header().Set("Access-Control-Allow-Methods", corsMethods)
		w.Header().Set("Access-Control-Allow-Headers", allowHeaders(r.Header.Get("Access-Control-Request-Headers")))
		w.Header().Set("Access-Control-Max-Age", corsMaxAge)
	}
	w.WriteHeader(http.StatusNoContent)
}

// allowHeaders echoes what was asked for, token characters only (RFC 9110
// section 5.6.2).
func allowHeaders(asked string) string {
	var names []string
	for name := range strings.SplitSeq(asked, ",") {
		name = strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r) {
				return r
			}
			return -1
		}, name)
		if name != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "Authorization, Content-Type"
	}
	return strings.Join(names, ", ")
}
