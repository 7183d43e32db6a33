package engine_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"osaurus/engine/internal/base64url"
	"osaurus/engine/internal/benchratio"
)

// served is a running host of the built binary.
type served struct {
	cmd   *exec.Cmd
	url   string
	agent string // an address
}

// environment keeps the machine's buses, and so its keyring, out of it.
func environment() []string {
	return append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere", "DBUS_SESSION_BUS_ADDRESS=unix:path=/nowhere")
}

// serveBinary starts the binary and returns how long it took until it answered.
func serveBinary(b *testing.B, bin, home string) (served, time.Duration) {
	begun := time.Now()
	cmd := exec.CommandContext(b.Context(), bin, "--home", home, "--json", "serve", "--port", "0")
	cmd.Env = environment()
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	s := served{cmd: cmd}
	b.Cleanup(s.stop)
	var started struct{ URL string }
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&started); err != nil {
		b.Fatal(err)
	}
	s.url = started.URL
	resp, err := http.Get(s.url + "/health")
	if err != nil {
		b.Fatal(err)
	}
	_ = resp.Body.Close()
	return s, time.Since(begun)
}

func (s *served) stop() {
	_ = s.cmd.Process.Signal(os.Interrupt) // it may be gone already
	_ = s.cmd.Wait()
}

var resident = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// residentOf is what the kernel holds for a process, in KiB.
func residentOf(b *testing.B, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	m := resident.FindSubmatch(text)
	if m == nil {
		b.Fatal("no VmRSS")
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkBinary is the built program as a whole: its size, from its start to
// its first answer, and its memory, at rest and with a thousand sessions.
func BenchmarkBinary(b *testing.B) {
	bin, home := filepath.Join(b.TempDir(), "osaurus"), filepath.Join(b.TempDir(), "home")
	if out, err := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-buildmode=pie", "-ldflags", "-s -w", "-o", bin, "osaurus/app/osaurus").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	first, _ := serveBinary(b, bin, home) // makes the identity
	first.stop()
	b.Run("10a cold start to the first answer", func(b *testing.B) {
		benchratio.Measure(b, 9, "ms", benchratio.AtMost(500), func() float64 {
			s, took := serveBinary(b, bin, home)
			s.stop()
			return float64(took) / float64(time.Millisecond)
		})
	})
	s, _ := serveBinary(b, bin, home)
	b.Run("10d memory at rest", func(b *testing.B) {
		benchratio.Measure(b, 1, "KiB", benchratio.AtMost(40<<10), func() float64 { return residentOf(b, s.cmd.Process.Pid) })
	})
	b.Run("10e memory with 1000 sessions", func(b *testing.B) {
		s.agent = firstAddress(b, bin, home)
		for n := range 1000 {
			handshakeFrom(b, s, fmt.Sprintf("127.9.%d.1", 1+n/25))
		}
		benchratio.Measure(b, 1, "KiB", benchratio.AtMost(48<<10), func() float64 { return residentOf(b, s.cmd.Process.Pid) })
	})
	b.Run("10f size of the binary", func(b *testing.B) {
		info, err := os.Stat(bin)
		if err != nil {
			b.Fatal(err)
		}
		benchratio.Measure(b, 1, "MiB", benchratio.AtMost(36), func() float64 { return float64(info.Size()) / (1 << 20) })
	})
}

// firstAddress asks for the first agent's.
func firstAddress(b *testing.B, bin, home string) string {
	cmd := exec.CommandContext(b.Context(), bin, "--home", home, "--json", "agents", "list")
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	var list []struct{ Address string }
	if err := json.Unmarshal(out, &list); err != nil {
		b.Fatal(err)
	}
	for _, a := range list {
		if len(a.Address) == 42 && strings.Trim(a.Address, "0x") != "" {
			return a.Address
		}
	}
	b.Fatal("no agent has an address")
	return ""
}

// handshakeFrom opens one session from an address of its own.
func handshakeFrom(b *testing.B, s served, from string) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext}
	key, nonce := base64url.Encode(append(bytes.Repeat([]byte{9}, 31), 1)), base64url.Encode(make([]byte, 16))
	body := fmt.Sprintf(`{"v":1,"agentAddress":%q,"encPub":%q,"nonce":%q}`, strings.ToLower(s.agent), key, nonce)
	req, err := http.NewRequestWithContext(context.WithoutCancel(b.Context()), http.MethodPost, s.url+"/secure/session", strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("%d %s %v", resp.StatusCode, text, err)
	}
}
