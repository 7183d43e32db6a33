package control

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"osaurus/engine"
	"osaurus/engine/accesskey"
	"osaurus/engine/keystore"
	"osaurus/engine/pairing"
	"osaurus/engine/secret"
	"osaurus/engine/settings"
	"osaurus/engine/storage"
)

var dialled = flag.String("dial", "", "the socket TestOtherUsers dials in its child")

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// served is a control server over an engine, and a client of it.
type served struct {
	*Client
	engine  *engine.Engine
	socket  string
	stopped chan struct{} // closed by the stop operation
}

func serve(t *testing.T) served {
	t.Helper()
	home := t.TempDir()
	e, err := engine.Open(t.Context(), engine.Ports{
		Keystore: func(home string, p secret.Bytes) (keystore.Store, error) {
			return keystore.OpenFile(filepath.Join(home, "keystore"), p, keystore.FileOptions{MemoryKiB: 8, Passes: 1})
		},
		DeviceName: "studio",
	}, engine.Config{Home: home, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	s := served{engine: e, socket: filepath.Join(home, engine.SocketPath), stopped: make(chan struct{})}
	l, err := ListenSocket(t.Context(), s.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- NewServer(e, func() { close(s.stopped) }).Serve(ctx, l) }()
	s.Client = NewClient(s.socket)
	t.Cleanup(func() {
		s.Close()
		cancel()
		if err := errors.Join(<-ended, e.Close(context.WithoutCancel(ctx))); err != nil {
			t.Error(err)
		}
	})
	return s
}

// refused reports whether err is a refusal with this code and exit.
func refused(t *testing.T, what string, err error, exit int) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Exit != exit || e.Message == "" || e.Code == "" {
		t.Errorf("%s: %#v, want exit %d", what, err, exit)
	}
}

func TestIdentityOps(t *testing.T) {
	t.Parallel()
	s, ctx := serve(t), t.Context()
	if id, err := s.Identity(ctx, false); err != nil || id.State != "none" || !id.Address.IsZero() || id.DeviceID == "" {
		t.Errorf("at first: %+v, %v", id, err)
	}
	_, err := s.Identity(ctx, true)
	refused(t, "no pairing key", err, exitLocked)
	created, err := s.CreateIdentity(ctx)
	if err != nil || len(strings.Fields(created.Phrase)) != 24 || !strings.HasPrefix(created.RecoveryCode, "OSAURUS-") {
		t.Fatalf("%+v, %v", created.Address, err)
	}
	_, err = s.CreateIdentity(ctx)
	refused(t, "creating twice", err, exitFailed)
	if again, err := s.Phrase(ctx); err != nil || again.Phrase != created.Phrase || again.RecoveryCode != "" {
		t.Errorf("the phrase: %v", err)
	}
	if err := s.Acknowledge(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Phrase(ctx); err == nil {
		t.Error("the phrase shows after it was acknowledged")
	}
	id, err := s.Identity(ctx, true)
	if err != nil || id.State != "ready" || !id.Acknowledged || id.Pairing.IsZero() || id.Address != created.Address {
		t.Errorf("%+v, %v", id, err)
	}
	if got, err := s.RestoreIdentity(ctx, Restore{Phrase: created.Phrase}); err != nil || got.Address != created.Address {
		t.Errorf("the same phrase: %+v, %v", got, err)
	}
	const foreign = "flush crumble fish credit west spot length matrix group lucky belt beauty size drop hill bag kind calm rug scatter repeat rotate picnic resource"
	_, err = s.RestoreIdentity(ctx, Restore{Phrase: foreign})
	refused(t, "a foreign phrase", err, exitConfirm)
	_, err = s.RestoreIdentity(ctx, Restore{Phrase: foreign + " resource"})
	refused(t, "no phrase", err, exitUsage)
	if strings.Contains(err.Error(), "crumble") {
		t.Errorf("the refusal shows words: %v", err)
	}
	if got, err := s.RestoreIdentity(ctx, Restore{Phrase: foreign, Anyway: true}); err != nil || got.Address == created.Address || !got.Replaced || !got.Forgetful {
		t.Errorf("anyway: %+v, %v", got, err)
	}
	if got, err := s.UndoReplacement(ctx); err != nil || got.Address != created.Address {
		t.Errorf("undone: %+v, %v", got, err)
	}
	_, err = s.UndoReplacement(ctx)
	refused(t, "undoing twice", err, exitLocked)
	if err := s.ResetIdentity(ctx); err != nil {
		t.Fatal(err)
	}
	if id, err := s.Identity(ctx, false); err != nil || id.State != "none" {
		t.Errorf("after a reset: %+v, %v", id, err)
	}
}

// TestRepairActsOnWhatWasShown: a list that is not the present one repairs
// nothing.
func TestRepairActsOnWhatWasShown(t *testing.T) {
	t.Parallel()
	s, ctx := serve(t), t.Context()
	if _, err := s.CreateIdentity(ctx); err != nil {
		t.Fatal(err)
	}
	d, err := s.Drift(ctx)
	if err != nil || len(d.Mismatched)+len(d.StaleKeys) != 0 {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, err := s.Repair(ctx, d); err != nil {
		t.Errorf("nothing to repair: %v", err)
	}
	_, err = s.Repair(ctx, Drift{Mismatched: []NamedAgent{{ID: "x"}}})
	refused(t, "another drift", err, exitConfirm)
}

func TestAgentAndKeyOps(t *testing.T) {
	t.Parallel()
	s, ctx := serve(t), t.Context()
	if _, err := s.CreateIdentity(ctx); err != nil {
		t.Fatal(err)
	}
	name, on := "Ada", true
	made, err := s.CreateAgent(ctx, EditAgent{Name: &name, Bonjour: &on})
	if err != nil || made.Name != name || made.Address.IsZero() {
		t.Fatalf("%+v, %v", made, err)
	}
	if set, err := s.Settings(ctx); err != nil || !set.Expose {
		t.Errorf("an announced agent leaves the host hidden: %+v, %v", set, err)
	}
	key, err := s.MintKey(ctx, MintKey{Agent: "Ada", Label: "phone", Expiration: accesskey.Days90})
	if err != nil || !strings.HasPrefix(key.Token, "osk-v1.") {
		t.Fatalf("%v", err)
	}
	if _, err := s.engine.Keys.Validate(key.Token); err != nil {
		t.Error(err)
	}
	keys, err := s.Keys(ctx)
	if err != nil || len(keys) != 1 || keys[0].Label != "phone" {
		t.Errorf("%+v, %v", keys, err)
	}
	if agents, err := s.Agents(ctx); err != nil || len(agents) != 3 {
		t.Errorf("%d agents, %v", len(agents), err)
	}
	moved, err := s.AgentAction(ctx, "rotate", made.ID)
	if err != nil || moved.Address == made.Address {
		t.Errorf("%+v, %v", moved.Address, err)
	}
	if _, err := s.engine.Keys.Validate(key.Token); err == nil {
		t.Error("a key of the old address is still valid")
	}
	if err := s.KeyAction(ctx, "revoke", key.ID); err != nil {
		t.Error(err)
	}
	owner, err := s.MintKey(ctx, MintKey{Label: "owner", Expiration: accesskey.Days90})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, "a time to come", s.RefuseKeysBefore(ctx, time.Now().Add(time.Hour)), exitUsage)
	if _, err := s.engine.Keys.Validate(owner.Token); err != nil {
		t.Error(err)
	}
	if err := s.RefuseKeysBefore(ctx, time.Now()); err != nil || !s.engine.Keys.Remembers() {
		t.Error(err)
	}
	if _, err := s.AgentAction(ctx, "delete", "Ada"); err != nil {
		t.Error(err)
	}
	_, err = s.AgentAction(ctx, "rotate", "Ada")
	refused(t, "an agent that is gone", err, exitUsage)
	refused(t, "a key that never was", s.KeyAction(ctx, "revoke", "none"), exitUsage)
	if got, err := s.VerifyLog(ctx); err != nil || got.Seq == 0 {
		t.Errorf("the log: %+v, %v", got, err)
	}
}

func TestTokensOps(t *testing.T) {
	t.Parallel()
	s, ctx := serve(t), t.Context()
	if _, err := s.CreateIdentity(ctx); err != nil {
		t.Fatal(err)
	}
	for _, agent := range []string{"", "Assistant"} {
		token, err := s.MintToken(ctx, MintToken{Agent: agent, Action: "GET /x"})
		if err != nil || token.Audience != "studio" {
			t.Fatalf("%+v, %v", token, err)
		}
		if _, err := s.VerifyToken(ctx, RequestToken{Token: token.Token, Action: "GET /y"}); err == nil {
			t.Error("it serves another action")
		}
		if got, err := s.VerifyToken(ctx, RequestToken{Token: token.Token, Action: "GET /x"}); err != nil || got.Issuer.IsZero() || got.Token != "" {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := s.VerifyToken(ctx, RequestToken{Token: token.Token, Action: "GET /x"}); err == nil {
			t.Error("it serves twice")
		}
	}
	_, err := s.MintToken(ctx, MintToken{Agent: "nobody", Action: "GET /x"})
	refused(t, "an unknown agent", err, exitUsage)
}

func TestRunsAndSettings(t *testing.T) {
	t.Parallel()
	s, ctx := serve(t), t.Context()
	if _, err := s.CreateIdentity(ctx); err != nil {
		t.Fatal(err)
	}
	var answer strings.Builder
	done := false
	if err := s.Run(ctx, Run{Agent: "Assistant", Prompt: "one two", Model: "echo"}, func(e RunEvent) error {
		answer.WriteString(e.Content)
		done = done || e.Done
		return nil
	}); err != nil || answer.String() != "one two" || !done {
		t.Errorf("%q, %v, %v", &answer, done, err)
	}
	set := settings.DefaultServer()
	set.Port = -1
	if err := s.SetSettings(ctx, set); err == nil || !strings.Contains(err.Error(), "port") {
		t.Errorf("a bad port: %v", err)
	}
	if st, err := s.Status(ctx); err != nil || st.Version != "test" || len(st.Findings) == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := s.SetPassphrase(ctx, "a passphrase of some length"); err != nil {
		t.Fatal(err)
	}
	if st, err := s.Status(ctx); err != nil || st.Keystore != "passphrase" {
		t.Errorf("%s, %v", st.Keystore, err)
	}
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
	<-s.stopped
}

// TestRawRequests: what no client of ours sends.
func TestRawRequests(t *testing.T) {
	t.Parallel()
	s := serve(t)
	post := func(method, op, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://control/"+op, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(raw)
	}
	for _, c := range []struct {
		method, op, body string
		status           int
	}{
		{"POST", "identity/show", "{}", 200}, {"GET", "identity/show", "", 405}, {"POST", "identity/nothing", "{}", 404}, {"POST", "", "{}", 404},
		{"POST", "identity/show", "", 422}, {"POST", "identity/show", "[]", 422}, {"POST", "identity/show", `{"x":1}`, 422}, {"POST", "identity/restore", `{"phrase":1}`, 422},
		{"POST", "identity/restore", `{"phrase":"` + strings.Repeat("a", maxRequest) + `"}`, 422},
	} {
		if status, text := post(c.method, c.op, c.body); status != c.status || strings.Contains(text, "aaaa") {
			t.Errorf("%s %s %.30s: %d %.200s", c.method, c.op, c.body, status, text)
		}
	}
}

func TestSocketModes(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for path, want := range map[string]os.FileMode{s.socket: os.ModeSocket | 0o600, filepath.Dir(s.socket): os.ModeDir | 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if _, err := ListenSocket(t.Context(), s.socket); !errors.Is(err, engine.ErrInUse) {
		t.Errorf("a second host: %v", err)
	}
}

func TestSocketsThatAreLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(l.Close(), os.WriteFile(file, []byte("kept"), 0o600), os.Symlink(stale, link)); err != nil {
		t.Fatal(err)
	}
	fresh, err := ListenSocket(t.Context(), stale)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	if err := fresh.Close(); err != nil {
		t.Error(err)
	}
	for _, path := range []string{file, link} {
		if _, err := ListenSocket(t.Context(), path); err == nil {
			t.Errorf("%s was taken", path)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "kept" {
		t.Errorf("the file was changed: %q, %v", text, err)
	}
	if _, err := ListenSocket(t.Context(), filepath.Join(dir, strings.Repeat("x", maxSocketPath))); err == nil || !strings.Contains(err.Error(), "shorter home") {
		t.Errorf("a long path: %v", err)
	}
	c := NewClient(filepath.Join(dir, "none"))
	defer c.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNoHost) {
		t.Errorf("no host: %v", err)
	}
}

// TestOtherUsers opens the modes and still lets nobody else in.
func TestOtherUsers(t *testing.T) {
	t.Parallel()
	if *dialled != "" {
		c := NewClient(*dialled)
		defer c.Close()
		if _, err := c.Status(t.Context()); err == nil || errors.Is(err, ErrNoHost) {
			t.Fatalf("another user: %v", err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	s := serve(t)
	self := filepath.Join(t.TempDir(), "test")
	text, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, text, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{self, s.socket} {
		for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(s.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^TestOtherUsers$", "-dial", s.socket)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := s.Status(t.Context()); err != nil {
		t.Errorf("ourselves: %v", err)
	}
}

func TestRelay(t *testing.T) {
	t.Parallel()
	chunk := `data: {"choices":[{"delta":{"content":"x"}}]}` + "\n\n"
	for name, c := range map[string]struct {
		stream string
		want   string
		err    error
	}{
		"whole":      {": ping\n\n" + chunk + chunk + "data: [DONE]\n\n", "xx!", nil},
		"no end":     {chunk, "x", errUnfinished},
		"nothing":    {"", "", errUnfinished},
		"after DONE": {chunk + "data: [DONE]\n\n" + chunk, "x!", nil},
		"an error":   {`data: {"error":{"code":"c","message":"m"}}` + "\n\ndata: [DONE]\n\n", "E!", nil},
	} {
		var got strings.Builder
		err := relay(newReader(c.stream), func(e RunEvent) error {
			got.WriteString(e.Content)
			if e.Error != nil {
				got.WriteString("E")
			}
			if e.Done {
				got.WriteString("!")
			}
			return nil
		})
		if !errors.Is(err, c.err) || got.String() != c.want {
			t.Errorf("%s: %q, %v", name, &got, err)
		}
	}
	broken := io.MultiReader(strings.NewReader(chunk+"data: [DONE]\n\n"), errReader{})
	done := false
	if err := relay(bufioReader(broken), func(e RunEvent) error { done = done || e.Done; return nil }); err == nil || done {
		t.Errorf("a stream that broke after [DONE]: %v, done %v", err, done)
	}
	if err := relay(newReader("data: {\n\n"), func(RunEvent) error { return nil }); err == nil || bytes.Contains([]byte(err.Error()), []byte("{")) {
		t.Errorf("garbage: %v", err)
	}
}

func TestOpsOfThePanes(t *testing.T) {
	t.Parallel()
	s, ctx := serve(t), t.Context()
	if _, err := s.CreateIdentity(ctx); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Health(ctx); err != nil || d.Mismatched == nil || d.StaleKeys == nil || len(d.Mismatched) != 0 {
		t.Errorf("health: %+v, %v", d, err)
	}
	name := "Rex"
	a, err := s.CreateAgent(ctx, EditAgent{Name: &name})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddFact(ctx, Remember{Agent: a.ID, Text: "likes ferns"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OperateStorage(ctx, StorageOrder{What: "maintain"}, func(storage.Progress) {}); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Maintained(ctx); err != nil || len(list) == 0 || list[0].Optimize.IsZero() {
		t.Errorf("maintained: %+v, %v", list, err)
	}
	watch, stop := context.WithCancel(ctx)
	seen := make(chan Approvals, 8)
	ended := make(chan error, 1)
	go func() {
		ended <- s.WatchApprovals(watch, func(a Approvals) error { seen <- a; return nil })
	}()
	<-seen // attached
	asked := make(chan error, 1)
	go func() {
		_, err := s.engine.Approval.Ask(ctx, pairing.Prompt{AgentName: "Rex"})
		asked <- err
	}()
	p := <-seen
	if err := s.Answer(ctx, Answer{ID: p.Current.ID, Validity: "deny"}); err != nil {
		t.Fatal(err)
	}
	if last := <-seen; last.Last == nil || last.Answer != "deny" {
		t.Errorf("the last answer: %+v", last)
	}
	if err := <-asked; err == nil {
		t.Error("a denied request was allowed")
	}
	stop()
	<-ended
}
