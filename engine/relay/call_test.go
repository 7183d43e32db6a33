package relay

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"osaurus/engine/relay/wire"
)

// serving runs a tunnel whose handler is f.
func serving(t *testing.T, f http.HandlerFunc) (*rig, *fakeConn) {
	t.Helper()
	r := newRig(t, 1)
	r.served = f
	return r, r.open()
}

func TestBuffered(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r, c := serving(t, func(w http.ResponseWriter, q *http.Request) {
			body, _ := io.ReadAll(q.Body)
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "3")
			w.Header().Set("Connection", "close")
			w.Header().Add("X-Two", "a")
			w.Header().Add("X-Two", "b")
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, "%s %s %s %d", q.Method, q.URL, body, q.ContentLength)
		})
		r.ask(c, "1", "POST", "/a/b?c=d%20e", "héllo")
		f := c.take(t)
		if f.Type != wire.Response || f.Status != 201 || *f.Body != "POST /a/b?c=d%20e héllo 6" {
			t.Errorf("%+v %v", f, f.Body)
		}
		if len(f.Headers) != 2 || f.Headers["x-two"] != "a, b" || f.Headers["content-type"] != "application/json" {
			t.Errorf("headers %v", f.Headers)
		}
	})
}

// TestHeaders: what a caller or a relay may not say.
func TestHeaders(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var got http.Header
		var host string
		r, c := serving(t, func(_ http.ResponseWriter, q *http.Request) { got, host = q.Header, q.Host })
		c.put(`{"type":"request","id":"1","method":"GET","path":"/","headers":{"x-agent-address":%q,"x-forwarded-for":"9.9.9.9","authorization":"Bearer x","x-osaurus-relay-origin":"0","X-Osaurus-Agent-Id":"spoof","x-osaurus-new":"1",
			"connection":"keep-alive, x-hop","x-hop":"1","te":"trailers","transfer-encoding":"chunked","upgrade":"h2c","sec-websocket-key":"x","content-length":"99","accept-encoding":"gzip","host":"evil.example","bad name":"x","x-bad":"a\r\nb","cookie":"c=1"}}`, strings.ToUpper(r.keys.list[0].Address.Lower()[:2])[:1]+r.keys.list[0].Address.Lower()[1:])
		want := map[string]string{"X-Forwarded-For": "9.9.9.9", "Authorization": "Bearer x", "X-Osaurus-Agent-Id": "agent-0", "Cookie": "c=1"}
		if len(got) != len(want) {
			t.Errorf("%v", got)
		}
		for name, value := range want {
			if got.Get(name) != value {
				t.Errorf("%s: %q", name, got.Get(name))
			}
		}
		if strings.Contains(host, "evil") {
			t.Errorf("host %q", host)
		}
	})
}

// TestPaths: none can name a host, and only our agents are asked.
func TestPaths(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		seen := ""
		r, c := serving(t, func(_ http.ResponseWriter, q *http.Request) { seen = q.URL.Path + "|" + q.RequestURI })
		for path, want := range map[string]string{"/": "/|/", "//evil.com/z": "//evil.com/z|//evil.com/z", "/a%2Fb": "/a/b|/a%2Fb", "/x?y#z": "/x|/x?y#z"} {
			seen = ""
			r.ask(c, "1", "GET", path, "")
			if f := c.take(t); f.Status != 200 || seen != want {
				t.Errorf("%s: %+v, %q", path, f, seen)
			}
		}
		for _, path := range []string{"@evil.example/x", "http://evil.example/", "evil", "", "*", "/%zz", "/a\tb"} {
			seen = ""
			c.put(`{"type":"request","id":"1","method":"GET","path":%q,"headers":{"x-agent-address":%q}}`, path, r.keys.list[0].Address.Lower())
			if f := c.take(t); f.Status != 502 || seen != "" {
				t.Errorf("%q: %+v, %q", path, f, seen)
			}
		}
		for name, frame := range map[string]string{
			"another agent": `{"type":"request","id":"1","method":"GET","path":"/","headers":{"x-agent-address":"0x0000000000000000000000000000000000000001"}}`,
			"no agent":      `{"type":"request","id":"1","method":"GET","path":"/","headers":{}}`,
			"no method":     `{"type":"request","id":"1","method":"","path":"/","headers":{"x-agent-address":"` + r.keys.list[0].Address.Lower() + `"}}`,
			"a bad method":  `{"type":"request","id":"1","method":"GE T","path":"/","headers":{"x-agent-address":"` + r.keys.list[0].Address.Lower() + `"}}`,
			"a bad body":    `{"type":"request","id":"1","method":"GET","path":"/","headers":{"x-agent-address":"` + r.keys.list[0].Address.Lower() + `"},"body":"!","bodyEncoding":"base64"}`,
		} {
			seen = ""
			c.put("%s", frame)
			if f := c.take(t); f.Status != 502 || seen != "" {
				t.Errorf("%s: %+v", name, f)
			}
		}
	})
}

func TestBase64Request(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r, c := serving(t, func(w http.ResponseWriter, q *http.Request) {
			body, _ := io.ReadAll(q.Body)
			fmt.Fprintf(w, "%x", body)
		})
		c.put(`{"type":"request","id":"1","method":"POST","path":"/","headers":{"x-agent-address":%q},"body":%q,"bodyEncoding":"base64"}`, r.keys.list[0].Address.Lower(), base64.StdEncoding.EncodeToString([]byte{0, 255}))
		if f := c.take(t); *f.Body != "00ff" {
			t.Errorf("%+v", f)
		}
	})
}

// TestStreamed: byte for byte, whole characters, as they come.
func TestStreamed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		step := make(chan string)
		r, c := serving(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "Text/Event-Stream; charset=utf-8")
			w.WriteHeader(http.StatusOK)
			for s := range step {
				_, _ = io.WriteString(w, s)
			}
		})
		r.ask(c, "s", "GET", "/", "")
		if f := c.take(t); f.Type != wire.StreamStart || f.Status != 200 {
			t.Fatalf("before anything was written: %+v", f)
		}
		for _, part := range []struct{ in, out string }{{"data: a\n\n", "data: a\n\n"}, {": keepalive\n\n", ": keepalive\n\n"}, {"x\xc3", "x"}, {"\xa9y", "éy"}, {"\xf0\x9f\x98", ""}, {"\x80", "😀"}, {"a\xffb", "a\uFFFDb"}, {"\xe2", ""}} {
			step <- part.in
			f := c.take(t)
			if f.Data != part.out || part.out != "" && f.Type != wire.StreamChunk {
				t.Errorf("%q became %+v", part.in, f)
			}
		}
		close(step)
		if f := c.take(t); f.Type != wire.StreamChunk || f.Data != "\uFFFD" {
			t.Errorf("half a character at the end: %+v", f)
		}
		if f := c.take(t); f.Type != wire.StreamEnd {
			t.Errorf("the end: %+v", f)
		}
	})
}

// TestLargeAnswers: text becomes a stream of small chunks, and nothing else
// than text is sent at all.
func TestLargeAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var answer []byte
		r, c := serving(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) })
		collect := func() (frames int, text string) {
			for f := c.take(t); f.Type != ""; f = c.take(t) {
				frames++
				switch f.Type {
				case wire.Response:
					return frames, fmt.Sprint(f.Status) + *f.Body
				case wire.StreamChunk:
					if len(f.Data) > MaxChunk {
						t.Fatalf("a chunk of %d bytes", len(f.Data))
					}
					text += f.Data
				}
			}
			return frames, text
		}
		answer = []byte(strings.Repeat("é", streamFrom/2))
		r.ask(c, "1", "GET", "/", "")
		if n, text := collect(); n != 1 || text != "200"+string(answer) {
			t.Errorf("at the limit: %d frames, %d bytes", n, len(text))
		}
		answer = append(answer, "é!"...)
		r.ask(c, "2", "GET", "/", "")
		if n, text := collect(); n < streamFrom/MaxChunk || text != string(answer) {
			t.Errorf("beyond: %d frames, %d bytes of %d", n, len(text), len(answer))
		}
		for _, size := range []int{2, streamFrom + 2} {
			answer = []byte(strings.Repeat("\xff", size))
			r.ask(c, "3", "GET", "/", "")
			if n, text := collect(); n != 1 || text != "502"+binaryBody {
				t.Errorf("%d bytes that are no text: %d frames, %.80s", size, n, text)
			}
		}
	})
}

func TestStatuses(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		status := 0
		r, c := serving(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(100)
			w.WriteHeader(status)
			if status == 700 {
				panic("a bug")
			}
		})
		for _, s := range []int{204, 205, 304} {
			status = s
			r.ask(c, "1", "GET", "/", "")
			if f := c.take(t); f.Status != s || f.Body != nil {
				t.Errorf("%d: %+v", s, f)
			}
		}
		for _, s := range []int{600, 700, 999} {
			status = s
			r.ask(c, "1", "GET", "/", "")
			if f := c.take(t); f.Status != 502 || *f.Body != failedBody {
				t.Errorf("%d: %+v", s, f)
			}
		}
	})
}

// TestCancelled: the handler's context ends and nothing more is sent.
func TestCancelled(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ended := make(chan error, 8)
		r, c := serving(t, func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/stream" {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, "data: 1\n\n")
			}
			<-q.Context().Done()
			_, err := io.WriteString(w, "data: 2\n\n")
			ended <- err
		})
		for _, path := range []string{"/stream", "/buffered"} {
			r.ask(c, "1", "GET", path, "")
			for c.take(t).Type != "" {
			}
			c.put(`{"type":"cancel","id":"2"}`)
			if len(ended) != 0 {
				t.Fatal("another request was cancelled")
			}
			c.put(`{"type":"cancel","id":"1"}`)
			if err := <-ended; err == nil {
				t.Errorf("%s: it could still write", path)
			}
			if f := c.take(t); f.Type != "" {
				t.Errorf("%s: afterwards %+v", path, f)
			}
		}
		r.ask(c, "3", "GET", "/stream", "")
		_ = c.Close(1006, "")
		<-ended // a lost tunnel ends what it carried
	})
}

// TestBusy: 64 at once, the 65th is told; one that ends makes room.
func TestBusy(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		let := make(chan struct{})
		r, c := serving(t, func(http.ResponseWriter, *http.Request) { <-let })
		for i := range MaxInFlight {
			r.ask(c, fmt.Sprint(i), "GET", "/", "")
		}
		r.ask(c, "0", "GET", "/", "") // an id in use
		if f := c.take(t); f.Type != "" {
			t.Fatalf("too early: %+v", f)
		}
		r.ask(c, "more", "GET", "/", "")
		if f := c.take(t); f.ID != "more" || f.Status != 503 || *f.Body != busyBody {
			t.Errorf("%+v", f)
		}
		let <- struct{}{}
		if f := c.take(t); f.Status != 200 {
			t.Errorf("%+v", f)
		}
		r.ask(c, "again", "GET", "/", "")
		if f := c.take(t); f.Type != "" {
			t.Errorf("%+v", f)
		}
		close(let)
	})
}

// TestBackpressure: a socket that does not move holds a handler at its queue's
// limit, and large answers take turns.
func TestBackpressure(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var mu sync.Mutex
		written := map[string]int{}
		r, c := serving(t, func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for q.Context().Err() == nil {
				n, err := w.Write([]byte(strings.Repeat("x", 1000)))
				mu.Lock()
				written[q.URL.Path] += n
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
		for range cap(c.out) {
			c.out <- []byte(`{"type":"pong"}`)
		}
		r.ask(c, "a", "GET", "/a", "")
		r.ask(c, "b", "GET", "/b", "")
		pass(time.Second)
		mu.Lock()
		for path, n := range written {
			if n > MaxQueued+2*MaxChunk || n < MaxQueued-1000 {
				t.Errorf("%s wrote %d bytes into a stuck socket", path, n)
			}
		}
		mu.Unlock()
		for range cap(c.out) {
			<-c.out
		}
		counts := map[string]int{}
		for range 40 {
			if f := c.take(t); f.Type == wire.StreamChunk {
				counts[f.ID]++
			}
		}
		if a, b := counts["a"], counts["b"]; a < 10 || b < 10 {
			t.Errorf("they do not take turns: %v", counts)
		}
		c.put(`{"type":"cancel","id":"a"}`)
		c.put(`{"type":"cancel","id":"b"}`)
		synctest.Wait()
	})
}

func TestWhole(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 0, "a": 1, "\xc3": 0, "a\xc3": 1, "aé": 3, "\xe2\x82": 0, "\xf0\x9f\x98": 0, "😀": 4, "\xff": 1, "a\x80": 2, "\x80\x80\x80\x80": 4, "a\xf0\x9f\x98": 1} {
		if got := whole([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
