package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"osaurus/engine/settings"
)

// TestFlood: ten thousand clients at once. As many as the cap allows are held,
// every other one is told so and let go, and the host serves afterwards.
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
	var held, refused, odd atomic.Int64
	release := make(chan struct{})
	var all, settled sync.WaitGroup
	for range clients {
		settled.Add(1)
		all.Go(func() {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.port))
			if err != nil {
				odd.Add(1)
				settled.Done()
				return
			}
			defer c.Close()
			// The rest of a request never comes; who is not refused is held.
			first := make([]byte, 512)
			_ = c.SetReadDeadline(time.Now().Add(headerTimeout / 2))
			n, err := io.ReadAtLeast(c, first, 12)
			switch {
			case n == 0 && isTimeout(err):
				held.Add(1)
			case strings.HasPrefix(string(first[:n]), "HTTP/1.1 503"):
				refused.Add(1)
			default:
				odd.Add(1)
			}
			settled.Done()
			<-release
		})
	}
	settled.Wait()
	if held.Load() != int64(most) || refused.Load() != int64(clients-most) || odd.Load() != 0 {
		t.Errorf("%d held, %d refused, %d neither; the cap is %d", held.Load(), refused.Load(), odd.Load(), most)
	}
	close(release)
	all.Wait()
	deadline := time.Now().Add(headerTimeout)
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.port))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		_ = c.Close()
		if err == nil && resp.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the host does not recover: %v, %v", resp, err)
		}
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
