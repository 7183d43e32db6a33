package sandbox

import (
	"encoding/json"
	"net"
	"testing"

	"osaurus/engine/sandbox/wire"
)

// TestDownloadBound: a guest that sends more of a file than it may is not
// kept in memory.
func TestDownloadBound(t *testing.T) {
	t.Parallel()
	const pieces, size = 3, 100
	for extra, ok := range map[int]bool{0: true, 1: false} {
		host, guest := net.Pipe()
		g := NewGuest(host)
		go func() {
			line, err := wire.ReadLine(wire.NewLineReader(guest))
			if err != nil {
				return
			}
			r, err := wire.ParseRequest(line)
			if err != nil {
				return
			}
			send := func(reply wire.Reply) {
				raw, err := json.Marshal(reply)
				if err == nil {
					_, err = guest.Write(append(raw, '\n'))
				}
				if err != nil {
					t.Error(err)
				}
			}
			for range pieces {
				send(wire.Reply{ID: r.ID, OK: true, More: true, Data: make([]byte, size)})
			}
			send(wire.Reply{ID: r.ID, OK: true, Data: make([]byte, extra)})
		}()
		data, _, err := g.get(t.Context(), "", "/f", pieces*size)
		if (err == nil) != ok || ok && len(data) != pieces*size {
			t.Errorf("%d more: %d bytes, %v", extra, len(data), err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		_ = guest.Close()
	}
}
