package relay

import (
	"context"
	"net/http"

	"github.com/coder/websocket"

	"osaurus/engine/relay/wire"
)

// ConnectPath is where a relay takes tunnels.
const ConnectPath = "/tunnel/connect"

// Dial opens WebSockets to url, a ws or wss URL, with the transport of client.
func Dial(url string, client *http.Client) func(context.Context) (Conn, error) {
	plain := *client
	plain.Timeout = 0                                                                                   // it would end the socket
	plain.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // a challenge is answered where it was asked for
	return func(ctx context.Context) (Conn, error) {
		c, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: &plain, CompressionMode: websocket.CompressionDisabled})
		if err != nil {
			return nil, err
		}
		if resp.Body != nil {
			_ = resp.Body.Close() // it has none
		}
		c.SetReadLimit(wire.MaxFrame)
		return socket{c}, nil
	}
}

// socket is a Conn over a WebSocket.
type socket struct{ c *websocket.Conn }

// Read implements Conn. Binary messages are passed over: the protocol has
// none.
func (s socket) Read(ctx context.Context) ([]byte, error) {
	for {
		kind, raw, err := s.c.Read(ctx)
		if err != nil || kind == websocket.MessageText {
			return raw, err
		}
	}
}

// Write implements Conn.
func (s socket) Write(ctx context.Context, message []byte) error {
	return s.c.Write(ctx, websocket.MessageText, message)
}

// Close implements Conn.
func (s socket) Close(code int, reason string) error {
	return s.c.Close(websocket.StatusCode(code), reason)
}
