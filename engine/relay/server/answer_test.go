package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"osaurus/engine/relay/wire"
)

// TestAnswers: section 6, buffered ones.
func TestAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := agentN(0)
	h := r.open(a)
	for name, c := range map[string]struct {
		frame   string // without type and id
		status  int
		body    string
		headers map[string]string // "" for one that must not be there
		cancel  bool
	}{
		"all": {`"status":201,"headers":{"X-App":"1","Transfer-Encoding":"chunked","connection":"x","keep-alive":"1","upgrade":"x","te":"x","trailer":"x","proxy-authenticate":"x","proxy-authorization":"x","content-length":"999","content-type":"text/x"},"body":"héy"`,
			201, "héy", map[string]string{"X-App": "1", "Content-Length": "4", "Content-Type": "text/x", "Connection": "", "Keep-Alive": "", "Upgrade": "", "Te": "", "Trailer": "", "Proxy-Authenticate": "", "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*", "X-Relay-Region": "here", "X-Relay-Machine": "m1"}, false},
		"no content type":   {`"status":200,"headers":{},"body":"{}"`, 200, "{}", map[string]string{"Content-Type": "text/plain;charset=UTF-8"}, false},
		"no body":           {`"status":200,"headers":{}`, 200, "", map[string]string{"Content-Type": "text/plain;charset=UTF-8", "Content-Length": "0"}, false},
		"its own CORS":      {`"status":200,"headers":{"access-control-allow-origin":"https://x","access-control-expose-headers":"y"},"body":""`, 200, "", map[string]string{"Access-Control-Allow-Origin": "https://x", "Access-Control-Expose-Headers": "y"}, false},
		"204 with a body":   {`"status":204,"headers":{},"body":""`, 204, "", map[string]string{"Content-Type": ""}, false},
		"304 with a body":   {`"status":304,"headers":{},"body":"x"`, 304, "", nil, false},
		"205 with a body":   {`"status":205,"headers":{},"body":"x"`, 205, "", nil, false},
		"599":               {`"status":599,"headers":{},"body":"x"`, 599, "x", nil, false},
		"600":               {`"status":600,"headers":{},"body":"x"`, 502, `{"error":"bad_host_response"}`, nil, false},
		"1000":              {`"status":1000,"headers":{},"body":"x"`, 502, `{"error":"bad_host_response"}`, nil, false},
		"199":               {`"status":199,"headers":{},"body":"x"`, 502, `{"error":"bad_host_response"}`, nil, false},
		"0":                 {`"status":0,"headers":{},"body":"x"`, 502, `{"error":"bad_host_response"}`, nil, false},
		"200.5":             {`"status":200.5,"headers":{},"body":"x"`, 502, `{"error":"bad_host_response"}`, nil, false},
		"a line break":      {`"status":200,"headers":{"x":"a\r\nb: c"},"body":"x"`, 502, `{"error":"bad_host_response"}`, nil, false},
		"a bad name":        {`"status":200,"headers":{"x y":"a"},"body":"x"`, 502, `{"error":"bad_host_response"}`, nil, false},
		"no bytes":          {`"status":200,"headers":{"x":"€"},"body":"x"`, 502, `{"error":"bad_host_response"}`, nil, false},
		"latin":             {`"status":200,"headers":{"x":"é"},"body":"x"`, 200, "x", map[string]string{"X": "\xe9"}, false},
		"cases":             {`"status":200,"headers":{"X-A":"1","x-a":"2"},"body":"x"`, 200, "x", map[string]string{"X-A": "1, 2"}, false},
		"null headers":      {`"status":200,"headers":null,"body":"x"`, 502, `{"error":"bad_host_response"}`, nil, true},
		"no headers":        {`"status":200,"body":"x"`, 502, `{"error":"bad_host_response"}`, nil, true},
		"text status":       {`"status":"200","headers":{},"body":"x"`, 502, `{"error":"bad_host_response"}`, nil, true},
		"no status":         {`"headers":{},"body":"x"`, 502, `{"error":"bad_host_response"}`, nil, true},
		"null body":         {`"status":200,"headers":{},"body":null`, 502, `{"error":"bad_host_response"}`, nil, true},
		"null value":        {`"status":200,"headers":{"x":null},"body":""`, 502, `{"error":"bad_host_response"}`, nil, true},
		"empty value":       {`"status":200,"headers":{"x":""},"body":"y"`, 200, "y", nil, false},
		"a number as value": {`"status":200,"headers":{"x":1},"body":""`, 502, `{"error":"bad_host_response"}`, nil, true},
		"129 headers":       {`"status":200,"headers":{` + manyHeaders(wire.MaxHeaders+1) + `},"body":""`, 502, `{"error":"bad_host_response"}`, nil, true},
		"128 headers":       {`"status":200,"headers":{` + manyHeaders(wire.MaxHeaders) + `},"body":""`, 200, "", nil, false},
		"a lone surrogate":  {`"status":200,"headers":{},"body":"a\ud800b"`, 200, "a\ufffdb", nil, false},
		"unknown keys":      {`"status":200,"headers":{},"body":"x","bodyEncoding":"base64","more":[1]`, 200, "x", nil, false},
	} {
		got := r.later(r.request("GET", place(a, "/"), ""))
		id := h.want(wire.Request).ID
		before := r.s.stats.invalidFrames.Load()
		h.raw(`{"type":"response","id":"` + id + `",` + c.frame + `}`)
		g := <-got
		if g.status != c.status || g.body != c.body || g.err != nil {
			t.Errorf("%s: %d %q %v", name, g.status, g.body, g.err)
		}
		for key, value := range c.headers {
			if g.header.Get(key) != value {
				t.Errorf("%s: %s is %q", name, key, g.header.Get(key))
			}
		}
		if timing := g.header.Get("Server-Timing"); !strings.HasPrefix(timing, "lookup;dur=") || !strings.Contains(timing, ", host;dur=") || !strings.Contains(timing, ", relay;dur=") {
			t.Errorf("%s: timing %q", name, timing)
		}
		if c.cancel {
			if f := h.want(wire.Cancel); f.ID != id {
				t.Errorf("%s: cancel of %s", name, f.ID)
			}
		}
		if n := r.s.stats.invalidFrames.Load() - before; n != map[bool]int64{true: 1}[c.cancel] {
			t.Errorf("%s: %d invalid frames", name, n)
		}
	}
}

func manyHeaders(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`"h%d":"x"`, i))
	}
	return strings.Join(all, ",")
}

// TestStream: pieces come as they are sent, and only the first answer counts.
func TestStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := agentN(0)
	h := r.open(a)
	resp := make(chan *http.Response, 1)
	client := r.clientFrom("127.0.0.1")
	start := func() (*bufio.Reader, string) {
		req := r.request("GET", place(a, "/stream"), "")
		go func() {
			got, err := client.Do(req)
			if err != nil {
				t.Error(err)
			}
			resp <- got
		}()
		id := h.want(wire.Request).ID
		h.send(&wire.Frame{Type: wire.StreamChunk, ID: id, Data: "too early"})
		h.send(&wire.Frame{Type: wire.StreamStart, ID: id, Status: 200, Headers: map[string]string{"content-type": "text/event-stream", "content-length": "3"}})
		got := <-resp
		t.Cleanup(func() { _ = got.Body.Close() })
		if got.StatusCode != 200 || got.Header.Get("Content-Type") != "text/event-stream" || got.ContentLength != -1 {
			t.Errorf("%+v", got)
		}
		return bufio.NewReader(got.Body), id
	}
	body, id := start()
	for i := range 3 {
		h.send(&wire.Frame{Type: wire.StreamChunk, ID: id, Data: fmt.Sprintf("é %d\n", i)})
		if line, err := body.ReadString('\n'); err != nil || line != fmt.Sprintf("é %d\n", i) {
			t.Errorf("%q %v", line, err)
		}
	}
	h.answer(id, 500, nil, "second answer")
	h.send(&wire.Frame{Type: wire.StreamStart, ID: id, Status: 500, Headers: map[string]string{}})
	h.send(&wire.Frame{Type: wire.StreamChunk, ID: id, Data: "last"})
	h.send(&wire.Frame{Type: wire.StreamEnd, ID: id})
	h.send(&wire.Frame{Type: wire.StreamChunk, ID: id, Data: "too late"})
	if rest, err := io.ReadAll(body); err != nil || string(rest) != "last" {
		t.Errorf("%q %v", rest, err)
	}
	// A tunnel that drops cuts, and keeps what was sent.
	body, id = start()
	h.send(&wire.Frame{Type: wire.StreamChunk, ID: id, Data: "partial"})
	_ = h.c.CloseNow()
	if rest, err := io.ReadAll(body); err == nil || string(rest) != "partial" {
		t.Errorf("after the drop: %q %v", rest, err)
	}
	if got := r.get(place(a, "/")); got.status != 502 || got.body != `{"error":"agent_offline"}` {
		t.Errorf("%+v", got)
	}
}

// TestStreamCutByInvalidFrame: section 3.3.
func TestStreamCutByInvalidFrame(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := agentN(0)
	h := r.open(a)
	for name, frame := range map[string]string{
		"a chunk of 1 MiB and one": `"type":"stream_chunk","data":"` + strings.Repeat("a", wire.MaxChunk+1) + `"`,
		"a chunk without data":     `"type":"stream_chunk"`,
		"a chunk of a number":      `"type":"stream_chunk","data":7`,
		"no type":                  `"data":"x"`,
		"a repeated name":          `"type":"stream_chunk","data":"x","data":"y"`,
	} {
		got := r.later(r.request("GET", place(a, "/"), ""))
		id := h.want(wire.Request).ID
		h.send(&wire.Frame{Type: wire.StreamStart, ID: id, Status: 200, Headers: map[string]string{}})
		h.send(&wire.Frame{Type: wire.StreamChunk, ID: id, Data: strings.Repeat("b", wire.MaxChunk)})
		h.raw(`{"id":"` + id + `",` + frame + `}`)
		if f := h.want(wire.Cancel); f.ID != id {
			t.Errorf("%s: cancel %s", name, f.ID)
		}
		if g := <-got; g.err == nil {
			t.Errorf("%s: a whole answer of %d bytes", name, len(g.body))
		}
	}
	// A start that HTTP cannot carry is told to the host, unlike a response.
	got := r.later(r.request("GET", place(a, "/"), ""))
	id := h.want(wire.Request).ID
	h.send(&wire.Frame{Type: wire.StreamStart, ID: id, Status: 1000, Headers: map[string]string{}})
	if f := h.want(wire.Cancel); f.ID != id {
		t.Error(f.ID)
	}
	if g := <-got; g.status != 502 || g.body != `{"error":"bad_host_response"}` {
		t.Errorf("%+v", g)
	}
}

// TestTunnelClosed: who waits learns it, as text (section 6).
func TestTunnelClosed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.open(agentN(0))
	got := r.later(r.request("GET", place(agentN(0), "/"), ""))
	h.want(wire.Request)
	_ = h.c.CloseNow()
	if g := <-got; g.status != 502 || g.body != `{"error":"tunnel_closed"}` || !strings.HasPrefix(g.header.Get("Content-Type"), "text/plain") {
		t.Errorf("%+v", g)
	}
}

// TestCallerHangsUp: the host is told which request is over.
func TestCallerHangsUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.open(agentN(0))
	for _, streaming := range []bool{false, true} {
		ctx, stop := context.WithCancel(t.Context())
		got := r.later(r.request("GET", place(agentN(0), "/"), "").WithContext(ctx))
		id := h.want(wire.Request).ID
		if streaming {
			h.send(&wire.Frame{Type: wire.StreamStart, ID: id, Status: 200, Headers: map[string]string{}})
		}
		stop()
		<-got
		if f := h.want(wire.Cancel); f.ID != id {
			t.Errorf("cancel of %s", f.ID)
		}
		h.answer(id, 200, nil, "late") // ignored
	}
}

// TestSlowCaller: more than 4 MiB queued for one who does not read.
func TestSlowCaller(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := agentN(0)
	h := r.open(a)
	resp := make(chan *http.Response, 1)
	req := r.request("GET", place(a, "/"), "")
	go func() {
		got, err := r.clientFrom("127.0.0.1").Do(req)
		if err != nil {
			t.Error(err)
		}
		resp <- got
	}()
	id := h.want(wire.Request).ID
	h.send(&wire.Frame{Type: wire.StreamStart, ID: id, Status: 200, Headers: map[string]string{}})
	got := <-resp
	defer got.Body.Close()
	told := make(chan string, 1)
	go func() { f, _, _ := h.next(); told <- string(f.Type) + f.ID }()
	chunk := strings.Repeat("a", 512<<10)
	for sent := 0; ; sent += len(chunk) {
		h.send(&wire.Frame{Type: wire.StreamChunk, ID: id, Data: chunk})
		select {
		case g := <-told:
			if g != "cancel"+id || sent < maxSlow {
				t.Errorf("%s after %d bytes", g, sent)
			}
			if _, err := io.Copy(io.Discard, got.Body); err == nil {
				t.Error("the caller sees a whole answer")
			}
			if st := r.s.Statistics(); st.SlowConsumers != 1 {
				t.Errorf("%+v", st)
			}
			return
		default:
		}
		if sent > 256<<20 {
			t.Fatal("never cut")
		}
	}
}

// TestQueueLimit: 4 MiB may be queued, a byte more may not.
func TestQueueLimit(t *testing.T) {
	t.Parallel()
	e := &exchange{held: &held{most: maxHeld}, wake: make(chan struct{}, 1), phase: pending}
	e.deliver(&wire.Frame{Type: wire.StreamStart, Status: 200})
	for range maxSlow / wire.MaxChunk {
		if over, cancel := e.deliver(&wire.Frame{Type: wire.StreamChunk, Data: strings.Repeat("a", wire.MaxChunk)}); over || cancel {
			t.Fatal("cut too early")
		}
	}
	if over, cancel := e.deliver(&wire.Frame{Type: wire.StreamChunk, Data: "a"}); !over || !cancel || e.why() != slowCaller || e.held.n.Load() != 0 {
		t.Errorf("%v %v %d, %d held", over, cancel, e.cause, e.held.n.Load())
	}
}

// TestPatience: 30 s for the first byte, 30 s between frames.
func TestPatience(t *testing.T) {
	inBubble(t, func(b *bubble) {
		m := b.open(agentN(0))
		pong := func() { b.put(m, &wire.Frame{Type: wire.Pong}) }
		c := b.call("GET", agentN(0), "/", nil)
		b.take(m)
		elapse(firstByte - time.Millisecond)
		if c.String() != "waiting" {
			t.Fatalf("early: %s", c)
		}
		elapse(2 * time.Millisecond)
		if got := c.String(); got != `504 {"error":"gateway_timeout"}` || !strings.Contains(b.says(m), "cancel") {
			t.Error(got)
		}
		pong()
		c = b.call("GET", agentN(0), "/", nil)
		f := b.take(m)
		id := f[len(f)-1].ID
		elapse(firstByte - time.Second)
		b.put(m, &wire.Frame{Type: wire.StreamStart, ID: id, Status: 200, Headers: map[string]string{}})
		for range 3 {
			elapse(streamIdle - time.Second)
			pong()
			b.put(m, &wire.Frame{Type: wire.StreamChunk, ID: id, Data: ": keepalive\n"})
			if c.String() != "waiting" {
				t.Fatalf("early: %s", c)
			}
		}
		b.take(m)
		elapse(streamIdle + time.Millisecond)
		synctest.Wait()
		if got := c.String(); got != "200 : keepalive\n: keepalive\n: keepalive\n" || !strings.Contains(b.says(m), "cancel") {
			t.Errorf("idle: %q", got)
		}
	})
}

// TestHostThatDoesNotRead: what waits for it is bounded, and its socket goes.
func TestHostThatDoesNotRead(t *testing.T) {
	inBubble(t, func(b *bubble) {
		m := b.open(agentN(0))
		m.mu.Lock()
		m.stalled = true
		m.mu.Unlock()
		var calls []*call
		for range maxOutgoing/(8<<20) + 2 {
			calls = append(calls, b.call("POST", agentN(0), "/", strings.NewReader(strings.Repeat("a", 8<<20))))
		}
		if got := calls[len(calls)-1].String(); got != `502 {"error":"tunnel_send_failed"}` {
			t.Errorf("beyond the queue: %s", got)
		}
		elapse(writeTime)
		synctest.Wait()
		if got := calls[0].String(); got == "waiting" || b.s.hosts.owner(agentN(0).addr) != nil || b.s.held.n.Load() != 0 {
			t.Errorf("after %s: %s, %d bytes held", writeTime, got, b.s.held.n.Load())
		}
	})
}
