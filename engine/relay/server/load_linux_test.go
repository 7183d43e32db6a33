package server

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"osaurus/engine/relay"
	"osaurus/engine/relay/wire"
)

// How large TestLoad is: small with all tests, decisions D24 with "make soak".
var (
	loadTunnels = flag.Int("tunnels", 150, "idle tunnels of TestLoad")
	loadStreams = flag.Int("streams", 40, "streams of TestLoad, over 4 hosts")
)

// Memory that one idle tunnel may take, both of its ends and TCP buffers of the
// runtime together, in bytes.
const perTunnel = 96 << 10

// inUse is what the heap and the stacks take.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestLoad: idle tunnels of 50 addresses, streams over 4 hosts beside them, a
// 65th request on one of these, and memory that stays where it is. It measures
// the process, so nothing runs beside it.
func TestLoad(t *testing.T) { //nolint:paralleltest // see above
	var shift atomic.Int64 // of the limiter's clock
	r := newRig(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) } })
	before := inUse()
	idle := make([]*host, *loadTunnels)
	for i := range idle {
		h, _, err := r.dialFrom(fmt.Sprintf("127.%d.1.1", 10+i%50))
		if err != nil {
			t.Fatalf("tunnel %d: %v", i+1, err)
		}
		h.authAs(agentN(100 + i))
		idle[i] = h
	}
	each := (inUse() - before) / int64(len(idle))
	t.Logf("%d idle tunnels take %d KiB each, both ends", len(idle), each>>10)
	if each > perTunnel {
		t.Errorf("more than %d KiB", perTunnel>>10)
	}
	if st := r.s.Statistics(); st.ActiveTunnels != len(idle) || st.ActiveAgents != len(idle) {
		t.Errorf("%+v", st)
	}

	var inside atomic.Int64
	free := make(chan struct{})
	release := sync.OnceFunc(func() { close(free) })
	defer release()
	handler := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: begun\n\n")
		if q.URL.Path == "/wait" {
			inside.Add(1)
			<-free
		}
		for range 100 {
			_, _ = fmt.Fprintf(w, "data: %s\n\n", strings.Repeat("x", 500))
		}
	})
	for n := range 4 {
		await(t, "a host is connected", connected(tunnelFor(t, r, handler, func() []agent { return []agent{agentN(n)} }), 1))
	}
	var after [2]int64
	for round := range after {
		if err := streams(r, *loadStreams); err != nil {
			t.Fatal(err)
		}
		after[round] = inUse()
		shift.Add(int64(minute))
	}
	t.Logf("after %d streams %d KiB, after as many again %d KiB", *loadStreams, after[0]>>10, after[1]>>10)
	if grown := after[1] - after[0]; grown > 4<<20+after[0]/10 {
		t.Errorf("memory grew by %d KiB", grown>>10)
	}

	var waiting sync.WaitGroup
	for range relay.MaxInFlight {
		waiting.Go(func() { _ = readStream(r.clientFrom("127.99.1.1"), place(agentN(0), "/wait")) })
	}
	await(t, "64 requests are under way", func() bool { return inside.Load() == relay.MaxInFlight })
	if got := r.get(place(agentN(0), "/wait")); got.status != http.StatusServiceUnavailable {
		t.Errorf("the 65th: %d", got.status)
	}
	release()
	waiting.Wait()

	for i, h := range idle { // all of them still answer
		req := r.later(r.request("GET", place(agentN(100+i), "/"), ""))
		f := h.want(wire.Request)
		h.answer(f.ID, 200, nil, "")
		if got := <-req; got.status != 200 && got.status != http.StatusTooManyRequests {
			t.Fatalf("tunnel %d: %d", i+1, got.status)
		}
		if i == 20 {
			break // a sample
		}
	}
	for _, h := range idle {
		_ = h.c.Close(websocket.StatusNormalClosure, "")
	}
	await(t, "the tunnels are gone", func() bool { return r.s.tunnelCount() == 4 })
}

// streams reads n of them at once, spread over 4 hosts and many callers.
func streams(r *rig, n int) error {
	errs := make(chan error, n)
	for i := range n {
		client := r.clientFrom(fmt.Sprintf("127.%d.2.1", 10+i%50))
		go func() { errs <- readStream(client, place(agentN(i%4), "/")); client.CloseIdleConnections() }()
	}
	var first error
	for range n {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}

func readStream(c *http.Client, url string) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n := 0
	scan := bufio.NewScanner(resp.Body)
	for scan.Scan() {
		if strings.HasPrefix(scan.Text(), "data: ") {
			n++
		}
	}
	if resp.StatusCode != http.StatusOK || n != 101 || scan.Err() != nil {
		return fmt.Errorf("status %d, %d events, %v", resp.StatusCode, n, scan.Err()) //nolint:errorlint // it may be nil
	}
	return nil
}
