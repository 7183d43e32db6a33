package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/relay/wire"
	"osaurus/engine/secret"
)

// ask serves one request without a network.
func ask(s *Server, method, url string, header http.Header) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, url, nil)
	req.RequestURI = strings.TrimPrefix(url, "http://"+req.Host)
	for name, values := range header {
		req.Header[name] = values
	}
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, req)
	return rec
}

// TestRoutes: sections 1 and 7, without any tunnel.
func TestRoutes(t *testing.T) {
	t.Parallel()
	s := New(Config{Domain: testDomain})
	a := agentN(0)
	for name, c := range map[string]struct {
		method, url string
		status      int
		body        string
	}{
		"nobody":                       {"GET", "http://x.test/", 400, `{"error":"invalid_subdomain"}`},
		"the bare domain":              {"GET", "http://" + testDomain + "/", 400, `{"error":"invalid_subdomain"}`},
		"a preflight of nobody":        {"OPTIONS", "http://x.test/", 400, `{"error":"invalid_subdomain"}`},
		"an agent that is not there":   {"GET", place(a, "/"), 502, `{"error":"agent_offline"}`},
		"any method":                   {"BREW", place(a, "/"), 502, `{"error":"agent_offline"}`},
		"connect without an upgrade":   {"GET", "http://x.test/tunnel/connect", 400, `{"error":"websocket_required"}`},
		"connect on an agent's name":   {"GET", place(a, "/x/../tunnel/connect?y"), 400, `{"error":"websocket_required"}`},
		"below connect":                {"GET", "http://x.test/tunnel/connect/", 400, `{"error":"invalid_subdomain"}`},
		"no presence":                  {"GET", "http://x.test/presence?addresses=" + a.addr.Lower(), 404, `{"error":"not_found"}`},
		"no presence, on an agent":     {"GET", place(a, "/presence"), 404, `{"error":"not_found"}`},
		"in capitals it is an agent's": {"GET", place(a, "/Health"), 502, `{"error":"agent_offline"}`},
	} {
		rec := ask(s, c.method, c.url, nil)
		if rec.Code != c.status || rec.Body.String() != c.body {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
		if relayed := rec.Code == 502; (rec.Header().Get("X-Relay-Machine") != "") != relayed || (rec.Header().Get("Server-Timing") != "") != relayed {
			t.Errorf("%s: headers %v", name, rec.Header())
		}
	}
}

// TestPreflight: section 7.4, offline and without a limit.
func TestPreflight(t *testing.T) {
	t.Parallel()
	s := New(Config{Domain: testDomain})
	for range requestsByIP + 1 {
		rec := ask(s, "OPTIONS", place(agentN(0), "/x"), nil)
		want := http.Header{
			"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Methods": {"GET, POST, PUT, PATCH, DELETE, OPTIONS"},
			"Access-Control-Allow-Headers": {"content-type, authorization, x-request-id"}, "Access-Control-Max-Age": {"86400"},
		}
		if rec.Code != 204 || !maps.EqualFunc(rec.Header(), want, slices.Equal) || rec.Body.Len() != 0 {
			t.Fatalf("%d %v", rec.Code, rec.Header())
		}
	}
}

func TestHealthAndStats(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.open(agentN(0), agentN(1))
	var health map[string]any
	got := r.get("http://" + agentN(0).addr.Lower() + ".elsewhere/health")
	if err := json.Unmarshal([]byte(got.body), &health); err != nil || got.status != 200 {
		t.Fatal(got)
	}
	if fmt.Sprint(health) != "map[machine:m1 redis:ok region:here status:ok tunnels:1]" || got.header.Get("X-Relay-Machine") != "" {
		t.Errorf("%v", health)
	}
	var stats map[string]any
	got = r.get("http://x/stats")
	if err := json.Unmarshal([]byte(got.body), &stats); err != nil {
		t.Fatal(err)
	}
	want := strings.Fields("active_agents active_tunnels machine redis_degraded region route_cache_entries total_bad_host_responses total_internal_forwards total_invalid_frames total_replays total_requests_relayed total_slow_consumer_aborts total_takeovers total_tunnel_connections uptime_seconds")
	if keys := slices.Sorted(maps.Keys(stats)); !slices.Equal(keys, want) || stats["active_agents"] != 2.0 || stats["total_tunnel_connections"] != 1.0 {
		t.Errorf("%v", stats)
	}
	for i := range statsPerIP {
		if got := r.get("http://x/stats"); (got.status == 429) != (i == statsPerIP-1) {
			t.Errorf("call %d: %d", i+2, got.status)
		}
	}
}

// TestMetrics: every line is one that Prometheus reads.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := New(Config{})
	rec := httptest.NewRecorder()
	s.Metrics().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	line := regexp.MustCompile(`^(# HELP osaurus_relay_[a-z_]+ .+\.|# TYPE osaurus_relay_[a-z_]+ (gauge|counter)|osaurus_relay_[a-z_]+ \d+)$`)
	n := 0
	for scan := bufio.NewScanner(rec.Body); scan.Scan(); n++ {
		if !line.MatchString(scan.Text()) {
			t.Errorf("%q", scan.Text())
		}
	}
	if n != 3*13 {
		t.Errorf("%d lines", n)
	}
	if rec := ask(s, "GET", "http://x/metrics", nil); rec.Code != 400 {
		t.Errorf("the public listener shows them: %d", rec.Code)
	}
}

// TestPresence: section 7.2.
func TestPresence(t *testing.T) {
	t.Parallel()
	const token = "0123456789abcdef0123456789abcdef"
	bearer := http.Header{"Authorization": {"Bearer " + token}}
	a := agentN(0).addr.Lower()
	s := New(Config{Domain: testDomain, PresenceToken: secret.New([]byte(token)), Now: func() time.Time { return time.UnixMilli(1_800_000_000_123) }})
	long := strings.Repeat(a+",", maxPresence-1) + a
	for name, c := range map[string]struct {
		method, query string
		header        http.Header
		status        int
		body          string
	}{
		"never seen":    {"GET", "?addresses=" + a, bearer, 200, `{"presence":{"` + a + `":{"online":false,"last_seen":null}}}`},
		"any case":      {"GET", "?addresses=" + agentN(0).addr.String(), bearer, 200, `{"presence":{"` + a + `":{"online":false,"last_seen":null}}}`},
		"a hundred":     {"GET", "?addresses=" + long, bearer, 200, `{"presence":{"` + a + `":{"online":false,"last_seen":null}}}`},
		"one more":      {"GET", "?addresses=" + long + "," + a, bearer, 400, `{"error":"invalid_addresses"}`},
		"5,000":         {"GET", "?addresses=" + strings.Repeat("0", 5_000), bearer, 400, `{"error":"invalid_addresses"}`},
		"nothing":       {"GET", "", bearer, 400, `{"error":"invalid_addresses"}`},
		"junk":          {"GET", "?addresses=junk", bearer, 400, `{"error":"invalid_addresses"}`},
		"a trailing ,":  {"GET", "?addresses=" + a + ",", bearer, 400, `{"error":"invalid_addresses"}`},
		"no token":      {"GET", "?addresses=" + a, nil, 401, `{"error":"unauthorized"}`},
		"another token": {"GET", "?addresses=" + a, http.Header{"Authorization": {"Bearer " + token + "x"}}, 401, `{"error":"unauthorized"}`},
		"a post":        {"POST", "?addresses=" + a, bearer, 405, `{"error":"method_not_allowed"}`},
	} {
		rec := ask(s, c.method, "http://x/presence"+c.query, c.header)
		if rec.Code != c.status || strings.TrimSpace(rec.Body.String()) != c.body {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
	short := New(Config{PresenceToken: secret.New([]byte(token[1:]))})
	if rec := ask(short, "GET", "http://x/presence", http.Header{"Authorization": {"Bearer " + token[1:]}}); rec.Code != 404 {
		t.Errorf("a short token: %d", rec.Code)
	}
	for i := range presencePerIP {
		if rec := ask(s, "GET", "http://x/presence", bearer); rec.Code == 429 != (i >= presencePerIP-11) {
			t.Fatalf("call %d: %d", i+12, rec.Code)
		}
	}
}

func TestPresenceOnline(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef"
	inBubble(t, func(b *bubble) {
		m := b.open(agentN(0))
		look := func() string {
			return strings.TrimSpace(ask(b.s, "GET", "http://x/presence?addresses="+agentN(0).addr.Lower(), http.Header{"Authorization": {"Bearer " + token}}).Body.String())
		}
		if got := look(); !strings.Contains(got, `"online":true,"last_seen":"2000-01-01T00:00:00.000Z"`) {
			t.Error(got)
		}
		elapse(time.Minute)
		m.Abort()
		synctest.Wait()
		if got := look(); !strings.Contains(got, `"online":false,"last_seen":"2000-01-01T00:01:00.000Z"`) {
			t.Error(got)
		}
	}, func(c *Config) { c.PresenceToken = secret.New([]byte(token)) })
}

func TestSeenIsBounded(t *testing.T) {
	t.Parallel()
	s := seen{at: map[address.Address]time.Time{}}
	for i := range maxSeen + 10 {
		s.note(time.Unix(1, 0), address.Address{byte(i), byte(i >> 8), byte(i >> 16)})
	}
	if len(s.at) != maxSeen {
		t.Errorf("%d", len(s.at))
	}
}

// TestRequestLimits: an agent's and a caller's, on the machine that has it.
func TestRequestLimits(t *testing.T) {
	t.Parallel()
	s := New(Config{Domain: testDomain, TrustProxy: loopback, Now: func() time.Time { return time.Unix(1_800_000_000, 0) }})
	from := func(n int, ip string) int {
		req := httptest.NewRequest("GET", place(agentN(n), "/"), nil)
		req.RequestURI, req.RemoteAddr = "/", "127.0.0.1:1"
		req.Header.Set("X-Forwarded-For", ip)
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, req)
		return rec.Code
	}
	for range requestsByIP + 1 {
		if got := from(9, "1.1.1.1"); got != 502 {
			t.Fatalf("an agent that is not here costs: %d", got)
		}
	}
	for n := range 4 { // tunnels that are not read: the frame cannot be queued
		tun := newTunnel(s, newMemory())
		tun.out.closed = true
		s.hosts.claim(tun, wire.MaxAgents, agentN(n).addr)
	}
	for i := range requestsByAgent + 1 {
		if got := from(0, fmt.Sprintf("2.2.%d.%d", i/250, i%250)); (got == 429) != (i == requestsByAgent) {
			t.Fatalf("request %d of an agent: %d", i+1, got)
		}
	}
	for i := range requestsByIP + 1 {
		if got := from(1+i/requestsByAgent%3, "1.1.1.1"); (got == 429) != (i == requestsByIP) {
			t.Fatalf("request %d of a caller: %d", i+1, got)
		}
	}
}

// TestInFlightLimit: a tunnel carries so many at once and no more.
func TestInFlightLimit(t *testing.T) {
	t.Parallel()
	tun := newTunnel(New(Config{}), newMemory())
	for i := range maxCalls + 1 {
		if ok := tun.add(&exchange{id: fmt.Sprint(i)}); ok != (i < maxCalls) {
			t.Fatalf("call %d: %v", i+1, ok)
		}
	}
}

// TestDrain: section 8.
func TestDrain(t *testing.T) {
	inBubble(t, func(b *bubble) {
		m := b.open(agentN(0))
		c := b.call("GET", agentN(0), "/", nil)
		f := b.take(m)
		done := make(chan time.Duration, 1)
		began := time.Now()
		go func() { b.s.Drain(b.t.Context()); done <- time.Since(began) }()
		synctest.Wait()
		rec := ask(b.s, "GET", "http://x/health", nil)
		if rec.Code != 503 || !strings.Contains(rec.Body.String(), `"status":"shutting_down"`) {
			t.Errorf("health: %d %s", rec.Code, rec.Body)
		}
		rec = ask(b.s, "GET", "http://x/tunnel/connect", nil)
		if rec.Code != 503 || rec.Body.String() != `{"error":"relay_restarting"}` {
			t.Errorf("connect: %d %s", rec.Code, rec.Body)
		}
		elapse(5 * time.Second)
		if b.closedWith(m) != "open" {
			t.Error("closed while a request is under way")
		}
		b.put(m, &wire.Frame{Type: wire.Response, ID: f[0].ID, Status: 200, Headers: map[string]string{}})
		if got := c.String(); got != "200 " {
			t.Error(got)
		}
		if got := b.says(m); got != "error relay_restarting" || b.closedWith(m) != "1012 relay restarting" {
			t.Errorf("%s, %s", got, b.closedWith(m))
		}
		if took := <-done; took != 5*time.Second || b.s.hosts.count() != 0 {
			t.Errorf("took %s", took)
		}
	})
}

// TestDrainWaitsTwentySeconds: and no longer.
func TestDrainWaitsTwentySeconds(t *testing.T) {
	inBubble(t, func(b *bubble) {
		m := b.open(agentN(0))
		c := b.call("GET", agentN(0), "/", nil)
		began := time.Now()
		b.s.Drain(b.t.Context())
		synctest.Wait()
		if took := time.Since(began); took != drainTime || c.String() != `502 {"error":"tunnel_closed"}` || b.closedWith(m) != "1012 relay restarting" {
			t.Errorf("after %s: %s, %s", took, c, b.closedWith(m))
		}
		late := newMemory()
		b.s.carry(late)
		if b.closedWith(late) == "open" {
			t.Error("a tunnel was taken after the drain")
		}
	})
}
