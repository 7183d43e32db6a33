package server

import "strings"

// prefixes that may stand before a route; one comes off, tried in this order.
var prefixes = []string{"/v1/api", "/api", "/v1"}

// normalise cuts the query and takes one prefix off at a segment boundary.
// Nothing is decoded and no slash is folded (PROTOCOL.md section 1).
func normalise(target string) string {
	path, _, _ := strings.Cut(target, "?")
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(path, p); ok && (rest == "" || rest[0] == '/') {
			if rest == "" {
				return "/"
			}
			return rest
		}
	}
	return path
}

// public paths need no key.
func public(path string) bool {
	switch path {
	case "/", "/health", "/pair", "/pair/challenge", "/pair-invite", "/secure/session":
		return true
	}
	return false
}

// bodyLimit is how many bytes a route takes.
func bodyLimit(path string) int64 {
	switch path {
	case "/pair", "/pair/challenge", "/pair-invite", "/secure/session":
		return MaxPairingBody
	}
	return MaxBody
}

// needsChannel reports the routes of PROTOCOL.md section 5: run and dispatch.
func needsChannel(method, path string) bool {
	_, verb, ok := agentRoute(path)
	return ok && method == "POST" && (verb == "run" || verb == "dispatch")
}

// agentRoute splits /agents/{id} and /agents/{id}/{verb}. No slash is folded:
// /agents/{id}/ is neither.
func agentRoute(path string) (id, verb string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/agents/")
	if !ok || rest == "" {
		return "", "", false
	}
	id, verb, more := strings.Cut(rest, "/")
	return id, verb, id != "" && (verb != "" || !more)
}

func inference(path string) bool { return path == "/chat/completions" }

func admin(path string) bool { return path == "/admin" || strings.HasPrefix(path, "/admin/") }
