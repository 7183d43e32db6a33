package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/identity"
	"osaurus/engine/relay"
	"osaurus/engine/signature"
)

// signer signs as an agent of the test.
type signer struct{ agent }

func (s signer) Address() address.Address { return s.addr }

func (s signer) Sign(_ context.Context, d signature.Digest) (signature.Signature, error) {
	return s.key.Sign(d), nil
}

// tunnelFor runs our own host for agents, until the test ends.
func tunnelFor(t testing.TB, r *rig, handler http.Handler, list func() []agent) *relay.Tunnel {
	t.Helper()
	known := map[address.Address]agent{}
	for n := range 60 {
		known[agentN(n).addr] = agentN(n)
	}
	tun := relay.New(relay.Config{
		Agents: func() []relay.Agent {
			var out []relay.Agent
			for _, a := range list() {
				out = append(out, relay.Agent{ID: a.addr.Short(), Address: a.addr})
			}
			return out
		},
		Signer:  func(_ context.Context, a address.Address) (identity.Signer, error) { return signer{known[a]}, nil },
		Handler: handler, Dial: relay.Dial("ws://relay.example"+relay.ConnectPath, r.clientFrom("127.0.0.1")),
		Jitter: func() float64 { return 0 },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); tun.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return tun
}

// await looks until something is so; it bounds how long.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func connected(tun *relay.Tunnel, n int) func() bool {
	return func() bool {
		up := 0
		for _, s := range tun.Status() {
			if s.State == relay.Connected {
				up++
			}
		}
		return up == n
	}
}

// TestOurHost: our host's tunnel against this relay.
func TestOurHost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ended := make(chan struct{}, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/echo":
			body, _ := io.ReadAll(q.Body)
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Query", q.URL.RawQuery)
			w.WriteHeader(201)
			_, _ = w.Write(body)
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 100 {
				_, _ = fmt.Fprintf(w, "data: é%d\n\n", i)
				w.(http.Flusher).Flush()
			}
		case "/large":
			_, _ = w.Write(bytes.Repeat([]byte("0123456789abcdef"), 1<<18)) // 4 MiB, so it is streamed
		case "/wait":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: begun\n\n")
			<-q.Context().Done()
			ended <- struct{}{}
		default:
			w.WriteHeader(204)
		}
	})
	var list atomic.Pointer[[]agent]
	list.Store(&[]agent{agentN(0), agentN(1)})
	tun := tunnelFor(t, r, handler, func() []agent { return *list.Load() })
	await(t, "two agents are connected", connected(tun, 2))
	a := agentN(0)

	text := strings.Repeat(`{"a":"é\u0001"}`, 100_000)
	got := r.do(r.request("POST", place(a, "/echo?x=1"), text))
	if got.status != 201 || got.body != text || got.header.Get("X-Query") != "x=1" {
		t.Errorf("echo: %d, %d bytes", got.status, len(got.body))
	}
	if got := r.get(place(agentN(1), "/events")); strings.Count(got.body, "data: é") != 100 || got.err != nil {
		t.Errorf("events: %q %v", got.body, got.err)
	}
	if got := r.get(place(a, "/large")); len(got.body) != 4<<20 || got.err != nil {
		t.Errorf("large: %d %d bytes, %v", got.status, len(got.body), got.err)
	}
	if got := r.do(r.request("HEAD", place(a, "/"), "")); got.status != 204 {
		t.Errorf("head: %d", got.status)
	}
	ctx, stop := context.WithCancel(t.Context())
	resp, err := r.clientFrom("127.0.0.1").Do(r.request("GET", place(a, "/wait"), "").WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil {
		t.Error(err)
	}
	stop()
	_ = resp.Body.Close()
	<-ended // the relay's cancel reached the handler

	// More changes than are made one by one: a new socket, and nobody lost.
	var more []agent
	for n := range 8 {
		more = append(more, agentN(n))
	}
	list.Store(&more)
	tun.Changed()
	await(t, "eight agents are connected", connected(tun, 8))
	if got := r.get(place(agentN(7), "/")); got.status != 204 {
		t.Errorf("the eighth: %d %s", got.status, got.body)
	}
	list.Store(&[]agent{agentN(0)})
	tun.Changed()
	await(t, "one is left", func() bool { return r.s.hosts.count() == 1 })

	// Another host takes the address over; ours does not take it back.
	h := r.open(a)
	await(t, "superseded", func() bool { return tun.Status()[0].State == relay.ServedElsewhere })
	req := r.later(r.request("GET", place(a, "/"), ""))
	f, _, _ := h.next()
	h.answer(f.ID, 200, nil, "the other")
	if got := <-req; got.body != "the other" {
		t.Errorf("%+v", got)
	}
	tun.Reclaim(a.addr)
	await(t, "reclaimed", func() bool { return tun.Status()[0].State == relay.Connected })
}

// TestOurHostIsBusy: the 65th request on one tunnel gets the host's 503.
func TestOurHostIsBusy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	free := make(chan struct{})
	var inside atomic.Int64
	tun := tunnelFor(t, r, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		inside.Add(1)
		<-free
		w.WriteHeader(204)
	}), func() []agent { return []agent{agentN(0)} })
	await(t, "connected", connected(tun, 1))
	var all []<-chan reply
	for range relay.MaxInFlight {
		all = append(all, r.later(r.request("GET", place(agentN(0), "/"), "")))
	}
	await(t, "64 are served", func() bool { return inside.Load() == relay.MaxInFlight })
	if got := r.get(place(agentN(0), "/")); got.status != 503 || !strings.Contains(got.body, "host_busy") {
		t.Errorf("the 65th: %d %s", got.status, got.body)
	}
	close(free)
	for _, ch := range all {
		if got := <-ch; got.status != 204 {
			t.Errorf("%d %v", got.status, got.err)
		}
	}
}

// TestOurHostIsToldOfARestart: the drain ends in relay_restarting.
func TestOurHostIsToldOfARestart(t *testing.T) {
	t.Parallel()
	first := newRig(t)
	tun := tunnelFor(t, first, http.NotFoundHandler(), func() []agent { return []agent{agentN(0)} })
	await(t, "connected", connected(tun, 1))
	first.s.Drain(t.Context())
	if first.s.hosts.count() != 0 {
		t.Error("still carried")
	}
	await(t, "noticed", func() bool {
		return tun.Status()[0].State == relay.Connecting && strings.Contains(tun.Status()[0].Detail, "restarts")
	})
}
