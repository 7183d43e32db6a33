package server

import (
	"strings"
	"testing"
	"testing/synctest"

	"osaurus/engine/relay/wire"
)

// FuzzHostFrames sends anything to a tunnel with a request in flight. The
// request is answered, fails as section 3.3 says, or still waits for its answer;
// the tunnel lives on.
func FuzzHostFrames(f *testing.F) {
	for _, s := range []string{
		`{"type":"response","id":"ID","status":200,"headers":{},"body":"x"}`, `{"type":"response","id":"ID","status":1e9,"headers":{"a":"\r\n"}}`,
		`{"type":"response","id":"ID","headers":null}`, `{"type":"stream_start","id":"ID","status":200,"headers":{}}`, `{"type":"stream_chunk","id":"ID","data":"x"}`, `{"type":"stream_end","id":"ID"}`,
		`{"type":"auth","agents":[]}`, `{"type":"pong","ts":null}`, `{"type":"request_challenge"}`, `{"type":"add_agent","address":"0x","signature":"","nonce":"x","timestamp":1}`,
		`{"type":"remove_agent","address":"0x"}`, `{"id":"ID"}`, `[]`, `{`, "\xff", `{"type":"cancel","id":"ID"}`, `{"type":"response","id":"ID","id":"ID","status":200,"headers":{}}`,
	} {
		f.Add(s, `{"type":"stream_chunk","id":"ID","data":1}`)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		synctest.Test(t, func(t *testing.T) {
			b := &bubble{t: t, s: New(Config{Domain: testDomain})}
			m := b.open(agentN(0))
			c := b.call("GET", agentN(0), "/", nil)
			id := b.take(m)[0].ID
			for _, raw := range []string{first, second} {
				m.in <- []byte(strings.ReplaceAll(raw, "ID", id))
				synctest.Wait()
			}
			frames := b.take(m)
			cancelled := false
			for _, frame := range frames {
				cancelled = cancelled || frame.Type == wire.Cancel && frame.ID == id
			}
			got := c.String()
			if cancelled && got == "waiting" {
				t.Errorf("cancelled, and the caller waits: %q %q", first, second)
			}
			if b.closedWith(m) != "open" {
				t.Fatalf("%q %q closed the tunnel: %s", first, second, b.closedWith(m))
			}
			if held := b.s.hosts.owner(agentN(0).addr) != nil; held {
				again := b.call("GET", agentN(0), "/again", nil)
				frames := b.take(m)
				b.put(m, &wire.Frame{Type: wire.Response, ID: frames[len(frames)-1].ID, Status: 200, Headers: map[string]string{}})
				if again.String() != "200 " {
					t.Errorf("%q %q broke the next request: %s", first, second, again)
				}
			}
			c.stop()
			synctest.Wait()
			if n := b.s.held.n.Load(); n != 0 {
				t.Errorf("%q %q: %d bytes stay held", first, second, n)
			}
			b.s.Drain(t.Context())
			b.w.Wait()
		})
	})
}
