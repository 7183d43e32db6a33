package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"osaurus/engine"
	"osaurus/engine/agents"
	"osaurus/engine/pairing"
	"osaurus/engine/relay"
	"osaurus/engine/runner"
	"osaurus/engine/secret"
	"osaurus/engine/settings"
	"osaurus/engine/storage/chats"
)

// How large TestWhole is: small with all tests, the figures of decisions D24
// with "make soak": 9 hosts, 44 peers over the LAN and 6 over the relay, 10 runs each.
var (
	wholeHosts  = flag.Int("hosts", 2, "hosts of TestWhole; each runs at most 64 agents at once")
	wholePeers  = flag.Int("peers", 4, "peers of TestWhole, each from an address of its own")
	wholeRelay  = flag.Int("relayed", 1, "how many of these peers come through the relay")
	wholeRuns   = flag.Int("runs", 3, "runs of each peer at once")
	wholeRounds = flag.Int("rounds", 3, "how often each run is made")
)

// answerTokens is how many events the provider's answer has.
const answerTokens = 8

// tagged is a provider that answers with the tag of what it was asked, piece by
// piece. While it is held it stalls in the middle of each answer.
type tagged struct {
	asked, stalled atomic.Int64

	mu   sync.Mutex
	free chan struct{} // closed: nobody waits
}

func (p *tagged) hold() (release func()) {
	free := make(chan struct{})
	p.mu.Lock()
	p.free = free
	p.mu.Unlock()
	return sync.OnceFunc(func() { close(free) })
}

func (p *tagged) waiting() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.free
}

func (p *tagged) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if strings.HasSuffix(q.URL.Path, "/models") {
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"tagged","object":"model"}]}`)
		return
	}
	var in struct {
		Messages []struct{ Content string } `json:"messages"`
	}
	if err := json.NewDecoder(q.Body).Decode(&in); err != nil || len(in.Messages) == 0 {
		http.Error(w, "no messages", http.StatusBadRequest)
		return
	}
	p.asked.Add(1)
	tag := in.Messages[len(in.Messages)-1].Content
	w.Header().Set("Content-Type", "text/event-stream")
	for n := range answerTokens {
		if n == answerTokens/2 {
			p.stalled.Add(1)
			select {
			case <-p.waiting():
			case <-q.Context().Done():
			}
			p.stalled.Add(-1)
		}
		_, _ = fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":\"%s|\"}}]}\n\n", tag)
		if http.NewResponseController(w).Flush() != nil {
			return
		}
	}
	_, _ = io.WriteString(w, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
}

// listenOn serves h on loopback until the test ends.
func listenOn(t *testing.T, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h} //nolint:gosec // on loopback, for the length of a test
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return "http://" + l.Addr().String()
}

// wholeHost is a host with what is known of it from outside.
type wholeHost struct {
	*host
	home    string
	agent   agents.Agent
	refused atomic.Int64 // refusals its callers saw
}

// wholePeer is somebody else's host, which only calls.
type wholePeer struct {
	*engine.Engine
	n       int
	at      *wholeHost
	relayed bool
	peer    pairing.Peer
	idle    func()

	revoked atomic.Bool // set after the call that revoked its key returned

	mu    sync.Mutex
	acked map[string][]string // by session, the tags of answers it got whole
}

// from returns a client whose connections come from one address.
func from(ip string) (*http.Client, *http.Transport) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: time.Minute}
	tr := &http.Transport{DialContext: d.DialContext}
	return &http.Client{Transport: tr}, tr
}

// whole is everything at once.
type whole struct {
	t     *testing.T
	relay *relayHost
	hosts []*wholeHost
	peers []*wholePeer
	model tagged

	answers, retried, revocations, rotations, moves atomic.Int64
}

func newWhole(t *testing.T) *whole {
	t.Helper()
	w := &whole{t: t}
	release := w.model.hold()
	release()
	provider := listenOn(t, &w.model)
	w.relay = startBareRelay(t)
	for range *wholeHosts {
		h := &wholeHost{home: t.TempDir()}
		h.host = start(t, h.home)
		if err := h.UseProvider(t.Context(), settings.Provider{BaseURL: provider, Model: "tagged"}, secret.Bytes{}); err != nil {
			t.Fatal(err)
		}
		h.agent = w.relay.join(h.host)
		s := h.Settings()
		s.Expose = true // nobody is trusted for where the socket comes from
		if err := h.SetSettings(s); err != nil {
			t.Fatal(err)
		}
		w.hosts = append(w.hosts, h)
	}
	for n := range *wholePeers {
		w.pair(n)
	}
	return w
}

func (w *whole) pair(n int) {
	t := w.t
	t.Helper()
	p := &wholePeer{n: n, at: w.hosts[n%len(w.hosts)], relayed: n < *wholeRelay, acked: map[string][]string{}}
	o := ports()
	var tr *http.Transport
	o.Client, tr = from(fmt.Sprintf("127.%d.%d.1", 20+n/200, 1+n%200))
	p.idle = tr.CloseIdleConnections
	p.Engine = openHost(t, o, engine.Config{Home: t.TempDir(), Version: "test"})
	t.Cleanup(func() {
		if err := p.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("closing a peer: %v", err)
		}
		p.idle()
	})
	if _, err := p.FirstStart(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.relayed {
		w.relay.use(&host{Engine: p.Engine, t: t})
		var link string
		if _, link, err = p.at.Invite(t.Context(), p.at.agent, pairing.DefaultInvite); err == nil {
			p.peer, err = p.AcceptInvite(t.Context(), link, "")
		}
	} else {
		wait := p.at.approve(pairing.NinetyDays)
		p.peer, err = p.Pair(t.Context(), pairing.Target{BaseURL: p.at.url, AgentID: p.at.agent.ID, Address: p.at.agent.Address}, "assistant")
		wait()
	}
	if err != nil {
		t.Fatalf("pairing peer %d: %v", n, err)
	}
	w.peers = append(w.peers, p)
}

// errRetry is an attempt that came to nothing and may be made again.
var errRetry = errors.New("not answered")

// run asks once. nil means that the whole answer came; other errors than
// errRetry break a promise.
func (p *wholePeer) run(ctx context.Context, session, tag string) error {
	late := p.revoked.Load()
	resp, err := p.CallPeer(ctx, p.peer, func(base *url.URL) (*http.Request, error) {
		body := fmt.Sprintf(`{"session_id":%q,"messages":[{"role":"user","content":%q}]}`, session, tag)
		return http.NewRequest(http.MethodPost, base.JoinPath("agents", p.peer.Address.Lower(), "run").String(), strings.NewReader(body))
	})
	if err != nil {
		return fmt.Errorf("%w: %v", errRetry, err) //nolint:errorlint // only one of them is looked for
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if !p.relayed && refusedStatus(resp.StatusCode) { // a relay has limits of its own
		p.at.refused.Add(1)
	}
	if late && resp.StatusCode == http.StatusOK {
		return fmt.Errorf("a revoked key is accepted: %.200s", raw)
	}
	content, failed := contentOf(string(raw))
	for part := range strings.SplitSeq(strings.TrimSuffix(content, "|"), "|") {
		if part != "" && part != tag && !strings.HasPrefix(tag, part) {
			return fmt.Errorf("asked %s and got what was for %q", tag, part)
		}
	}
	if err != nil || failed || resp.StatusCode != http.StatusOK || strings.Count(content, tag+"|") != answerTokens {
		return fmt.Errorf("%w: %d %.200s %v", errRetry, resp.StatusCode, raw, err) //nolint:errorlint // as above
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked[session] = append(p.acked[session], tag)
	return nil
}

func refusedStatus(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusUpgradeRequired || status == http.StatusTooManyRequests
}

// contentOf joins the contents of an answer's events; failed is true without
// [DONE] or with an error event.
func contentOf(raw string) (content string, failed bool) {
	var all strings.Builder
	failed = true
	for line := range strings.Lines(raw) {
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if data == "[DONE]" {
			return all.String(), strings.Contains(raw, `data: {"error"`)
		}
		var c struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		if ok && json.Unmarshal([]byte(data), &c) == nil && len(c.Choices) > 0 {
			all.WriteString(c.Choices[0].Delta.Content)
		}
	}
	return all.String(), failed
}

// round has every peer make its runs once, all at once, each until it is
// answered or its key is revoked.
func (w *whole) round(n int) (wait func()) {
	var all sync.WaitGroup
	for _, p := range w.peers {
		for run := range *wholeRuns {
			all.Go(func() {
				session := fmt.Sprintf("s%d-%d", p.n, run)
				for try := 0; !p.revoked.Load(); try++ {
					err := p.run(w.t.Context(), session, fmt.Sprintf("p%dr%dn%dt%d", p.n, run, n, try))
					if err == nil {
						w.answers.Add(1)
						return
					}
					if !errors.Is(err, errRetry) || try == 60 {
						w.t.Errorf("peer %d, run %d, round %d: %v", p.n, run, n, err)
						return
					}
					w.retried.Add(1)
					pause(w.t.Context(), time.Second) // the relay lets an address ask five times a second
				}
			})
		}
	}
	return all.Wait
}

// pause waits for other processes' work: sockets, a relay that comes back.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// restartRelay ends the relay, as a deployment or as a crash does, and starts
// it anew, with fresh limits.
func (w *whole) restartRelay(crash bool) {
	if crash {
		w.relay.kill()
	} else {
		w.relay.drain()
	}
	w.relay.again()
	for _, h := range w.hosts {
		await(w.t, "a host is back at the relay", func() bool { return h.relayState() == relay.Connected })
	}
}

// use is what the process holds: heap and stacks in bytes, and descriptors.
func use(t *testing.T) (memory int64, files int) {
	t.Helper()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if list, err := os.ReadDir("/proc/self/fd"); err == nil {
		files = len(list)
	}
	return int64(m.HeapInuse + m.StackInuse), files
}

// openFiles counts the process's descriptors by what they are.
func openFiles() map[string]int {
	kinds := map[string]int{}
	list, _ := os.ReadDir("/proc/self/fd") // where there is none, nothing is counted
	for _, e := range list {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		kind, _, _ := strings.Cut(filepath.Base(to), ":")
		kinds[kind]++
	}
	return kinds
}

// rest is use once nothing is under way.
func (w *whole) rest() (memory int64, files int) {
	for _, h := range w.hosts {
		await(w.t, "no run is left", func() bool { return h.Runner.InFlight() == 0 })
	}
	for _, p := range w.peers {
		p.idle()
	}
	previous := -1
	await(w.t, "connections are closed", func() bool {
		list, err := os.ReadDir("/proc/self/fd")
		same := err != nil || len(list) == previous
		previous = len(list)
		pause(w.t.Context(), 50*time.Millisecond)
		return same
	})
	return use(w.t)
}

// TestWhole: many peers at once, over the LAN and the relay, while keys are
// revoked, storage keys and agents are rotated, the relay restarts and the
// provider stalls. It measures the process, so nothing runs beside it.
func TestWhole(t *testing.T) { //nolint:paralleltest // see above
	w := newWhole(t)
	total := int64(*wholePeers * *wholeRuns)
	if most := int64(*wholeHosts * runner.MaxRuns); total > most {
		t.Fatalf("%d hosts run %d agents at once, not %d", *wholeHosts, most, total)
	}
	w.round(0)()
	release := w.model.hold()
	wait := w.round(1)
	await(t, "all runs are in the middle of their answers", func() bool { return w.model.stalled.Load() == total })
	t.Logf("%d runs at once on %d hosts, from %d peers, %d of them over the relay", total, *wholeHosts, *wholePeers, *wholeRelay)
	w.trouble(true)
	release()
	wait()
	memory, files := w.rest() // everything that is opened once is open
	for n := 2; n <= *wholeRounds; n++ {
		wait := w.round(n)
		w.trouble(n%2 != 0)
		wait()
	}
	memoryAfter, filesAfter := w.rest()
	w.victims()
	t.Logf("%d answers, %d attempts made again, %d keys revoked, %d storage keys and %d agents rotated; memory %d KiB before, %d KiB after; descriptors %d before, %d after",
		w.answers.Load(), w.retried.Load(), w.revocations.Load(), w.rotations.Load(), w.moves.Load(), memory>>10, memoryAfter>>10, files, filesAfter)
	if grown := memoryAfter - memory; grown > 16<<20+memory/4 {
		t.Errorf("memory grew by %d KiB", grown>>10)
	}
	if filesAfter > files+2*len(w.hosts)+8 {
		t.Errorf("%d descriptors more: %v", filesAfter-files, openFiles())
	}
	if want := total * int64(*wholeRounds+1); w.answers.Load() != want {
		t.Errorf("%d answers, want %d", w.answers.Load(), want)
	}
	w.nothingLost()
	for _, h := range w.hosts {
		h.stop()
		verifyLog(t, h.home)
		if logged := refusalsIn(t, h.home); logged < h.refused.Load() || h.refused.Load() == 0 {
			t.Errorf("%d refusals were seen and %d are in the log", h.refused.Load(), logged)
		}
	}
}

// nothingLost: what was answered whole is in the chats, each of its turns once.
func (w *whole) nothingLost() {
	kept := map[*wholeHost]map[string]int{}
	for _, h := range w.hosts {
		kept[h] = map[string]int{}
		list, err := h.Chats.List(w.t.Context(), chats.Filter{})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, s := range list {
			s, err := h.Chats.Load(w.t.Context(), s.ID)
			if err != nil {
				w.t.Fatal(err)
			}
			for _, turn := range s.Turns {
				kept[h][turn.Role+" "+turn.Content]++
			}
		}
	}
	lost := 0
	for _, p := range w.peers {
		for _, tags := range p.acked {
			for _, tag := range tags {
				if kept[p.at]["user "+tag] != 1 || kept[p.at]["assistant "+strings.Repeat(tag+"|", answerTokens)] != 1 {
					lost++
				}
			}
		}
	}
	if lost > 0 {
		w.t.Errorf("%d answered turns are not in the chats, or twice", lost)
	}
}
