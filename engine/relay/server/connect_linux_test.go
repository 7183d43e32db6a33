package server

import (
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"osaurus/engine/relay/wire"
)

// TestConnectLimits: section 7.3; sockets count from the upgrade on and are
// given back.
func TestConnectLimits(t *testing.T) {
	t.Parallel()
	began := time.Now()
	var shift atomic.Int64
	r := newRig(t, func(c *Config) { c.Now = func() time.Time { return began.Add(time.Duration(shift.Load())) } })
	pass := func() { shift.Add(int64(minute)) }
	var open []*host
	for len(open) < socketsPerIP {
		h, resp, err := r.dialFrom("127.0.0.1")
		if err != nil && resp != nil && resp.StatusCode == 429 && len(open)%connectsPerIP == 0 {
			pass() // the rate is another limit
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		h.want(wire.Challenge)
		open = append(open, h)
	}
	upgrade := func(ip string) reply {
		req := r.request("GET", "http://x/tunnel/connect", "")
		req.Header.Set("Upgrade", "websocket")
		req.Header.Set("Connection", "Upgrade")
		resp, err := r.clientFrom(ip).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var e struct{ Error string }
		_ = json.NewDecoder(resp.Body).Decode(&e)
		_ = resp.Body.Close()
		return reply{status: resp.StatusCode, body: e.Error}
	}
	pass()
	if got := upgrade("127.0.0.1"); got.status != 429 || got.body != "too_many_connections" {
		t.Errorf("socket 51: %+v", got)
	}
	if h, _, err := r.dialFrom("127.0.0.2"); err != nil {
		t.Error(err)
	} else {
		h.want(wire.Challenge)
	}
	_ = open[0].c.CloseNow()
	for {
		r.s.limits.mu.Lock()
		n := r.s.limits.sockets["127.0.0.1"]
		r.s.limits.mu.Unlock()
		if n < socketsPerIP {
			break
		}
	}
	if h, _, err := r.dialFrom("127.0.0.1"); err != nil {
		t.Error(err)
	} else {
		h.want(wire.Challenge)
	}
	for range connectsPerIP - 2 {
		upgrade("127.0.0.1")
	}
	if got := upgrade("127.0.0.1"); got.status != 429 || got.body != "rate_limited" {
		t.Errorf("connect 21: %+v", got)
	}
}
