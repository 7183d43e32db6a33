package drivertest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/wire"
)

// patience bounds every wait on a guest.
const patience = 90 * time.Second

// Guest is a running sandbox whose first process is the stand-in.
type Guest struct {
	sandbox.Sandbox
	nonce string

	ready   chan struct{} // the control stream has come
	mu      sync.Mutex
	control net.Conn
	next    int
	waiting map[int]chan reply
}

type reply struct {
	ID     int    `json:"id"`
	Output string `json:"output"`
	Exit   int    `json:"exit"`
}

// agent is the agent that sandboxes of this test are for, so that what they
// leave can be told from that of a test beside it.
var agent = sync.OnceValue(func() string {
	if *agentID != "" {
		return *agentID
	}
	var raw [4]byte
	_, _ = rand.Read(raw[:])
	return hex.EncodeToString(raw[:])
})

// NewSpec is a small sandbox with an id of its own.
func NewSpec(workspace string, bestEffort bool) sandbox.Spec {
	var id [4]byte
	var nonce [wire.NonceSize]byte
	_, _ = rand.Read(id[:])
	_, _ = rand.Read(nonce[:])
	name := "osr-" + agent() + "-" + hex.EncodeToString(id[:])
	return sandbox.Spec{
		ID: name, Boot: wire.Boot{Sandbox: name, Nonce: hex.EncodeToString(nonce[:])},
		Network: sandbox.NetworkNone, CPUs: 1, MemoryMB: 256, PIDs: 4096, Workspace: workspace, BestEffortLimits: bestEffort,
	}
}

// Start runs a sandbox and waits until it is ready.
func Start(t testing.TB, d sandbox.Driver, spec sandbox.Spec) *Guest {
	t.Helper()
	g := Begin(t, d, spec)
	g.Ready(t)
	return g
}

// Ready waits for the control stream.
func (g *Guest) Ready(t testing.TB) {
	t.Helper()
	g.await(t, g.ready, "its control stream")
}

// Begin runs a sandbox, which is stopped when the test ends.
func Begin(t testing.TB, d sandbox.Driver, spec sandbox.Spec) *Guest {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := d.Start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	g := &Guest{Sandbox: s, nonce: spec.Boot.Nonce, ready: make(chan struct{}), waiting: map[int]chan reply{}}
	var accepting sync.WaitGroup
	accepting.Go(g.accept)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
		accepting.Wait()
	})
	return g
}

func (g *Guest) await(t testing.TB, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-g.Done():
		t.Fatalf("the sandbox ended while the test waited for %s: %v\n%s", what, g.Err(), g.output())
	case <-time.After(patience):
		t.Fatalf("the sandbox does not give %s\n%s", what, g.output())
	}
}

// output is what the guest printed, where the driver keeps it.
func (g *Guest) output() string {
	if o, ok := g.Sandbox.(interface{ Output() string }); ok {
		return o.Output()
	}
	return ""
}

// accept takes the guest's streams. A bridge stream is answered with the
// preface it came with, which is what the host learns of its caller.
func (g *Guest) accept() {
	var streams sync.WaitGroup
	defer streams.Wait()
	for {
		c, err := g.BridgeListener().Accept()
		if err != nil {
			return
		}
		streams.Go(func() {
			defer c.Close()
			lines := bufio.NewReader(c)
			first, err := lines.ReadString('\n')
			switch {
			case err != nil:
			case first == "OSC1 "+g.nonce+"\n":
				g.serve(c, lines)
			case strings.HasPrefix(first, "OSG1 "):
				text, _ := lines.ReadString('\n')
				fmt.Fprintf(c, "%s%s", first, text)
			}
		})
	}
}

func (g *Guest) serve(c net.Conn, lines *bufio.Reader) {
	g.mu.Lock()
	g.control = c
	g.mu.Unlock()
	close(g.ready)
	replies := json.NewDecoder(lines)
	for {
		var r reply
		if replies.Decode(&r) != nil {
			return
		}
		g.mu.Lock()
		to := g.waiting[r.ID]
		delete(g.waiting, r.ID)
		g.mu.Unlock()
		if to != nil {
			to <- r
		}
	}
}

// Launch runs a command as a user; its result comes over the channel, unless
// the sandbox ends.
func (g *Guest) Launch(t testing.TB, uid int, argv ...string) <-chan reply {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next++
	answer := make(chan reply, 1)
	g.waiting[g.next] = answer
	raw, err := json.Marshal(map[string]any{"id": g.next, "uid": uid, "argv": argv})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.control.Write(append(raw, '\n')); err != nil {
		t.Fatalf("the control stream broke: %v", err)
	}
	return answer
}

// Exec runs a command as a user and returns what it printed, without the last
// line feed, and its exit code.
func (g *Guest) Exec(t testing.TB, uid int, argv ...string) (string, int) {
	t.Helper()
	select {
	case r := <-g.Launch(t, uid, argv...):
		return strings.TrimSuffix(r.Output, "\n"), r.Exit
	case <-g.Done():
		t.Fatalf("the sandbox ended during %q: %v", argv, g.Err())
	case <-time.After(patience):
		t.Fatalf("%q does not end", argv)
	}
	return "", 0
}

// Sh is Exec of a shell line.
func (g *Guest) Sh(t testing.TB, uid int, line string) (string, int) {
	t.Helper()
	return g.Exec(t, uid, "/bin/sh", "-c", line)
}

// must fails unless a shell line succeeds.
func (g *Guest) must(t testing.TB, uid int, line string) string {
	t.Helper()
	out, exit := g.Sh(t, uid, line)
	if exit != 0 {
		t.Fatalf("as %d: %s: exit %d: %s", uid, line, exit, out)
	}
	return out
}

// denied fails unless a shell line fails and says why.
func (g *Guest) denied(t testing.TB, uid int, line string, reasons ...string) {
	t.Helper()
	out, exit := g.Sh(t, uid, line)
	if exit == 0 {
		t.Errorf("as %d: %s worked: %s", uid, line, out)
		return
	}
	for _, r := range reasons {
		if strings.Contains(out, r) {
			return
		}
	}
	if len(reasons) > 0 {
		t.Errorf("as %d: %s: %q, want one of %q", uid, line, out, reasons)
	}
}
