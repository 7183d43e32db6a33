package server

import "strings"

// target splits a request target into path and query as the URL standard
// (WHATWG) has them: dot segments resolved, backslashes turned, what may not
// stand there escaped, other escapes kept, the fragment gone. search begins
// with "?" or is empty.
func target(uri string) (path, search string) {
	if !strings.HasPrefix(uri, "/") {
		_, rest, absolute := strings.Cut(uri, "://")
		if at := strings.IndexAny(rest, `/\?#`); absolute && at >= 0 {
			uri = rest[at:]
		} else if absolute {
			uri = ""
		}
	}
	uri, _, _ = strings.Cut(uri, "#")
	path, query, _ := strings.Cut(uri, "?")
	path = resolve(path)
	if query = escape(query, queryEscapes); query != "" {
		search = "?" + query
	}
	return path, search
}

// What is escaped besides controls, blanks and what is not ASCII: the path
// and the special-query percent-encode sets.
const (
	pathEscapes  = "\"#<>?^`{}"
	queryEscapes = `"#<>'`
)

// resolve is the path state of the URL standard, for http.
func resolve(path string) string {
	if strings.HasPrefix(path, "/") || strings.HasPrefix(path, `\`) {
		path = path[1:]
	}
	var segments []string
	for {
		at := strings.IndexAny(path, `/\`)
		segment := path
		if at >= 0 {
			segment = path[:at]
		}
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case "..":
			segments = segments[:max(0, len(segments)-1)]
			if at < 0 {
				segments = append(segments, "")
			}
		case ".":
			if at < 0 {
				segments = append(segments, "")
			}
		default:
			segments = append(segments, escape(segment, pathEscapes))
		}
		if at < 0 {
			return "/" + strings.Join(segments, "/")
		}
		path = path[at+1:]
	}
}

func escape(s, also string) string {
	safe := func(c byte) bool { return c > ' ' && c < 0x7f && strings.IndexByte(also, c) < 0 }
	clean := true
	for i := range len(s) {
		clean = clean && safe(s[i])
	}
	if clean {
		return s
	}
	const digits = "0123456789ABCDEF"
	var out strings.Builder
	for _, c := range []byte(lossy([]byte(s))) {
		if safe(c) {
			out.WriteByte(c)
		} else {
			out.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return out.String()
}
