package channel

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"osaurus/engine/internal/benchratio"
)

// BenchmarkCall is rows 5a and 5b: sealed calls against the same over TLS 1.3,
// both on one kept-alive connection.
func BenchmarkCall(b *testing.B) {
	goals := map[string]map[int]float64{"portable": {4096: 0.75, 65536: 0.42}, "wide": {4096: 0.9, 65536: 0.8}}
	for _, size := range []int{4096, 65536} {
		body := bytes.Repeat([]byte("x"), size)
		echo := func(w http.ResponseWriter, r *http.Request) {
			if n, err := io.Copy(io.Discard, r.Body); err != nil || n != int64(size) {
				b.Errorf("%d bytes, %v", n, err)
			}
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write(body)
		}
		h := newHost(b, echo)
		tr := NewTransport(TransportConfig{Peer: mustURL(b, h.URL), Pinned: testSigner(b, alice).Address()})
		plain := httptest.NewTLSServer(http.HandlerFunc(echo))
		once := func(rt http.RoundTripper, base string) {
			req := newRequest(b, "POST", base+"/echo", "")
			req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(size)
			req.Header.Set("Authorization", "Bearer osk-v1.a.b")
			resp, err := rt.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(size) {
				b.Fatalf("%d bytes, %v", n, err)
			}
			_ = resp.Body.Close()
		}
		for _, name := range []string{"portable", "wide"} {
			row := map[int]string{4096: "5a", 65536: "5b"}[size]
			b.Run(fmt.Sprintf("%s %s %d vs TLS", row, name, size), func(b *testing.B) {
				frameCodec = codecs[name]
				defer func() { frameCodec = wideCodec }()
				benchratio.Compare(b, benchratio.Calling, benchratio.AtLeast(goals[name][size]), func() { once(tr, h.URL) }, func() { once(plain.Client().Transport, plain.URL) })
			})
		}
		plain.Close()
		tr.Close()
	}
}

// event is one token as the run route streams it.
var event = []byte(`data: {"choices":[{"delta":{"content":" token"},"index":0}],"created":1800000000,"id":"chatcmpl-0123456789","model":"llama","object":"chat.completion.chunk"}` + "\n\n")

const eventsPerStream = 2000

// streams serves eventsPerStream events, flushed after every nth.
func streams(nth int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", eventContentType)
		flusher := w.(http.Flusher)
		for i := range eventsPerStream {
			_, _ = w.Write(event)
			if i%nth == nth-1 {
				flusher.Flush()
			}
		}
	}
}

// BenchmarkStream is rows 5c to 5e: the server's CPU alone, as another process
// reads.
func BenchmarkStream(b *testing.B) {
	r := startReader(b)
	sealed := func(nth int) func() {
		s := newTestServer(b)
		s.config.Now = time.Now
		k := knownKeys(b, knownSID, knownC2S, knownS2C)
		admit(b, s, knownKeys(b, knownSID, knownC2S, knownS2C))
		ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { s.ServeCall(w, req, streams(nth)) }))
		b.Cleanup(ts.Close)
		seq := uint64(0)
		return func() {
			seq++
			body, err := sealEnvelope(k, []byte(`{"method":"POST","path":"/agents/x/run"}`), seq)
			if err != nil {
				b.Fatal(err)
			}
			r.read(b, "tcp", ts.Listener.Addr().String(), string(body))
		}
	}
	plain := func(nth int) func() {
		ts := httptest.NewServer(streams(nth))
		b.Cleanup(ts.Close)
		return func() { r.read(b, "tcp", ts.Listener.Addr().String(), "") }
	}
	overTLS := httptest.NewTLSServer(streams(1))
	b.Cleanup(overTLS.Close)
	each, flushed := sealed(1), plain(1)
	b.Run("5c vs plain", func(b *testing.B) {
		benchratio.Compare(b, benchratio.Streaming, benchratio.AtLeast(0.75), each, flushed)
	})
	b.Run("5d vs TLS", func(b *testing.B) {
		benchratio.Compare(b, benchratio.Streaming, benchratio.AtLeast(0.9), each, func() { r.read(b, "tls", overTLS.Listener.Addr().String(), "") })
	})
	b.Run("5e backlog of 16 vs plain per event", func(b *testing.B) {
		benchratio.Compare(b, benchratio.Streaming, benchratio.AtLeast(1.3), sealed(16), flushed)
	})
}

// reader is this test binary as another process, which reads answers to their
// end and counts events.
type reader struct {
	in  io.Writer
	out *bufio.Reader
}

const readerEnv = "OSAURUS_CHANNEL_BENCH_READER"

func startReader(b *testing.B) *reader {
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), readerEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	return &reader{in, bufio.NewReader(out)}
}

func (r *reader) read(b *testing.B, network, addr, body string) {
	text := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: peer\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", callPath, len(body), body)
	if _, err := fmt.Fprintln(r.in, network, addr, hex.EncodeToString([]byte(text))); err != nil {
		b.Fatal(err)
	}
	line, err := r.out.ReadString('\n')
	if got := strings.TrimSpace(line); err != nil || (got != fmt.Sprint(eventsPerStream) && got != fmt.Sprint(eventsPerStream+1)) {
		b.Fatalf("the reader saw %s events: %v", got, err)
	}
}

// readAnswers is the reader's main.
func readAnswers() {
	for in := bufio.NewReader(os.Stdin); ; {
		var network, addr, text string
		if _, err := fmt.Fscanln(in, &network, &addr, &text); err != nil {
			return
		}
		raw, _ := hex.DecodeString(text)
		var conn net.Conn
		var err error
		if network == "tls" {
			conn, err = tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a benchmark on loopback
		} else {
			conn, err = net.Dial(network, addr)
		}
		if err != nil {
			fmt.Println(err)
			continue
		}
		_, _ = conn.Write(raw)
		n := 0
		for lines := bufio.NewReaderSize(conn, 1<<16); ; {
			line, err := lines.ReadSlice('\n')
			if err != nil {
				break
			}
			if bytes.HasPrefix(line, []byte("data: ")) {
				n++
			}
		}
		_ = conn.Close()
		fmt.Println(n)
	}
}

// BenchmarkStreamLatency is row 5f: what sealing adds to the time from writing
// an event to reading it, at one event in 2 ms.
func BenchmarkStreamLatency(b *testing.B) {
	b.Run("5f added latency", addedLatency)
}

func addedLatency(b *testing.B) {
	start := time.Now()
	h := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", eventContentType)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for range 100 {
			<-tick.C
			var stamp [8]byte
			binary.BigEndian.PutUint64(stamp[:], uint64(time.Since(start)))
			_, _ = w.Write(stamp[:])
			w.(http.Flusher).Flush()
		}
	}
	host, plain := newHost(b, h), httptest.NewServer(http.HandlerFunc(h))
	b.Cleanup(plain.Close)
	tr := NewTransport(TransportConfig{Peer: mustURL(b, host.URL), Pinned: testSigner(b, alice).Address()})
	b.Cleanup(tr.Close)
	p50 := func(rt http.RoundTripper, base string) time.Duration {
		resp, err := rt.RoundTrip(newRequest(b, "GET", base+"/", ""))
		if err != nil {
			b.Fatal(err)
		}
		defer resp.Body.Close()
		var all []time.Duration
		for {
			var stamp [8]byte
			if _, err := io.ReadFull(resp.Body, stamp[:]); err != nil {
				break
			}
			all = append(all, time.Since(start)-time.Duration(binary.BigEndian.Uint64(stamp[:])))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	benchratio.Measure(b, 5, "µs", benchratio.AtMost(25), func() float64 {
		return float64((p50(tr, host.URL) - p50(http.DefaultTransport, plain.URL)).Microseconds())
	})
}
