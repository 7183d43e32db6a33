package server

import (
	"strings"
	"testing"
)

// TestTarget: what the URL standard makes of request targets.
func TestTarget(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/":                           "/",
		"/a/b?x=1":                    "/a/b?x=1",
		"":                            "/",
		"/a/./b":                      "/a/b",
		"/a/../b":                     "/b",
		"/a/b/..":                     "/a/",
		"/a/b/.":                      "/a/b/",
		"/../../x":                    "/x",
		"/..":                         "/",
		"/a/%2e%2e/b":                 "/b",
		"/a/%2E./b":                   "/b",
		"/a/.%2e/b":                   "/b",
		"/a/%2e/b":                    "/a/b",
		"/a/...":                      "/a/...",
		`/a\b\..\c`:                   "/a/c",
		"/a%2Fb":                      "/a%2Fb",
		"/a%2fb%5c":                   "/a%2fb%5c",
		"//evil.com/z":                "//evil.com/z",
		"/a//b":                       "/a//b",
		"/a//../b":                    "/a/b",
		"/a#frag":                     "/a",
		"/a?b#frag":                   "/a?b",
		"/a#x?y":                      "/a",
		"/a?":                         "/a",
		"/a??":                        "/a??",
		"/a?../b\\c":                  "/a?../b\\c",
		"/a b":                        "/a%20b",
		"/a\"<>`{}^|":                 "/a%22%3C%3E%60%7B%7D%5E|",
		"/a?b'\"<>`{}":                "/a?b%27%22%3C%3E`{}",
		"/é":                          "/%C3%A9",
		"/a?é":                        "/a?%C3%A9",
		"/\xff":                       "/%EF%BF%BD",
		"/%zz%":                       "/%zz%",
		"http://x.test/a/../b?c":      "/b?c",
		"http://x.test":               "/",
		"http://x.test?q":             "/?q",
		"*":                           "/*",
		"/" + strings.Repeat("a/", 3): "/a/a/a/",
	} {
		path, search := target(in)
		if got := path + search; got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/a/../b?x#y", `\..\`, "//evil", "/%2e%2E/\xff", "http://h/..", "?"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		path, search := target(uri)
		if !strings.HasPrefix(path, "/") || search != "" && !strings.HasPrefix(search, "?") || strings.ContainsAny(path+search, "# \r\n\\\x00") && strings.ContainsAny(path, "# \r\n\\\x00") {
			t.Errorf("%q became %q %q", uri, path, search)
		}
		for segment := range strings.SplitSeq(path[1:], "/") {
			if segment == ".." || segment == "." {
				t.Errorf("%q keeps a dot segment: %q", uri, path)
			}
		}
		if p, s := target(path + search); p != path || s != search {
			t.Errorf("%q: %q %q is not normal: %q %q", uri, path, search, p, s)
		}
	})
}

// TestDecode: the encoding standard's replacement.
func TestDecode(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                     "",
		"héllo":                "héllo",
		"\ufeffx":              "x",
		"\ufeff\ufeffx":        "\ufeffx",
		"x\ufeff":              "x\ufeff",
		"a\xffb":               "a\ufffdb",
		"\xff\xfe":             "\ufffd\ufffd",
		"\xe2\x82":             "\ufffd",
		"\xe2\x82z":            "\ufffdz",
		"\xf0\x9f\x98":         "\ufffd",
		"\xed\xa0\x80":         "\ufffd\ufffd\ufffd",
		"\xc0\xaf":             "\ufffd\ufffd",
		"\xf4\x90\x80\x80":     "\ufffd\ufffd\ufffd\ufffd",
		"\xef\xbb":             "\ufffd",
		"ok\x00\x01":           "ok\x00\x01",
		"\xe2\x82\xe2\x82\xac": "\ufffd€",
	} {
		if got := decode([]byte(in)); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := fromLatin1("caf\xe9"); got != "café" {
		t.Errorf("%q", got)
	}
	if got, ok := toLatin1("café"); !ok || got != "caf\xe9" {
		t.Errorf("%q %v", got, ok)
	}
	if _, ok := toLatin1("€"); ok {
		t.Error("a euro sign is no byte")
	}
}
