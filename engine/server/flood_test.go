package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"osaurus/engine/settings"
)

// TestFlood: ten thousand clients. As many as the cap allows came first and are
// idle, which ends later than unfinished headers; all others come at once. Every
// one of them is told so and let go, the first are served all the same, and
// later anybody is.
func TestFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("opens ten thousand connections")
	}
	const clients = 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	old := limit
	files := uint64(clients + settings.DefaultServer().MaxConnections + maxLingering + 500)
	if limit.Max < files {
		t.Skipf("only %d open files are allowed here", limit.Max)
	}
	limit.Cur = files
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) }()

	h := newHost(t)
	most := h.settings().MaxConnections
	holders := make([]*flooder, most)
	for i := range holders {
		holders[i] = h.flooder()
		holders[i].served()
	}
	var refused atomic.Int64
	release := make(chan struct{})
	var all, settled sync.WaitGroup
	for range clients - most {
		settled.Add(1)
		all.Go(func() {
			c := h.flooder()
			if resp, err := http.ReadResponse(c.in, nil); err == nil && resp.StatusCode == http.StatusServiceUnavailable {
				refused.Add(1)
			}
			settled.Done()
			<-release
			_ = c.Close()
		})
	}
	settled.Wait()
	if refused.Load() != int64(clients-most) {
		t.Errorf("%d of %d were refused; the cap is %d", refused.Load(), clients-most, most)
	}
	for _, c := range holders {
		c.served()
		_ = c.Close()
	}
	close(release)
	all.Wait()
	deadline := time.Now().Add(time.Minute)
	for {
		c := h.flooder()
		resp, err := c.ask()
		_ = c.Close()
		if err == nil && resp.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the host does not recover: %v, %v", resp, err)
		}
	}
}

// flooder is one client. It has more time than any system gives a connection
// that waits to be accepted.
type flooder struct {
	net.Conn
	t  testing.TB
	in *bufio.Reader
}

func (h *host) flooder() *flooder {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.port))
	if err != nil {
		h.t.Error(err)
		c, _ = net.Pipe()
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	return &flooder{c, h.t, bufio.NewReader(c)}
}

// ask keeps the connection.
func (f *flooder) ask() (*http.Response, error) {
	if _, err := io.WriteString(f, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(f.in, nil)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

func (f *flooder) served() {
	f.t.Helper()
	if resp, err := f.ask(); err != nil || resp.StatusCode != http.StatusOK {
		f.t.Fatalf("one who came before the flood is not served: %v, %v", resp, err)
	}
}
