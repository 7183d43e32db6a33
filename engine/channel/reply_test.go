package channel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const getRoot = `{"method":"GET","path":"/"}`

// frames opens the events of a recorded stream; it returns the plaintext of
// each frame and how the stream ended.
func (c *call) frames(t testing.TB, w *httptest.ResponseRecorder) ([]string, error) {
	t.Helper()
	if w.Code != 200 || w.Header().Get("Content-Type") != eventContentType || w.Header().Get(markHeader) != "1" {
		t.Fatalf("outer answer %d %v", w.Code, w.Header())
	}
	o := c.opener(t)
	var all []string
	for event := range strings.SplitSeq(strings.TrimSuffix(w.Body.String(), "\n\n"), "\n\n") {
		frame, ok := strings.CutPrefix(event, "data: ")
		if !ok {
			break
		}
		plaintext, fin, err := o.chunk([]byte(frame))
		if err != nil {
			return all, err
		}
		if !fin {
			all = append(all, string(plaintext))
		}
	}
	return all, o.end()
}

func TestBufferedAnswers(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		request string
		next    http.HandlerFunc
		want    innerReply
	}{
		"nothing":     {getRoot, func(http.ResponseWriter, *http.Request) {}, innerReply{status: 200}},
		"status only": {getRoot, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, innerReply{status: 404}},
		"type only":   {getRoot, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "a/b") }, innerReply{200, "a/b", nil}},
		"sniffed":     {getRoot, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, innerReply{200, "text/html; charset=utf-8", []byte("<html>")}},
		"no sniffing": {getRoot, func(w http.ResponseWriter, _ *http.Request) { w.Header()["Content-Type"] = nil; io.WriteString(w, "x") }, innerReply{200, "", []byte("x")}},
		"several writes": {getRoot, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(201)
			io.WriteString(w, "a")
			io.WriteString(w, "b")
		}, innerReply{201, "text/plain; charset=utf-8", []byte("ab")}},
		"second status": {getRoot, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); w.WriteHeader(200) }, innerReply{status: 500}},
		"informational": {getRoot, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(202) }, innerReply{status: 202}},
		"no content":    {getRoot, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204); mustNotWrite(t, w) }, innerReply{status: 204}},
		"not modified":  {getRoot, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304); mustNotWrite(t, w) }, innerReply{status: 304}},
		"HEAD": {`{"method":"HEAD","path":"/"}`, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "a/b")
			io.WriteString(w, "body")
		}, innerReply{200, "a/b", nil}},
		"HEAD of a stream": {`{"method":"HEAD","path":"/"}`, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(200)
		}, innerReply{200, "text/event-stream", nil}},
		"failed stream": {getRoot, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(503)
			io.WriteString(w, "x")
		}, innerReply{503, "text/event-stream", []byte("x")}},
		"flushed": {getRoot, func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); io.WriteString(w, "x") }, innerReply{200, "text/plain; charset=utf-8", []byte("x")}},
		"late type": {getRoot, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			w.Header().Set("Content-Type", "text/event-stream")
		}, innerReply{status: 200}},
		"type is not UTF-8": {getRoot, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "\xff")
			w.WriteHeader(200)
		}, innerReply{status: 200}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := newCall(t).buffered(t, x.request, x.next)
			if got.status != x.want.status || got.contentType != x.want.contentType || !bytes.Equal(got.body, x.want.body) {
				t.Errorf("got %+v, want %+v", got, x.want)
			}
		})
	}
}

func mustNotWrite(t *testing.T, w http.ResponseWriter) {
	if n, err := io.WriteString(w, "x"); n != 0 || !errors.Is(err, http.ErrBodyNotAllowed) {
		t.Errorf("wrote %d, %v", n, err)
	}
}

func TestAnswersKeepInnerHeadersInside(t *testing.T) {
	t.Parallel()
	c := newCall(t)
	w := c.post(t, c.envelope(t, getRoot), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Content-Type", "inner/type")
		io.WriteString(w, "inner text")
	})
	if len(w.Header()) != 3 || bytes.Contains(w.Body.Bytes(), []byte("inner")) {
		t.Errorf("got %v %s", w.Header(), w.Body)
	}
}

// TestBufferedCap writes limit and limit+1 bytes.
func TestBufferedCap(t *testing.T) {
	t.Parallel()
	block := make([]byte, 1<<20)
	fill := func(t *testing.T, w http.ResponseWriter) {
		w.Header().Set("Content-Type", "a/b")
		for range maxBody / len(block) {
			if _, err := w.Write(block); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := newCall(t).buffered(t, getRoot, func(w http.ResponseWriter, _ *http.Request) { fill(t, w) })
	if got.status != 200 || len(got.body) != maxBody {
		t.Errorf("at the limit: %d and %d bytes", got.status, len(got.body))
	}
	got = newCall(t).buffered(t, getRoot, func(w http.ResponseWriter, _ *http.Request) {
		fill(t, w)
		for range 2 {
			if _, err := w.Write([]byte{0}); !errors.Is(err, ErrTooLarge) {
				t.Errorf("past the limit: %v", err)
			}
		}
	})
	if got.status != 500 || !bytes.Contains(got.body, []byte("Internal error")) {
		t.Errorf("past the limit: %d %.100s", got.status, got.body)
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		kind string
		next func(w http.ResponseWriter)
		want []string
	}{
		"one frame for each write": {"text/event-stream", func(w http.ResponseWriter) {
			io.WriteString(w, "a")
			io.WriteString(w, "")
			w.(http.Flusher).Flush()
			io.WriteString(w, "b")
			io.WriteString(w, "c")
		}, []string{"a", "b", "c"}},
		"parameters":   {"text/event-stream; charset=utf-8", func(w http.ResponseWriter) { io.WriteString(w, "a") }, []string{"a"}},
		"any case":     {"Text/Event-Stream", func(w http.ResponseWriter) { io.WriteString(w, "a") }, []string{"a"}},
		"nothing":      {"text/event-stream", func(w http.ResponseWriter) { w.WriteHeader(200) }, nil},
		"only flushed": {"text/event-stream", func(w http.ResponseWriter) { w.(http.Flusher).Flush() }, nil},
		"at the chunk limit": {"text/event-stream", func(w http.ResponseWriter) { io.WriteString(w, strings.Repeat("x", maxChunk)) },
			[]string{strings.Repeat("x", maxChunk)}},
		"over the chunk limit": {"text/event-stream", func(w http.ResponseWriter) { io.WriteString(w, strings.Repeat("x", maxChunk+1)) },
			[]string{strings.Repeat("x", maxChunk), "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCall(t)
			w := c.post(t, c.envelope(t, getRoot), func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", x.kind)
				x.next(w)
			})
			got, err := c.frames(t, w)
			if err != nil || fmt.Sprint(got) != fmt.Sprint(x.want) {
				t.Errorf("got %d frames, %v", len(got), err)
			}
		})
	}
}

// TestPanicsTruncate: what a handler leaves behind when it panics has no end.
func TestPanicsTruncate(t *testing.T) {
	t.Parallel()
	for _, value := range []any{http.ErrAbortHandler, "bug"} {
		for _, kind := range []string{"text/event-stream", "text/plain"} {
			c := newCall(t)
			body := c.envelope(t, getRoot)
			r := outerRequest(t)
			r.Body = io.NopCloser(strings.NewReader(body))
			w := httptest.NewRecorder()
			func() {
				defer func() {
					if got := recover(); got != value {
						t.Errorf("recovered %v", got)
					}
				}()
				c.server.ServeCall(w, r, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", kind)
					io.WriteString(w, "begun")
					panic(value)
				}))
			}()
			if kind == "text/plain" {
				if w.Body.Len() > 0 {
					t.Errorf("a buffered answer was sent: %s", w.Body)
				}
				continue
			}
			if got, err := c.frames(t, w); !errors.Is(err, ErrTruncated) || len(got) != 1 {
				t.Errorf("got %q, %v", got, err)
			}
		}
	}
}

// failing breaks after n writes.
type failing struct {
	http.ResponseWriter
	n int
}

var errBroken = errors.New("broken pipe")

func (f *failing) Write(p []byte) (int, error) {
	if f.n--; f.n < 0 {
		return 0, errBroken
	}
	return f.ResponseWriter.Write(p)
}

// TestFailedWriteEndsTheStream: after one write is lost, no other may follow,
// not even the end.
func TestFailedWriteEndsTheStream(t *testing.T) {
	t.Parallel()
	c := newCall(t)
	r := outerRequest(t)
	r.Body = io.NopCloser(strings.NewReader(c.envelope(t, getRoot)))
	rec := httptest.NewRecorder()
	w := &failing{rec, 1}
	c.server.ServeCall(w, r, http.HandlerFunc(func(in http.ResponseWriter, _ *http.Request) {
		in.Header().Set("Content-Type", "text/event-stream")
		if _, err := io.WriteString(in, "a"); err != nil {
			t.Error(err)
		}
		for range 2 {
			if n, err := io.WriteString(in, strings.Repeat("b", maxChunk+1)); n != 0 || !errors.Is(err, errBroken) {
				t.Errorf("wrote %d, %v", n, err)
			}
			w.n = 100 // it would work again
		}
	}))
	if got, err := c.frames(t, rec); !errors.Is(err, ErrTruncated) || len(got) != 1 {
		t.Errorf("got %d frames, %v", len(got), err)
	}
}

func TestResponseController(t *testing.T) {
	t.Parallel()
	c := newCall(t)
	handled := make(chan error, 4)
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.server.ServeCall(w, r, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			rc := http.NewResponseController(w)
			handled <- rc.SetWriteDeadline(time.Now().Add(time.Minute))
			handled <- rc.SetReadDeadline(time.Now().Add(time.Minute))
			handled <- rc.Flush()
			_, _, err := rc.Hijack()
			handled <- err
		}))
	}))
	defer ts.Close()
	req, err := http.NewRequestWithContext(t.Context(), "POST", ts.URL, strings.NewReader(c.envelope(t, getRoot)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := ts.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"write deadline", "read deadline", "flush"} {
		if err := <-handled; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := <-handled; !errors.Is(err, http.ErrNotSupported) {
		t.Errorf("hijack: %v", err)
	}
	if _, ok := any(&reply{}).(interface{ Unwrap() http.ResponseWriter }); ok {
		t.Error("the outer writer can be reached past the seal")
	}
}

func TestInvalidStatusPanics(t *testing.T) {
	t.Parallel()
	for _, status := range []int{0, 99, 1000, -1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("status %d did not panic", status)
				}
			}()
			newReply(httptest.NewRecorder(), nil, "GET").WriteHeader(status)
		}()
	}
}
