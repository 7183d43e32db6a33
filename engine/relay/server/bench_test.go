package server

import (
	"bufio"
	"context"
	"encoding/binary"
	stdjson "encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"osaurus/engine/internal/benchratio"
	"osaurus/engine/relay/wire"
)

// prefixed is a conn of messages with their length before them, on raw TCP:
// what a WebSocket is measured against.
type prefixed struct {
	c net.Conn
	r *bufio.Reader
	w *bufio.Writer
}

func newPrefixed(c net.Conn) *prefixed { return &prefixed{c, bufio.NewReader(c), bufio.NewWriter(c)} }

func (p *prefixed) Read(context.Context) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(p.r, b)
	return b, err
}

func (p *prefixed) Write(_ context.Context, b []byte) error {
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(b)))
	_, _ = p.w.Write(head[:])
	_, _ = p.w.Write(b)
	return p.w.Flush()
}

func (p *prefixed) Close(int, string) error { return p.c.Close() }
func (p *prefixed) Abort()                  { _ = p.c.Close() }
func (p *prefixed) Trust()                  {}

// codec is how frames are written and read.
type codec struct {
	marshal func(*wire.Frame) ([]byte, error)
	parse   func([]byte) (wire.Frame, error)
}

var ours = codec{(*wire.Frame).Marshal, wire.ParseHost}

// standard is encoding/json without any check of frames.
var standard = codec{
	func(f *wire.Frame) ([]byte, error) { return stdjson.Marshal(f) },
	func(raw []byte) (f wire.Frame, err error) { return f, stdjson.Unmarshal(raw, &f) },
}

// pair makes two connected conns, over WebSockets or raw.
func pair(b *testing.B, raw bool) (relay, host conn) {
	b.Helper()
	if raw {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		d, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		return newPrefixed(c), newPrefixed(d)
	}
	accepted := make(chan *websocket.Conn, 1)
	over := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
		if err != nil {
			b.Error(err)
		}
		accepted <- c
		<-over
	}))
	b.Cleanup(func() { close(over); srv.Close() })
	c, _, err := websocket.Dial(context.Background(), srv.URL, nil)
	if err != nil {
		b.Fatal(err)
	}
	h := held{most: maxHeld}
	r, t := newSocket(<-accepted, &h), newSocket(c, &h)
	r.Trust()
	t.Trust()
	return r, t
}

// proxied returns a function that makes one call through a tunnel: the request
// frame is written, read by a host, answered, and the answer taken.
func proxied(b *testing.B, raw bool, how codec) func() {
	b.Helper()
	s := New(Config{Domain: testDomain})
	s.marshal, s.parse = how.marshal, how.parse
	near, far := pair(b, raw)
	t := newTunnel(s, near)
	go func() {
		for {
			m, err := near.Read(context.Background())
			if err != nil {
				return
			}
			t.handle(m)
		}
	}()
	answer := chat(`{"choices":[{"message":{"role":"assistant","content":`)
	go func() {
		for {
			m, err := far.Read(context.Background())
			if err != nil {
				return
			}
			f, err := how.parse(m)
			if err != nil {
				b.Error(err)
				return
			}
			out, err := how.marshal(&wire.Frame{Type: wire.Response, ID: f.ID, Status: 200, Headers: map[string]string{"content-type": "application/json", "cache-control": "no-store"}, Body: &answer})
			if err != nil || far.Write(context.Background(), out) != nil {
				return
			}
		}
	}()
	b.Cleanup(func() { near.Abort(); far.Abort() })
	body := chat(`{"model":"llama","stream":false,"messages":[{"role":"user","content":`)
	n := 0
	return func() {
		n++
		e := &exchange{id: "36957c43-c605-4f5e-8490-" + strconv.Itoa(1e11+n), held: &s.held, wake: make(chan struct{}, 1), phase: pending}
		headers := map[string]string{
			"authorization": "Bearer osk-v1.x.y", "content-type": "application/json", "content-length": "4096", "user-agent": "Go-http-client/1.1", "accept-encoding": "gzip",
			"x-agent-address": "0x91ff57d3e11783e00177925544baafc3cd6fd941", "x-forwarded-for": "9.9.9.9",
		}
		if !t.add(e) || !t.send(&wire.Frame{Type: wire.Request, ID: e.id, Method: "POST", Path: "/v1/chat/completions", Headers: headers, Body: &body}) {
			b.Fatal("not sent")
		}
		<-e.wake
		if p, head, parts, _ := e.take(); p != done || head.Status != 200 || len(parts) != 1 || len(parts[0]) != len(answer) {
			b.Fatal(errors.New("a wrong answer"))
		}
	}
}

// chat is a JSON body of about 4 KiB, the size of row 5a.
func chat(start string) string {
	return start + `"` + strings.Repeat("The quick brown fox jumps over the lazy dog. ", 90) + `"}]}`
}

// BenchmarkRelay is rows 7a and 7b: a proxied JSON call over our WebSocket,
// against the same over raw TCP, and against encoding/json.
func BenchmarkRelay(b *testing.B) {
	b.Run("7a call vs raw TCP", func(b *testing.B) {
		benchratio.Compare(b, benchratio.Streaming, benchratio.AtLeast(0.8), proxied(b, false, ours), proxied(b, true, ours))
	})
	b.Run("7b call vs standard JSON", func(b *testing.B) {
		benchratio.Compare(b, benchratio.Streaming, benchratio.AtLeast(1.25), proxied(b, false, ours), proxied(b, false, standard))
	})
}
