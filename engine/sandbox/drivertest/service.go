package drivertest

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"osaurus/engine/keystore"
	"osaurus/engine/sandbox"
)

// The agents of the service suite.
const (
	agentA = "A0000000-0000-4000-8000-00000000000A"
	agentB = "B0000000-0000-4000-8000-00000000000B"
)

// host is a service over a driver, with the programs that ship inside, and
// ports that remember what came through them.
type host struct {
	*sandbox.Service
	t     testing.TB
	state string

	mu    sync.Mutex
	audit []string
	jobs  []sandbox.Job
	facts map[string][]sandbox.Fact
	tags  []string
	dials []string
}

func newHost(t testing.TB, subject Subject, perAgent bool) *host {
	t.Helper()
	w := NewRealWorld(t)
	h := &host{t: t, state: shortDir(t), facts: map[string][]sandbox.Fact{}}
	d := subject.Open(w, h.state)
	if err := d.Available(t.Context()); err != nil {
		t.Skip(err)
	}
	home := shortDir(t)
	if err := os.Mkdir(filepath.Join(home, "config"), 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	h.Service, err = sandbox.Open(sandbox.ServiceConfig{
		Home: home, Version: "1", Drivers: []sandbox.Driver{d}, Vault: keystore.NewMemory(), Inference: h, Dispatcher: h, Memory: h, Events: h, Log: h.record,
		Lookup: func(_ context.Context, host string) ([]string, error) {
			if host == "inward.example.com" {
				return []string{"10.0.0.1"}, nil
			}
			return []string{"93.184.216.34"}, nil
		},
		Dial: h.dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
		h.nothingLeft()
	})
	one, limits, isolation := 1, sandbox.LimitsEnforced, sandbox.PerAgentMode
	if !subject.Limited {
		limits = sandbox.LimitsBestEffort
	}
	if !perAgent {
		isolation = sandbox.SharedMode
	}
	if _, err := h.Choose(t.Context(), sandbox.Choices{CPUs: &one, MemoryGB: &one, Limits: &limits, Isolation: &isolation}); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) record(event string, attrs ...slog.Attr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	line := event
	for _, a := range attrs {
		line += " " + a.Key + "=" + a.Value.String()
	}
	h.audit = append(h.audit, line)
}

// dial is a web server of one page.
func (h *host) dial(_ context.Context, address string) (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dials = append(h.dials, address)
	a, b := net.Pipe()
	go func() {
		defer b.Close()
		_, _ = b.Read(make([]byte, 4096))
		_, _ = b.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage"))
	}()
	return a, nil
}

// Chat implements sandbox.Inference.
func (h *host) Chat(context.Context, string, string, []sandbox.Message) (string, error) {
	return "hello", nil
}

// Dispatch implements sandbox.Dispatcher.
func (h *host) Dispatch(_ context.Context, job sandbox.Job) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.jobs = append(h.jobs, job)
	return "task", nil
}

// Query implements sandbox.Memory.
func (h *host) Query(_ context.Context, agentID, _ string, _ int) ([]sandbox.Fact, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.facts[agentID], nil
}

// Store implements sandbox.Memory.
func (h *host) Store(_ context.Context, agentID, content string, salience float64, tag string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.facts[agentID] = append(h.facts[agentID], sandbox.Fact{Content: content, Salience: salience, Created: time.Unix(0, 0)})
	h.tags = append(h.tags, tag)
	return nil
}

// Publish implements sandbox.EventBus.
func (h *host) Publish(context.Context, string, string, json.RawMessage) error { return nil }

// as runs a line as an agent and returns all that it printed.
func (h *host) as(agentID, line string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	r, err := h.Exec(ctx, sandbox.Run{AgentID: agentID, Line: line})
	if err != nil {
		h.t.Fatalf("%s: %v", line, err)
	}
	return strings.TrimSpace(r.Stdout + r.Stderr)
}

// want fails unless what an agent's line prints begins like this.
func (h *host) want(name, agentID, line, begins string) {
	h.t.Helper()
	if got := h.as(agentID, line); !strings.HasPrefix(got, begins) {
		h.t.Errorf("%s: %q, want %q", name, got, begins)
	}
}

// audited fails unless a record has all of these words.
func (h *host) audited(words ...string) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
lines:
	for _, line := range h.audit {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		return
	}
	h.t.Errorf("no audit record of %q in %q", words, h.audit)
}

// nothingLeft looks for sandboxes and sockets in the driver's state.
func (h *host) nothingLeft() {
	h.t.Helper()
	err := filepath.WalkDir(h.state, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (d.Type()&fs.ModeSocket != 0 || strings.HasPrefix(d.Name(), "osr-")) {
			h.t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		h.t.Error(err)
	}
}

func tokenOf(agentID string) string {
	return "/run/osaurus/" + sandbox.LinuxName(agentID) + ".token"
}

const (
	refused = `401 {"error":"Bridge token missing or unrecognised"}`
	logBody = ` POST /api/log '{"level":"info","message":"x"}'`
)

// RunService tries the bridge and everything above a driver, from inside, with
// the programs that ship. quick leaves out what moves much data.
func RunService(t *testing.T, subject Subject, perAgent, quick bool) {
	t.Helper()
	h := newHost(t, subject, perAgent)
	own := func(agentID string) string { return "probe -token-file " + tokenOf(agentID) }
	h.want("own token", agentA, own(agentA)+logBody, "200 {}")
	h.want("the command", agentA, "osaurus-host log hi && echo fine", "fine")
	h.want("token file", agentA, "stat -c '%a %u' "+tokenOf(agentA)+" $HOME", "600 2000\n700 2000")
	h.want("missing token", agentA, "probe"+logBody, refused)
	h.want("unknown token", agentA, "probe -token "+strings.Repeat("A", 43)+logBody, refused)
	h.identity(own)
	if !perAgent {
		h.shared(own)
	}
	h.sizes(own(agentA), quick)
	h.egress()
	h.restart(own)
}

// identity is what an agent may do as itself alone.
func (h *host) identity(own func(string) string) {
	h.t.Helper()
	stolen := h.as(agentB, "cat "+tokenOf(agentB))
	h.want("stolen token", agentA, "probe -token "+stolen+logBody, refused)
	h.audited("sandbox_refused", "status=401", "route=log")
	h.want("spoofed headers", agentA, own(agentA)+" -header 'X-Osaurus-User: "+sandbox.LinuxName(agentB)+"' -header 'X-Osaurus-Agent: "+agentB+"'"+` POST /api/agent/memory/store '{"content":"walrus"}'`, "200 {}")
	h.want("own facts", agentA, own(agentA)+` POST /api/agent/memory/query '{"query":"walrus"}'`, `200 {"results":[{"content":"walrus"`)
	h.want("another's facts", agentB, own(agentB)+` POST /api/agent/memory/query '{"query":"walrus"}'`, `200 {"results":[]}`)
	h.want("dispatch for another", agentA, own(agentA)+` POST /api/agent/dispatch '{"task":"x","agent_id":"`+agentB+`"}'`, "403 ")
	h.audited("sandbox_refused", "status=403", "names another agent")
	h.want("dispatch", agentA, own(agentA)+` POST /api/agent/dispatch '{"task":"x","agent_id":"`+strings.ToLower(agentA)+`"}'`, `200 {"task_id":"task"}`)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.jobs) != 1 || h.jobs[0].AgentID != agentA || len(h.tags) != 1 || !strings.HasSuffix(h.tags[0], sandbox.LinuxName(agentA)) {
		h.t.Errorf("jobs %v, tags %v", h.jobs, h.tags)
	}
	for _, line := range h.audit {
		if strings.Contains(line, stolen) {
			h.t.Errorf("a token stands in the log: %s", line)
		}
	}
}

// shared is what two agents of one sandbox see of each other, and that one can
// be ended while the other goes on.
func (h *host) shared(own func(string) string) {
	h.t.Helper()
	h.as(agentB, "echo x > secret; chmod 666 secret")
	h.want("another's file", agentA, "cat "+sandbox.Home(sandbox.LinuxName(agentB))+"/secret; cat "+tokenOf(agentB)+"; ls /run/osaurus", "cat: ")
	if got := h.as(agentA, "cat "+sandbox.Home(sandbox.LinuxName(agentB))+"/secret "+tokenOf(agentB)); strings.Count(got, "Permission denied") != 2 {
		h.t.Errorf("another's files: %q", got)
	}
	h.commandLines()
	before := h.Status(h.t.Context()).Environments
	h.as(agentB, "umask 077; cat "+tokenOf(agentB)+" > old")
	if err := h.StopAgent(h.t.Context(), agentB); err != nil {
		h.t.Fatal(err)
	}
	h.want("revoked token", agentB, "probe -token-file old"+logBody, refused)
	h.want("new token, old home", agentB, own(agentB)+logBody+"; cat secret", "200 {}\nx")
	h.want("the other's token", agentA, own(agentA)+logBody, "200 {}")
	if after := h.Status(h.t.Context()).Environments; len(before) != 1 || len(after) != 1 || before[0].Sandbox != after[0].Sandbox {
		h.t.Errorf("before %v, after %v", before, after)
	}
}

// commandLines: one agent does not see what another runs.
func (h *host) commandLines() {
	h.t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := h.Exec(h.t.Context(), sandbox.Run{AgentID: agentB, Line: "touch /workspace/shared/up; sleep 7773 & while test -e /workspace/shared/up; do sleep 0.1; done; kill $!"})
		ended <- err
	}()
	h.as(agentA, "while ! test -e /workspace/shared/up; do sleep 0.1; done")
	if got := h.as(agentA, "ps; ls -d /proc/[0-9]*; for p in $(seq 1 200); do tr '\\0' ' ' < /proc/$p/cmdline; done 2>/dev/null"); strings.Contains(got, "7773") || strings.Contains(got, "osaurus-guest") {
		h.t.Errorf("another's command lines: %q", got)
	}
	h.as(agentB, "rm /workspace/shared/up")
	if err := <-ended; err != nil {
		h.t.Error(err)
	}
}

// sizes are 8 MiB and a byte more, declared and in chunks.
func (h *host) sizes(own string, quick bool) {
	h.t.Helper()
	for _, mode := range []string{"", " -chunked"} {
		if quick && mode != "" {
			return
		}
		if !quick {
			h.want("the largest body"+mode, agentA, fmt.Sprintf("%s -size %d%s POST /api/log", own, sandbox.MaxBody, mode), "400 ")
		}
		h.want("a byte more"+mode, agentA, fmt.Sprintf("%s -size %d%s POST /api/log", own, sandbox.MaxBody+1, mode), "413 ")
	}
	h.want("a byte more without a token", agentA, fmt.Sprintf("probe -size %d POST /api/log", sandbox.MaxBody+1), "413 ")
}

// egress is the network that a host has by default: every public host, through
// the channel, and nothing inward.
func (h *host) egress() {
	h.t.Helper()
	h.want("a public host", agentA, "wget -q -O - http://example.com/", "page")
	for _, inward := range []string{"http://10.0.0.1/", "http://127.0.0.1:80/", "http://169.254.169.254/", "http://localhost/", "http://inward.example.com/"} {
		h.want(inward, agentA, "no_proxy= NO_PROXY= wget -q -O - "+inward, "wget: server returned error: HTTP/1.1 403")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.dials) != 1 || h.dials[0] != "93.184.216.34:80" {
		h.t.Errorf("dialled %v", h.dials)
	}
}

// restart: the home survives, the token does not, and nothing is left between.
func (h *host) restart(own func(string) string) {
	h.t.Helper()
	h.as(agentA, "umask 077; cat "+tokenOf(agentA)+" > old; mkdir -p d; echo kept > d/file; chmod 640 d/file; ln -s /etc/passwd d/link")
	h.as(agentA, "mkdir shut; echo x > shut/f; chmod 0 shut/f; chmod 500 shut; rm SOUL.md; ln -s d/file SOUL.md; rmdir plugins; ln -s /nonexistent plugins")
	if err := h.Stop(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	h.nothingLeft()
	h.want("old token", agentA, "probe -token-file old"+logBody, refused)
	h.audited("sandbox_refused", "unknown token")
	h.want("new token", agentA, own(agentA)+logBody, "200 {}")
	h.want("home", agentA, "cat d/file; stat -c '%a %u' d/file; stat -c %N d/link; ls -a | grep osaurus-home; id -u", "kept\n640 2000\n'd/link' -> '/etc/passwd'\n2000")
	h.want("odd home", agentA, "stat -c '%a %u' shut shut/f; stat -c %N SOUL.md plugins; chmod 700 shut/f; cat shut/f SOUL.md", "500 2000\n0 2000\n'SOUL.md' -> 'd/file'\n'plugins' -> '/nonexistent'\nx\nkept")
}
