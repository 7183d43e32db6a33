package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// written is a request on the wire, and whether it gives its length twice.
func written(t *rapid.T) (text string, twice bool) {
	body := rapid.StringMatching(`[a-z\r\n :]{0,40}`).Draw(t, "body")
	line := rapid.SampledFrom([]string{"POST /x HTTP/1.1\r\n", "\r\nPOST /x HTTP/1.1\r\n", "POST /" + strings.Repeat("y", 300) + " HTTP/1.1\n"}).Draw(t, "line")
	other := rapid.SampledFrom([]string{"", "A: b\r\n", "A: b\r\n\tc\r\n", "X-Content-Length: 7\n", "Z: " + strings.Repeat("z", 300) + "\r\n"}).Draw(t, "other")
	length := rapid.SampledFrom([]string{"Content-Length: %d\r\n", "content-length:%d \n"}).Draw(t, "length")
	const chunked = "Transfer-Encoding: chunked\r\n"
	chunks := ""
	for rest := body; rest != ""; {
		n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
		chunks += fmt.Sprintf("%x;a=b\r\n%s\r\n", n, rest[:n])
		rest = rest[n:]
	}
	chunks += rapid.SampledFrom([]string{"0\r\n\r\n", "000\r\nT: 1\r\n\r\n"}).Draw(t, "last")
	switch rapid.SampledFrom([]string{"none", "sized", "chunked", "both", "both"}).Draw(t, "kind") {
	case "sized":
		return line + fmt.Sprintf(length, len(body)) + other + "\r\n" + body, false
	case "chunked":
		return line + chunked + other + "\r\n" + chunks, false
	case "both":
		return line + chunked + other + fmt.Sprintf(length, len(body)) + "\r\n" + chunks, true
	}
	return line + other + "\r\n", false
}

// TestFraming: in whatever pieces requests arrive, the first that gives its
// length twice is found, and no other before it.
func TestFraming(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var text string
		odd := 0
		n := rapid.IntRange(1, 6).Draw(t, "requests")
		for i := range n {
			one, twice := written(t)
			text += one
			if twice && odd == 0 {
				odd = i + 1
			}
		}
		var f framing
		for rest := text; rest != ""; {
			k := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			f.feed([]byte(rest[:k]))
			rest = rest[k:]
		}
		for i := 1; i <= n; i++ {
			if want := odd > 0 && i >= odd; f.refuses(int64(i)) != want {
				t.Fatalf("request %d of %q: refused is %v", i, text, !want)
			}
		}
	})
}

// TestFramingLost: what cannot be followed is refused from there on.
func TestFramingLost(t *testing.T) {
	t.Parallel()
	for text, first := range map[string]int64{
		"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n":                                     1,
		"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n":                                    1,
		"GET / HTTP/1.1\r\nContent-Length:\r\n 5\r\n\r\n":                                 1,
		"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n , x\r\n\r\n":                    1,
		"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n":                            1,
		"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n":                     2,
		"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding:": 0,
	} {
		var f framing
		f.feed([]byte(text))
		if got := f.odd.Load(); got != first {
			t.Errorf("%q: %d, want %d", text, got, first)
		}
	}
}

// FuzzFraming: the pieces in which bytes arrive do not matter.
func FuzzFraming(f *testing.F) {
	f.Add([]byte("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"), uint8(7))
	f.Add([]byte("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\nContent-Length: 0\n\n"), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		var whole, pieces framing
		whole.feed(data)
		for rest := data; len(rest) > 0; {
			k := min(int(size)+1, len(rest))
			pieces.feed(rest[:k])
			rest = rest[k:]
		}
		if whole.odd.Load() != pieces.odd.Load() || whole.heads != pieces.heads || whole.state != pieces.state {
			t.Errorf("%q: request %d of %d at once, %d of %d in pieces of %d", data, whole.odd.Load(), whole.heads, pieces.odd.Load(), pieces.heads, int(size)+1)
		}
	})
}

// TestSmuggling: a request that hides behind one with two lengths is not
// answered.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	at := fmt.Sprintf("Host: 127.0.0.1:%d\r\n", h.port)
	_, _ = io.WriteString(c, "GET /health HTTP/1.1\r\n"+at+"\r\nPOST /pair HTTP/1.1\r\n"+at+"Content-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\n"+at+"\r\n")
	r := bufio.NewReader(c)
	for i, want := range []string{"200 {", "400 Bad Request"} {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		raw, err := io.ReadAll(resp.Body)
		if err != nil || !strings.HasPrefix(fmt.Sprintf("%d %s", resp.StatusCode, raw), want) {
			t.Errorf("answer %d: %d %s, %v", i, resp.StatusCode, raw, err)
		}
	}
	if resp, err := http.ReadResponse(r, nil); err == nil {
		_ = resp.Body.Close()
		t.Errorf("the hidden request was answered: %d", resp.StatusCode)
	}
}

// TestRefusedHeads: what net/http refuses is answered as all else is.
func TestRefusedHeads(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	at := fmt.Sprintf("Host: 127.0.0.1:%d\r\n", h.port)
	for text, want := range map[string]string{
		"POST /pair HTTP/1.1\r\n" + at + "Content-Length: abc\r\n\r\n":                             "400 text/plain; charset=utf-8 Bad Request",
		"POST /pair HTTP/1.1\r\n" + at + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n":          "400 text/plain; charset=utf-8 Bad Request",
		"GET / HTTP/1.1\r\n" + at + "Host: other\r\n\r\n":                                          "400 text/plain; charset=utf-8 Bad Request",
		"GET / HTTP/1.1\r\n" + at + "X: " + strings.Repeat("y", MaxHeaderBytes+8<<10) + "\r\n\r\n": `431 application/json; charset=utf-8 {"error":{"message":"Request header fields too large","type":"request_header_fields_too_large"}}`,
		"GET / HTTP/1.1\r\n" + at + strings.Repeat("X: y\r\n", 200) + "\r\n":                       `431 application/json; charset=utf-8 {"error":{"message":"Request header fields too large","type":"request_header_fields_too_large"}}`,
	} {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.port))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, text)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%.60q: %v", text, err)
		}
		raw, err := io.ReadAll(resp.Body)
		if got := fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Header.Get("Content-Type"), raw); err != nil || got != want {
			t.Errorf("%.60q: %s, %v", text, got, err)
		}
		_ = c.Close()
	}
}
