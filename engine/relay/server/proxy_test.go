package server

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/coder/websocket"
)

// loopback is trusted where a test has callers of many addresses.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// dialAs opens a socket as a proxy does for a client at ip.
func (r *rig) dialAs(ip string) *host {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://x/tunnel/connect", &websocket.DialOptions{HTTPClient: r.clientFrom("127.0.0.1"), HTTPHeader: http.Header{"X-Forwarded-For": {ip}}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.CloseNow() })
	return &host{r.t, c}
}
