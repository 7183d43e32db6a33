package redis

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/identity"
	"osaurus/engine/relay"
	"osaurus/engine/relay/server"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

const domain = "relay.test"

// signer is an agent's key.
type signer struct{ key signature.Key }

func (s signer) Address() address.Address { return s.key.Address() }

func (s signer) Sign(_ context.Context, d signature.Digest) (signature.Signature, error) {
	return s.key.Sign(d), nil
}

func newSigner(t testing.TB, n uint64) signer {
	t.Helper()
	var scalar [32]byte
	scalar[0] = 9
	binary.BigEndian.PutUint64(scalar[24:], n)
	k, err := signature.NewKey(secret.New(scalar[:]))
	must(t, err)
	return signer{k}
}

// node is one relay of a domain.
type node struct {
	t                testing.TB
	s                *server.Server
	public, internal string
	stop             func() // as a crash does
}

func (p *program) node(name string) *node {
	p.t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(p.t, err)
		return l
	}
	pub, in := listen(), listen()
	tr := &http.Transport{DisableCompression: true}
	s := server.New(server.Config{
		Domain: domain, Machine: name, Directory: p.open(name, "http://"+in.Addr().String()), InternalSecret: secret.New([]byte(strings.Repeat("s", 32))), Transport: tr,
	})
	servers := []*http.Server{s.HTTP(s), s.HTTP(s.Internal())}
	go func() { _ = servers[0].Serve(pub) }()
	go func() { _ = servers[1].Serve(in) }()
	n := &node{t: p.t, s: s, public: pub.Addr().String(), internal: in.Addr().String()}
	n.stop = func() {
		for _, srv := range servers {
			_ = srv.Close()
		}
	}
	p.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Drain(ctx)
		n.stop()
		tr.CloseIdleConnections()
	})
	return n
}

func (n *node) client() *http.Client {
	tr := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, n.public)
	}}
	n.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

// tunnel runs our host for one agent.
func (n *node) tunnel(s signer, h http.HandlerFunc) *relay.Tunnel {
	n.t.Helper()
	t := relay.New(relay.Config{
		Agents:  func() []relay.Agent { return []relay.Agent{{ID: "a", Address: s.Address()}} },
		Signer:  func(context.Context, address.Address) (identity.Signer, error) { return s, nil },
		Handler: h, Dial: relay.Dial("ws://x"+relay.ConnectPath, n.client()),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); t.Run(ctx) }()
	n.t.Cleanup(func() { cancel(); <-done })
	await(n.t, "connected", func() bool { s := t.Status(); return len(s) == 1 && s[0].State == relay.Connected })
	return t
}

// known waits until the directory has it that a node carries s: at once, or
// after two seconds where Redis was slow.
func (n *node) known(p *program, s signer) {
	n.t.Helper()
	d := p.open("look", "")
	await(n.t, "known to others", func() bool {
		machine, url, err := d.Owner(n.t.Context(), s.Address())
		return err == nil && machine == n.s.Machine() && url != ""
	})
}

func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

type reply struct {
	status int
	header http.Header
	body   string
}

func (n *node) do(method, url, body string, header http.Header) reply {
	n.t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	must(n.t, err)
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := n.client().Do(req)
	must(n.t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	must(n.t, err)
	return reply{resp.StatusCode, resp.Header, string(raw)}
}

func place(s signer, path string) string {
	return "http://" + s.Address().Lower() + "." + domain + path
}

// TestTwoRelays: a request that comes to one reaches the host of the other.
func TestTwoRelays(t *testing.T) {
	t.Parallel()
	p := start(t)
	one, two := p.node("one"), p.node("two")
	s := newSigner(t, 1)
	one.tunnel(s, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 50 {
				_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			}
		case "/headers":
			for name, values := range r.Header {
				_, _ = fmt.Fprintf(w, "%s=%s\n", strings.ToLower(name), strings.Join(values, ","))
			}
		default:
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("X-Path", r.RequestURI)
			w.WriteHeader(201)
			_, _ = w.Write(body)
		}
	})
	one.known(p, s)
	forged := http.Header{"X-Relay-Internal-Hop": {"1"}, "X-Relay-Client-Ip": {"6.6.6.6"}, "X-Relay-Original-Path": {"/forged"}, "X-Relay-Internal-Auth": {"1.00"}, "Fly-Region": {"x"}, "Cookie": {"c=1"}, "X-Own": {"y"}}
	for _, size := range []int{0, 10, 3 << 20, 10 << 20} {
		text := strings.Repeat("x", size)
		got := two.do("POST", place(s, "/a/../b%2Fc?q=1"), text, forged)
		if got.status != 201 || got.body != text || got.header.Get("X-Path") != "/b%2Fc?q=1" || got.header.Get("X-Relay-Machine") != "one" || got.header.Get("X-Relay-Hop-Miss") != "" {
			t.Errorf("%d bytes: %d, %d bytes, %v", size, got.status, len(got.body), got.header)
		}
	}
	if got := two.do("POST", place(s, "/"), strings.Repeat("x", 10<<20+1), nil); got.status != 413 {
		t.Errorf("too large: %d", got.status)
	}
	if got := two.do("GET", place(s, "/events"), "", nil); strings.Count(got.body, "data: ") != 50 {
		t.Errorf("events: %q", got.body)
	}
	if got := two.do("GET", place(s, "/headers"), "", forged).body; strings.Contains(got, "x-relay-") || strings.Contains(got, "fly-") || strings.Contains(got, "cookie") || strings.Contains(got, "6.6.6.6") || !strings.Contains(got, "x-own=y") || !strings.Contains(got, "x-forwarded-for=127.0.0.1") {
		t.Errorf("headers:\n%s", got)
	}
	if st := two.s.Statistics(); st.InternalForwards == 0 || st.Requests != 0 || st.RouteCacheEntries != 1 {
		t.Errorf("%+v", st)
	}
	// The internal listener believes nothing that is not proven.
	forged.Set("X-Relay-Original-Host", s.Address().Lower()+"."+domain)
	req, err := http.NewRequest("GET", "http://"+one.internal+"/", nil)
	must(t, err)
	req.Header = forged
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a forged hop: %d", resp.StatusCode)
	}
}

// TestTakeoverAcross: the newest tunnel owns the address, on whatever machine.
func TestTakeoverAcross(t *testing.T) {
	t.Parallel()
	p := start(t)
	one, two := p.node("one"), p.node("two")
	s := newSigner(t, 2)
	named := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }
	}
	one.tunnel(s, named("old"))
	one.known(p, s)
	two.tunnel(s, named("new"))
	two.known(p, s)
	if got := two.do("GET", place(s, "/"), "", nil); got.body != "new" {
		t.Errorf("%+v", got)
	}
	// The old machine learns it at the next pong, here made by hand.
	if owner := one.s.RefreshNow(); owner != 0 {
		t.Errorf("%d agents are still held", owner)
	}
	if got := one.do("GET", place(s, "/"), "", nil); got.body != "new" {
		t.Errorf("by the old machine: %+v", got)
	}
}

// TestOneRelayDies: what it carried cannot be reached, until the host is at
// another.
func TestOneRelayDies(t *testing.T) {
	t.Parallel()
	p := start(t)
	one, two := p.node("one"), p.node("two")
	s := newSigner(t, 3)
	one.tunnel(s, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	one.known(p, s)
	if got := two.do("GET", place(s, "/"), "", nil); got.status != 204 {
		t.Fatalf("%+v", got)
	}
	one.stop()
	if got := two.do("GET", place(s, "/"), "", nil); got.status != 502 || got.body != `{"error":"agent_unreachable"}` {
		t.Errorf("%+v", got)
	}
	two.tunnel(s, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(205) })
	if got := two.do("GET", place(s, "/"), "", nil); got.status != 205 {
		t.Errorf("%+v", got)
	}
}

// TestStaleEntries: one that names the asker, and one whose machine does not
// have the agent: no second hop, and the cache forgets.
func TestStaleEntries(t *testing.T) {
	t.Parallel()
	p := start(t)
	one, two := p.node("one"), p.node("two")
	s, other := newSigner(t, 4), newSigner(t, 5)
	d := p.open("one", "http://"+one.internal)
	ctx := t.Context()
	must(t, d.Claim(ctx, []address.Address{s.Address()}))
	if got := one.do("GET", place(s, "/"), "", nil); got.status != 502 || got.body != `{"error":"agent_offline"}` {
		t.Errorf("naming itself: %+v", got)
	}
	must(t, d.Claim(ctx, []address.Address{other.Address()}))
	if got := two.do("GET", place(other, "/"), "", nil); got.status != 502 || got.body != `{"error":"agent_offline"}` || got.header.Get("X-Relay-Machine") != "one" {
		t.Errorf("a miss over there: %+v", got)
	}
	if st := two.s.Statistics(); st.RouteCacheEntries != 0 || one.s.Statistics().InternalForwards != 0 {
		t.Errorf("%+v", st)
	}
	// A second miss asks Redis once: what nobody has is remembered too.
	must(t, d.Release(ctx, []address.Address{other.Address()}))
	two.do("GET", place(other, "/"), "", nil)
	before := commands(t, d)
	two.do("GET", place(other, "/"), "", nil)
	if after := commands(t, d); after != before {
		t.Errorf("%d lookups more", after-before)
	}
}

// commands counts GETs that Redis has seen.
func commands(t testing.TB, d *Directory) int {
	t.Helper()
	text, err := d.c.Info(t.Context(), "commandstats").Result()
	must(t, err)
	for scan := bufio.NewScanner(strings.NewReader(text)); scan.Scan(); {
		var n int
		if _, err := fmt.Sscanf(scan.Text(), "cmdstat_get:calls=%d", &n); err == nil {
			return n
		}
	}
	return 0
}

// TestRedisDies: tunnels live on, requests at their own relay too; once it is
// back, empty, everything is found again.
func TestRedisDies(t *testing.T) {
	t.Parallel()
	p := start(t)
	one, two := p.node("one"), p.node("two")
	s, fresh := newSigner(t, 6), newSigner(t, 7)
	var served atomic.Int64
	h := func(w http.ResponseWriter, _ *http.Request) { served.Add(1); w.WriteHeader(204) }
	tun := one.tunnel(s, h)
	p.kill()
	one.tunnel(fresh, h) // one that comes meanwhile is taken
	for range 3 {
		if got := one.do("GET", place(s, "/"), "", nil); got.status != 204 {
			t.Errorf("without Redis: %d", got.status)
		}
	}
	if got := two.do("GET", place(s, "/"), "", nil); got.status != 502 {
		t.Errorf("elsewhere, without Redis: %d", got.status)
	}
	if got := one.do("GET", "http://x/health", "", nil); !strings.Contains(got.body, `"redis":"degraded"`) || got.status != 200 {
		t.Errorf("health: %s", got.body)
	}
	p.run()
	for _, a := range []signer{s, fresh} {
		await(t, "the agent is found again", func() bool { return two.do("GET", place(a, "/"), "", nil).status == 204 })
	}
	await(t, "health is ok again", func() bool { return strings.Contains(one.do("GET", "http://x/health", "", nil).body, `"redis":"ok"`) })
	if got := tun.Status()[0].State; got != relay.Connected {
		t.Errorf("the tunnel was %s", got)
	}
}

// TestDrainReleases: after a drain Redis has nothing of the relay.
func TestDrainReleases(t *testing.T) {
	t.Parallel()
	p := start(t)
	one := p.node("one")
	one.tunnel(newSigner(t, 8), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	d := p.open("look", "")
	owned := func() int {
		return len(d.c.Keys(t.Context(), "agent:*").Val()) + len(d.c.Keys(t.Context(), "relay:*").Val())
	}
	await(t, "known to others", func() bool { return owned() == 2 }) // again after two seconds, where Redis was slow
	one.s.Drain(t.Context())
	if got := owned(); got != 0 {
		t.Errorf("%d keys are left", got)
	}
}
