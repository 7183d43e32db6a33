package engine_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"osaurus/engine"
	"osaurus/engine/channel"
	"osaurus/engine/eventlog"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/keystore"
	"osaurus/engine/pairing"
	"osaurus/engine/secret"
)

var held = flag.String("held", "", "the home TestTwoProcesses opens in its child")

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait")) // net/http lingers half a second
}

// ports are those of a real host, with a cheap keystore and no discovery.
func ports() engine.Ports {
	return engine.Ports{
		Keystore: func(home string, passphrase secret.Bytes) (keystore.Store, error) {
			return keystore.OpenFile(filepath.Join(home, "keystore.osks"), passphrase, keystore.FileOptions{MemoryKiB: 8, Passes: 1})
		},
		DeviceName: "test",
	}
}

func openHost(t testing.TB, p engine.Ports, c engine.Config) *engine.Engine {
	t.Helper()
	e, err := engine.Open(t.Context(), p, c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// host is a running one.
type host struct {
	*engine.Engine
	t    testing.TB
	url  *url.URL
	stop func()
}

// start opens a home, does what a first start does, and serves.
func start(t testing.TB, home string) *host {
	t.Helper()
	p := ports()
	client := &http.Transport{}
	p.Client = &http.Client{Transport: client}
	e := openHost(t, p, engine.Config{Home: home, Version: "test"})
	created, err := e.FirstStart(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if created != nil {
		created.Phrase.Destroy()
		created.RecoveryCode.Destroy()
	}
	if err := e.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.OverridePort(0)
	listeners, err := e.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e.Server.Announce(listeners[0])
	base := &url.URL{Scheme: "http", Host: listeners[0].Addr().String()}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx, listeners) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, e.Close(context.WithoutCancel(ctx))); err != nil {
			t.Errorf("stopping: %v", err)
		}
		client.CloseIdleConnections()
	})
	t.Cleanup(stop)
	return &host{e, t, base, stop}
}

// approve answers the next request to pair; the function it returns waits for
// that.
func (h *host) approve(v pairing.Validity) (wait func()) {
	detach := h.Approval.Attach()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer detach()
		for {
			current, _, changed := h.Approval.Current()
			if current != nil {
				if err := h.Approval.Answer(current.ID, v); err != nil {
					h.t.Errorf("answering: %v", err)
				}
				return
			}
			<-changed
		}
	}()
	return func() { <-done }
}

func (h *host) agent() pairing.Target {
	h.t.Helper()
	for _, a := range h.Agents.List() {
		if !a.BuiltIn {
			return pairing.Target{BaseURL: h.url, AgentID: a.ID, Address: a.Address}
		}
	}
	h.t.Fatal("no agent")
	return pairing.Target{}
}

// ask runs a peer's agent and returns the status and the answer.
func (h *host) ask(p pairing.Peer, prompt string) (int, string, error) {
	h.t.Helper()
	resp, err := h.CallPeer(h.t.Context(), p, func(base *url.URL) (*http.Request, error) {
		body := fmt.Sprintf(`{"model":"echo","messages":[{"role":"user","content":%q}]}`, prompt)
		return http.NewRequest(http.MethodPost, base.JoinPath("agents", p.Address.Lower(), "run").String(), strings.NewReader(body))
	})
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

// TestTwoHosts is the main job: pair, run, restart both, run again, revoke.
func TestTwoHosts(t *testing.T) {
	t.Parallel()
	homes := [2]string{t.TempDir(), t.TempDir()}
	alice, bob := start(t, homes[0]), start(t, homes[1])
	target := alice.agent()
	wait := alice.approve(pairing.NinetyDays)
	peer, err := bob.Pair(t.Context(), target, "assistant")
	wait()
	if err != nil || peer.Address != target.Address {
		t.Fatalf("%+v, %v", peer, err)
	}
	talk := func(when string) {
		t.Helper()
		if status, out, err := bob.ask(peer, "pumpernickel"); err != nil || status != http.StatusOK || !strings.Contains(out, `"content":"pumpernickel"`) || !strings.HasSuffix(out, "data: [DONE]\n\n") {
			t.Errorf("%s: %d %s, %v", when, status, out, err)
		}
	}
	talk("at first")

	bob.stop()
	bob = start(t, homes[1])
	talk("after the connector's restart")
	alice.stop()
	port := target.BaseURL.Port()
	alice = start(t, homes[0])
	if alice.agent().Address != target.Address {
		t.Error("the agent has another address")
	}
	if peer.BaseURL = alice.url.String(); alice.url.Port() == port {
		t.Log("the host got its old port again")
	}
	talk("after the host's restart")

	keys := alice.Keys.List()
	if len(keys) != 1 || keys[0].Audience != target.Address {
		t.Fatalf("keys %+v", keys)
	}
	if err := alice.Keys.Revoke(t.Context(), keys[0].ID); err != nil {
		t.Fatal(err)
	}
	if status, out, err := bob.ask(peer, "x"); err != nil || status != http.StatusUnauthorized || !strings.Contains(out, "Access key has been revoked") {
		t.Errorf("a revoked key: %d %s, %v", status, out, err)
	}
	alice.stop()
	bob.stop()
	for _, home := range homes {
		nothingReadable(t, home, "pumpernickel", "osk-v1.")
		verifyLog(t, home)
	}
}

// TestHybridIsPinned: a peer that was paired with the post-quantum exchange is
// not spoken to without it, until it is paired anew.
func TestHybridIsPinned(t *testing.T) {
	t.Parallel()
	alice, bob := start(t, t.TempDir()), start(t, t.TempDir())
	var strip atomic.Bool
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(alice.url)
		if !strip.Load() || r.In.URL.Path != "/secure/session" {
			return
		}
		body, err := io.ReadAll(r.In.Body)
		if err != nil {
			t.Error(err)
		}
		before, rest, _ := bytes.Cut(body, []byte(`"pqPub":"`))
		_, after, _ := bytes.Cut(rest, []byte(`",`))
		body = append(bytes.Clone(before), after...)
		r.Out.Body, r.Out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}})
	t.Cleanup(front.Close)
	target := alice.agent()
	var err error
	if target.BaseURL, err = url.Parse(front.URL); err != nil {
		t.Fatal(err)
	}
	pair := func() pairing.Peer {
		t.Helper()
		wait := alice.approve(pairing.NinetyDays)
		peer, err := bob.Pair(t.Context(), target, "assistant")
		wait()
		if err != nil || !peer.PQ {
			t.Fatalf("%+v, %v", peer, err)
		}
		return peer
	}
	peer := pair()
	strip.Store(true)
	if _, _, err := bob.ask(peer, "x"); !errors.Is(err, channel.ErrNotHybrid) {
		t.Errorf("stripped: %v", err)
	}
	strip.Store(false)
	if status, _, err := bob.ask(peer, "x"); err != nil || status != http.StatusOK {
		t.Errorf("%d %v", status, err)
	}
	if known, err := bob.Peers.Find("assistant"); err != nil || !known.PQ {
		t.Errorf("%+v %v", known, err)
	}
	pair() // anew, over the same address
}

// TestAnswerOfAForgottenPeer: what a peer answered is not lost because it
// cannot be noted any more that it did.
func TestAnswerOfAForgottenPeer(t *testing.T) {
	t.Parallel()
	alice, bob := start(t, t.TempDir()), start(t, t.TempDir())
	target := alice.agent()
	var forget atomic.Bool
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(alice.url)
		if forget.Load() && r.In.URL.Path == "/secure/call" {
			if err := bob.Peers.Forget(r.In.Context(), target.Address); err != nil {
				t.Error(err)
			}
		}
	}})
	t.Cleanup(front.Close)
	var err error
	if target.BaseURL, err = url.Parse(front.URL); err != nil {
		t.Fatal(err)
	}
	wait := alice.approve(pairing.NinetyDays)
	peer, err := bob.Pair(t.Context(), target, "assistant")
	wait()
	if err != nil {
		t.Fatal(err)
	}
	forget.Store(true)
	if status, out, err := bob.ask(peer, "pumpernickel"); err != nil || status != http.StatusOK || !strings.Contains(out, "pumpernickel") {
		t.Errorf("%d %s %v", status, out, err)
	}
}

func verifyLog(t *testing.T, home string) {
	t.Helper()
	store, err := ports().Keystore(home, secret.Bytes{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	key, err := store.Get(t.Context(), "com.osaurus.engine", "log-key")
	if err != nil {
		t.Fatal(err)
	}
	if head, err := eventlog.Verify(filepath.Join(home, "security.log"), key, eventlog.Head{}); err != nil || head.Seq == 0 {
		t.Errorf("the log: %+v, %v", head, err)
	}
}

// nothingReadable greps a home, and checks its modes.
func nothingReadable(t *testing.T, home string, words ...string) {
	t.Helper()
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if d.IsDir() {
			return nil
		}
		raw, err := os.ReadFile(path)
		for _, w := range words {
			if bytes.Contains(raw, []byte(w)) {
				t.Errorf("%s holds %q", path, w)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFirstStart(t *testing.T) {
	t.Parallel()
	home := filepath.Join(t.TempDir(), "deep", "home")
	e := openHost(t, ports(), engine.Config{Home: home})
	created, err := e.FirstStart(t.Context())
	if err != nil || created == nil || len(bytes.Fields(created.Phrase.Expose())) != 24 {
		t.Fatalf("%v, %v", created, err)
	}
	if again, err := e.FirstStart(t.Context()); again != nil || err != nil {
		t.Errorf("a second first start: %v, %v", again, err)
	}
	if n := len(e.Agents.Addresses()); n != 1 {
		t.Errorf("%d agents have an address", n)
	}
	phrase := string(created.Phrase.Expose())
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	nothingReadable(t, home, phrase, strings.Fields(phrase)[0]+" "+strings.Fields(phrase)[1])
}

func finding(e *engine.Engine, id string) *engine.Finding {
	for _, f := range e.Status(context.Background()).Findings {
		if f.ID == id {
			return &f
		}
	}
	return nil
}

// remarking is a keystore that has something to say.
type remarking struct{ keystore.Store }

func (remarking) Remark() (sentence, explanation string) { return "It lies elsewhere", "So it is." }

func TestDoctorTellsWhereSecretsAre(t *testing.T) {
	t.Parallel()
	p := ports()
	plain := openHost(t, p, engine.Config{Home: t.TempDir()})
	defer plain.Close(t.Context())
	if f := finding(plain, "keystore-place"); f != nil {
		t.Errorf("a keystore without a remark: %+v", f)
	}
	p.Keystore = func(string, secret.Bytes) (keystore.Store, error) { return remarking{keystore.NewMemory()}, nil }
	e := openHost(t, p, engine.Config{Home: t.TempDir()})
	defer e.Close(t.Context())
	if f := finding(e, "keystore-place"); f == nil || f.Level != "warning" || f.Title != "It lies elsewhere" || f.Text != "So it is." {
		t.Errorf("%+v", f)
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	e := openHost(t, ports(), engine.Config{Home: t.TempDir()})
	defer e.Close(t.Context())
	for _, id := range []string{"identity", "keystore", "provider", "agents"} {
		if f := finding(e, id); f == nil || f.Level == "ok" || f.Title == "" || !strings.HasPrefix(f.Next, "osaurus ") {
			t.Errorf("%s: %+v", id, f)
		}
	}
	if _, err := e.FirstStart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f := finding(e, "backup"); f == nil || f.Next != "osaurus identity phrase" {
		t.Errorf("an unsaved phrase: %+v", f)
	}
	if finding(e, "agents") != nil || finding(e, "identity") != nil {
		t.Errorf("what is well is still found: %+v", e.Status(t.Context()).Findings)
	}
	if s := fmt.Sprintf("%+v", e.Status(t.Context())); strings.Contains(s, "osk-v1") {
		t.Error("the status holds a token")
	}
}

func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	if *held != "" {
		if _, err := engine.Open(t.Context(), ports(), engine.Config{Home: *held}); !errors.Is(err, engine.ErrInUse) {
			t.Fatalf("a second process: %v", err)
		}
		return
	}
	home := t.TempDir()
	e := openHost(t, ports(), engine.Config{Home: home})
	defer e.Close(t.Context())
	if out, err := exec.Command(os.Args[0], "-test.run", "^TestTwoProcesses$", "-held", home).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := engine.Open(t.Context(), ports(), engine.Config{Home: home}); !errors.Is(err, engine.ErrInUse) {
		t.Errorf("a second time in one process: %v", err)
	}
}

// TestHomeIsWaitedFor: a command that ends soon is no host.
func TestHomeIsWaitedFor(t *testing.T) {
	t.Parallel()
	c := engine.Config{Home: t.TempDir(), Wait: time.Nanosecond}
	first := openHost(t, ports(), c)
	if _, err := engine.Open(t.Context(), ports(), c); !errors.Is(err, engine.ErrInUse) {
		t.Fatalf("waited too short: %v", err)
	}
	c.Wait = time.Minute
	second := make(chan error, 1)
	go func() {
		e, err := engine.Open(t.Context(), ports(), c)
		if err == nil {
			err = e.Close(t.Context())
		}
		second <- err
	}()
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
}

// TestDamagedHomes: a clear refusal, and not a byte changed.
func TestDamagedHomes(t *testing.T) {
	t.Parallel()
	sealed := secret.New([]byte("eight words that nobody guesses in a hurry"))
	for name, c := range map[string]struct {
		damage     func(home string) error
		passphrase secret.Bytes
		want       error  // of Open; nil: it opens
		finding    string // then
	}{
		"no passphrase":    {func(string) error { return nil }, secret.Bytes{}, fault.KeystoreLocked, ""},
		"wrong passphrase": {func(string) error { return nil }, secret.New([]byte("wrong")), fault.KeystoreLocked, ""},
		"empty keystore":   {func(h string) error { return os.Truncate(filepath.Join(h, "keystore.osks"), 0) }, sealed, fault.KeystoreCorrupt, ""},
		"settings":         {func(h string) error { return overwrite(h, "config/server.json", "{") }, sealed, errAny, ""},
		"tasks":            {func(h string) error { return overwrite(h, "tasks.json", "{") }, sealed, nil, "record"},
		"peers":            {func(h string) error { return overwrite(h, "identity/peers.json", "{") }, sealed, nil, "record"},
		"log":              {func(h string) error { return overwrite(h, "security.log", "garbage\n") }, sealed, nil, "log"},
		"log cut":          {func(h string) error { return overwrite(h, "security.log", "") }, sealed, nil, "log"},
		"agent record":     {func(h string) error { return overwrite(h, "agents/11111111-1111-4111-8111-111111111111.json", "{") }, sealed, nil, "agent-file"},
		"temporary keys":   {func(h string) error { return overwrite(h, "identity/temporary-keys.json", "{") }, sealed, nil, "access-keys"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			e := openHost(t, ports(), engine.Config{Home: home, Passphrase: sealed})
			if _, err := e.FirstStart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(e.Close(t.Context()), c.damage(home)); err != nil {
				t.Fatal(err)
			}
			before := tree(t, home)
			e, err := engine.Open(t.Context(), ports(), engine.Config{Home: home, Passphrase: c.passphrase})
			if c.want != nil {
				if err == nil || !errors.Is(c.want, errAny) && !errors.Is(err, c.want) {
					t.Errorf("it opens: %v", err)
				}
				if after := tree(t, home); !slices.Equal(before, after) {
					t.Errorf("files were changed: %d, %d", len(before), len(after))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if f := finding(e, c.finding); f == nil || f.Level == "ok" {
				t.Errorf("doctor says %+v", e.Status(t.Context()).Findings)
			}
			if err := e.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

var errAny = errors.New("any")

func overwrite(home, name, text string) error {
	return os.WriteFile(filepath.Join(home, name), []byte(text), 0o600)
}

// tree lists every file with its content.
func tree(t *testing.T, home string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		all = append(all, fmt.Sprintf("%s %x", path, raw))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var errDied = errors.New("the process died")

// dying fails every write from the nth on, before or after doing it.
type dying struct {
	keystore.Store
	left *int
	late bool
}

func (d dying) Put(ctx context.Context, service, account string, v secret.Bytes) error {
	if *d.left--; *d.left > 0 || *d.left == 0 && d.late {
		if err := d.Store.Put(ctx, service, account, v); err != nil || *d.left > 0 {
			return err
		}
	}
	return errDied
}

// TestCrashInTheFirstStart stops it between any two writes to the keystore;
// the next start has an identity and an agent that works.
func TestCrashInTheFirstStart(t *testing.T) {
	t.Parallel()
	for n, survived := 1, false; !survived && n < 50; n++ {
		for _, late := range []bool{false, true} {
			home, left := t.TempDir(), n
			p := ports()
			open := p.Keystore
			p.Keystore = func(home string, passphrase secret.Bytes) (keystore.Store, error) {
				s, err := open(home, passphrase)
				return dying{s, &left, late}, err
			}
			e, err := engine.Open(t.Context(), p, engine.Config{Home: home})
			if err == nil {
				_, err = e.FirstStart(t.Context())
				_ = e.Close(t.Context()) // it died; only the lock counts
			}
			survived = left > 0 && err == nil
			e = openHost(t, ports(), engine.Config{Home: home})
			if _, err := e.FirstStart(t.Context()); err != nil {
				t.Errorf("write %d, late %v: starting again: %v", n, late, err)
			}
			if err := e.Unlock(t.Context()); err != nil {
				t.Errorf("write %d, late %v: unlocking: %v", n, late, err)
			}
			s, err := e.Account.Status(t.Context())
			if err != nil || s.State != identity.Ready {
				t.Errorf("write %d, late %v: %v, %v", n, late, s.State, err)
			}
			for _, a := range e.Agents.List() {
				if !a.BuiltIn && a.Address.IsZero() {
					t.Errorf("write %d, late %v: %s has no address", n, late, a.Name)
				}
			}
			if err := e.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	first := start(t, t.TempDir())
	e := openHost(t, ports(), engine.Config{Home: t.TempDir()})
	defer e.Close(t.Context())
	var port int
	if _, err := fmt.Sscan(first.url.Port(), &port); err != nil {
		t.Fatal(err)
	}
	e.OverridePort(port)
	if _, err := e.Listen(t.Context()); !errors.Is(err, engine.ErrPortInUse) || !strings.Contains(err.Error(), first.url.Port()) {
		t.Errorf("a taken port: %v", err)
	}
}

// TestNothingSecretIsLogged runs a whole talk with a logger at its loudest.
func TestNothingSecretIsLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	p := ports()
	p.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	e := openHost(t, p, engine.Config{Home: t.TempDir()})
	created, err := e.FirstStart(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	words := bytes.Fields(created.Phrase.Expose())
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(log.Bytes(), bytes.Join(words[:2], []byte(" "))) || bytes.Contains(log.Bytes(), []byte("osk-v1.")) {
		t.Errorf("the log holds a secret: %s", &log)
	}
}

func peersOf(t *testing.T, e *engine.Engine) int {
	t.Helper()
	list, err := e.Peers.List()
	if err != nil {
		t.Error(err)
	}
	return len(list)
}

// TestOpenNarrows: what others could read before a start, they cannot after it.
func TestOpenNarrows(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	e := openHost(t, ports(), engine.Config{Home: home})
	if _, err := e.FirstStart(t.Context()); err != nil {
		t.Fatal(err)
	}
	wide := []string{"security.log", "identity", "agents", "keystore.osks"}
	err := e.Close(t.Context())
	for _, name := range wide {
		err = errors.Join(err, os.Chmod(filepath.Join(home, name), 0o777))
	}
	if err != nil {
		t.Fatal(err)
	}
	e = openHost(t, ports(), engine.Config{Home: home})
	for _, name := range wide {
		if info, err := os.Stat(filepath.Join(home, name)); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
