package engine_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"osaurus/engine"
	"osaurus/engine/agents"
	"osaurus/engine/eventlog"
	"osaurus/engine/fault"
	"osaurus/engine/pairing"
	"osaurus/engine/secret"
	"osaurus/engine/storage/chats"
)

// Hostile peers, one test for each row of SECURITY.md's table.

// send is a request with nothing but what is given. Headers come in pairs.
func send(t *testing.T, client *http.Client, method, url, body string, headers ...string) (status int, text string, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		} else {
			req.Header.Add(headers[i], headers[i+1])
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Header
}

// expose takes the trust of loopback away, as for a caller of the network.
func (h *host) expose() {
	h.t.Helper()
	s := h.Settings()
	s.Expose = true
	if err := h.SetSettings(s); err != nil {
		h.t.Fatal(err)
	}
}

// paired lets bob have alice's agent.
func paired(t *testing.T, alice, bob *host, target pairing.Target, name string) pairing.Peer {
	t.Helper()
	wait := alice.approve(pairing.NinetyDays)
	peer, err := bob.Pair(t.Context(), target, name)
	wait()
	if err != nil {
		t.Fatal(err)
	}
	return peer
}

// TestOnTheNetwork is somebody who hears and writes everything on the local
// network: nothing is readable, nothing that was said serves again, whole,
// changed or cut, nobody pairs without the owner and nobody calls without a key.
func TestOnTheNetwork(t *testing.T) {
	t.Parallel()
	alice, bob := start(t, t.TempDir()), start(t, t.TempDir())
	alice.expose()
	var wire recorder
	target := alice.agent()
	target.BaseURL = wire.between(t, alice.url)
	peer := paired(t, alice, bob, target, "assistant")
	if status, out, err := bob.ask(peer, "pumpernickel"); err != nil || status != http.StatusOK || !strings.Contains(out, "pumpernickel") {
		t.Fatalf("%d %s %v", status, out, err)
	}
	heard := wire.seen()
	for _, word := range []string{"pumpernickel", "osk-v1", "Bearer", "chat.completion", "messages"} {
		if bytes.Contains(heard, []byte(word)) {
			t.Errorf("%q is readable on the network", word)
		}
	}
	_, after, found := bytes.Cut(heard, []byte("POST /secure/call"))
	_, after, _ = bytes.Cut(after, []byte("\r\n\r\n"))
	end := bytes.IndexByte(after, '}')
	if !found || end < 0 {
		t.Fatal("no call was heard")
	}
	call := string(after[:end+1])
	before := runsOf(alice)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	middle := strings.Index(call, `"ct":"`) + 40
	for name, c := range map[string]struct {
		body string
		want int
	}{
		"again":           {call, http.StatusConflict},
		"changed":         {call[:middle] + string(call[middle]^1) + call[middle+1:], http.StatusBadRequest},
		"in another turn": {strings.Replace(call, `"seq":1`, `"seq":2`, 1), http.StatusBadRequest},
		"cut":             {call[:len(call)/2], http.StatusBadRequest},
	} {
		if status, text, _ := send(t, client, "POST", alice.url.String()+"/secure/call", c.body); status != c.want {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	if n := runsOf(alice); n != before {
		t.Errorf("%d runs were made by replaying", n-before)
	}
	if status, text, _ := send(t, client, "GET", alice.url.String()+"/agents", ""); status != http.StatusUnauthorized {
		t.Errorf("without a key: %d %s", status, text)
	}
	third := start(t, t.TempDir())
	if _, err := third.Pair(t.Context(), alice.agent(), "x"); err == nil || peersOf(t, third.Engine) != 0 || len(alice.Keys.List()) != 1 {
		t.Errorf("paired while no owner was there: %v", err)
	}
}

// runsOf counts the runs a host made.
func runsOf(h *host) (n int) {
	for _, e := range h.Server.Requests() {
		if strings.HasSuffix(e.Path, "/run") && e.Status == http.StatusOK {
			n++
		}
	}
	return n
}

// TestPairedPeer does all that a peer's key might be good for and is not:
// another agent, another peer's task, the owner's routes, the master's place,
// and anything once it is revoked.
func TestPairedPeer(t *testing.T) {
	t.Parallel()
	alice, bob, carol := start(t, t.TempDir()), start(t, t.TempDir()), start(t, t.TempDir())
	alice.expose()
	target := alice.agent()
	peer := paired(t, alice, bob, target, "assistant")
	theirs := paired(t, alice, carol, target, "assistant")
	other, err := alice.Agents.Create(t.Context(), agents.Draft{Name: "Other"})
	if err == nil {
		other, err = alice.Agents.Assign(t.Context(), other.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	call := func(h *host, p pairing.Peer, method, path, body string, headers ...string) (int, string) {
		t.Helper()
		resp, err := h.CallPeer(t.Context(), p, func(base *url.URL) (*http.Request, error) {
			req, err := http.NewRequest(method, base.String()+path, strings.NewReader(body))
			for i := 0; err == nil && i < len(headers); i += 2 {
				req.Header.Set(headers[i], headers[i+1])
			}
			return req, err
		})
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
	status, text := call(carol, theirs, "POST", "/agents/"+target.AgentID+"/dispatch", `{"prompt":"secret of carol"}`)
	_, task, _ := strings.Cut(text, `/v1/tasks/`)
	task, _, _ = strings.Cut(task, `"`)
	if status != http.StatusAccepted || task == "" {
		t.Fatalf("%d %s", status, text)
	}
	run := `{"model":"echo","messages":[{"role":"user","content":"x"}]}`
	for _, c := range []struct {
		method, path, body string
		headers            []string
	}{
		{"POST", "/agents/" + other.ID + "/run", run, nil},
		{"POST", "/agents/" + other.Address.Lower() + "/dispatch", `{"prompt":"x"}`, nil},
		{"GET", "/agents/" + other.ID, "", nil},
		{"GET", "/agents", "", []string{"X-Osaurus-Agent-Id", other.ID}},
		{"POST", "/agents/" + agents.DefaultID + "/run", run, nil},
		{"GET", "/tasks/" + task, "", nil},
		{"DELETE", "/tasks/" + task, "", nil},
		{"GET", "/admin/status", "", nil},
		{"GET", "/v1/admin/status", "", nil},
		{"POST", "/chat/completions", run, nil},
		{"POST", "/memory/ingest", `{"agent_id":"` + other.ID + `","conversation_id":"c","turns":[]}`, nil},
	} {
		if status, text := call(bob, peer, c.method, c.path, c.body, c.headers...); status != http.StatusForbidden || strings.Contains(text, "carol") {
			t.Errorf("%s %s %v: %d %s", c.method, c.path, c.headers, status, text)
		}
	}
	if _, text := call(bob, peer, "GET", "/agents", ""); strings.Contains(text, other.ID) || strings.Contains(text, other.Address.Lower()) {
		t.Errorf("it sees %s", text)
	}
	if status, _ := call(carol, theirs, "GET", "/tasks/"+task, ""); status != http.StatusOK {
		t.Errorf("carol's own task: %d", status)
	}
	// A key with other claims under the same signature is nobody's.
	forged := strings.Replace(mintFor(t, alice, other), "osk-v1.", "osk-v1.e30", 1)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	if status, text, _ := send(t, client, "GET", alice.url.String()+"/agents", "", "Authorization", "Bearer "+forged); status != http.StatusUnauthorized {
		t.Errorf("a forged key: %d %s", status, text)
	}
	if _, err := alice.Keys.RevokeAudience(t.Context(), target.Address); err != nil {
		t.Fatal(err)
	}
	if status, text := call(bob, peer, "GET", "/agents", ""); status != http.StatusUnauthorized || !strings.Contains(text, "Access key has been revoked") {
		t.Errorf("after its key was revoked: %d %s", status, text)
	}
}

// TestWebPage is a page in the owner's browser that sends what a browser lets
// it send to this machine. Nothing runs, nothing is paired, nothing is readable.
func TestWebPage(t *testing.T) {
	t.Parallel()
	alice := start(t, t.TempDir())
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	agent := alice.agent()
	run := `{"model":"echo","messages":[{"role":"user","content":"x"}]}`
	if status, _, _ := send(t, client, "POST", alice.url.String()+"/agents/"+agent.AgentID+"/run", run); status != http.StatusOK {
		t.Fatalf("a local program: %d; the rest shows nothing", status)
	}
	before := runsOf(alice)
	pages := map[string][]string{
		"cross-origin fetch":            {"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"},
		"form that posts":               {"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Content-Type", "text/plain"},
		"no-cors fetch":                 {"Origin", "https://evil.example", "Content-Type", "text/plain;charset=UTF-8"},
		"sandboxed frame":               {"Origin", "null"},
		"image or script":               {"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"},
		"page of a local address":       {"Origin", "http://192.168.1.1", "Sec-Fetch-Site", "cross-site"},
		"name that begins like ours":    {"Origin", "http://localhost.evil.example:3000"},
		"DNS rebinding":                 {"Host", "evil.example:" + alice.url.Port(), "Origin", "http://evil.example:" + alice.url.Port(), "Sec-Fetch-Site", "same-origin"},
		"DNS rebinding without headers": {"Host", "evil.example:" + alice.url.Port()},
	}
	for name, headers := range pages {
		for _, c := range []struct{ method, path, body string }{
			{"POST", "/agents/" + agent.AgentID + "/run", run}, {"POST", "/agents/" + agent.AgentID + "/dispatch", `{"prompt":"x"}`}, {"GET", "/agents", ""},
			{"POST", "/memory/ingest", `{"agent_id":"` + agent.AgentID + `","conversation_id":"c","turns":[{"user":"a","assistant":"b"}]}`}, {"POST", "/v1/chat/completions", run},
			{"GET", "/admin/status", ""}, {"DELETE", "/tasks/" + agent.AgentID, ""},
		} {
			status, text, header := send(t, client, c.method, alice.url.String()+c.path, c.body, headers...)
			if status != http.StatusUnauthorized && status != http.StatusTooManyRequests {
				t.Errorf("%s: %s %s: %d %.200s", name, c.method, c.path, status, text)
			}
			if header.Get("Access-Control-Allow-Origin") != "" || header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s: %s %s may be read: %v", name, c.method, c.path, header)
			}
		}
		if status, _, header := send(t, client, "OPTIONS", alice.url.String()+"/agents", "", append(headers, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization")...); status != http.StatusNoContent || header.Get("Access-Control-Allow-Methods") != "" {
			t.Errorf("%s: a preflight: %d %v", name, status, header)
		}
		if _, text, _ := send(t, client, "GET", alice.url.String()+"/health", "", headers...); strings.Contains(text, "version") {
			t.Errorf("%s: it learns %s", name, text)
		}
	}
	if n := runsOf(alice); n != before {
		t.Errorf("%d runs were made for pages", n-before)
	}
	if list, err := alice.Memory.Query(t.Context(), agent.AgentID, "a", 0); err != nil || len(list) != 0 || len(alice.Keys.List()) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

var spied = flag.String("spied", "", "the home TestAnotherUser looks into from another user")

// TestAnotherUser looks into a running host's home as another user of the
// machine: it opens nothing there. Over loopback it is the owner's equal until
// loopback_trust is off.
func TestAnotherUser(t *testing.T) {
	t.Parallel()
	if *spied != "" {
		spy(t, *spied)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	home := filepath.Join(t.TempDir(), "home")
	alice := start(t, home)
	if _, err := alice.RotateStorage(t.Context(), false, nil); err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(t.TempDir(), "test")
	text, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(self, text, 0o755) //nolint:gosec // another user runs it
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{self, home} { // all that stands above is open
		for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // as above
				t.Fatal(err)
			}
		}
	}
	child := func(target, url string, want int) {
		t.Helper()
		cmd := exec.Command(self, "-test.run", "^TestAnotherUser$", "-spied", fmt.Sprintf("%s %s %d", target, url, want))
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	child(home, alice.url.String(), http.StatusOK)
	s := alice.Settings()
	s.LoopbackTrust = false
	if err := alice.SetSettings(s); err != nil {
		t.Fatal(err)
	}
	child(home, alice.url.String(), http.StatusUnauthorized)
}

func spy(t *testing.T, what string) {
	var home, base string
	var want int
	if _, err := fmt.Sscan(what, &home, &base, &want); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(home); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the home lists %v, %v", list, err)
	}
	for _, name := range []string{"keystore.osks", "security.log", "config/server.json", "chat-history/history.sqlite", "identity", engine.SocketPath, ".storage-manifest.json"} {
		if _, err := os.Open(filepath.Join(home, name)); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.WriteFile(filepath.Join(home, name), nil, 0o600); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("writing %s: %v", name, err)
		}
	}
	if _, err := net.Dial("unix", filepath.Join(home, engine.SocketPath)); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the control socket: %v", err)
	}
	if status, text, _ := send(t, http.DefaultClient, "GET", base+"/agents", ""); status != want {
		t.Errorf("over loopback: %d %s", status, text)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestStolenDisk has a home of a host with a passphrase in other hands: the
// agents' names can be read, what was said cannot, and no edit goes unnoticed or
// has anything decrypted.
func TestStolenDisk(t *testing.T) {
	t.Parallel()
	home, pass := t.TempDir(), secret.New([]byte("eight words that nobody guesses in a hurry"))
	c := engine.Config{Home: home, Passphrase: pass}
	e := openHost(t, ports(), c)
	created, err := e.FirstStart(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	phrase := strings.Fields(string(created.Phrase.Expose()))
	session := chats.Session{PluginID: chats.PluginHTTP, ExternalKey: "k", Source: chats.SourceHTTP}
	if err := errors.Join(e.Chats.Append(t.Context(), session, chats.Turn{Role: "user", Content: "pumpernickel"}), e.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	stolen := t.TempDir()
	if err := os.CopyFS(stolen, os.DirFS(home)); err != nil {
		t.Fatal(err)
	}
	readable := strings.Join(tree(t, stolen), "\n")
	if !strings.Contains(readable, fmt.Sprintf("%x", "Assistant")) {
		t.Error("the agents' names are hidden: SECURITY.md says less than is true")
	}
	for _, word := range []string{"pumpernickel", strings.Join(phrase[:3], " "), "SQLite format 3"} {
		if strings.Contains(readable, fmt.Sprintf("%x", word)) {
			t.Errorf("the disk tells %q", word)
		}
	}
	for _, guess := range []string{"", "wrong", "eight words that nobody guesses in a hurr"} {
		p := secret.Bytes{}
		if guess != "" {
			p = secret.New([]byte(guess))
		}
		if _, err := engine.Open(t.Context(), ports(), engine.Config{Home: stolen, Passphrase: p}); !errors.Is(err, fault.KeystoreLocked) {
			t.Errorf("it opens with %q: %v", guess, err)
		}
	}
	// The edited home goes back to its owner.
	log := filepath.Join(home, "security.log")
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	edited := bytes.Replace(text, []byte("identity_created"), []byte("identity_restored"), 1)
	if err := errors.Join(os.WriteFile(log, edited, 0o600), overwrite(home, ".storage-posture", `{"mode":"plaintext","version":1}`), overwrite(home, ".storage-operation.json", `{"v":1,"kind":"posture","to":"plaintext","phase":"commit"}`)); err != nil {
		t.Fatal(err)
	}
	e = openHost(t, ports(), c)
	defer func() { _ = e.Close(context.WithoutCancel(t.Context())) }() // its log is broken
	if _, err := e.VerifyLog(t.Context()); err == nil || bytes.Equal(text, edited) {
		t.Errorf("an edited log verifies as %v", eventlog.Head{})
	}
	list, err := e.Chats.List(t.Context(), chats.Filter{})
	raw, readErr := os.ReadFile(filepath.Join(home, "chat-history", "history.sqlite"))
	if readErr != nil || bytes.HasPrefix(raw, []byte("SQLite format 3")) || bytes.Contains(raw, []byte("pumpernickel")) {
		t.Errorf("an edited file had the chats decrypted: %v", readErr)
	}
	if err != nil || len(list) != 1 {
		t.Errorf("the owner has %d conversations, %v", len(list), err)
	}
}

// TestOlderCopyIsNotNoticed holds what SECURITY.md admits: a whole database of
// yesterday is as authentic as one of today, until the storage key is rotated.
func TestOlderCopyIsNotNoticed(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	file := filepath.Join(home, "chat-history", "history.sqlite")
	session := func(key string) chats.Session {
		return chats.Session{PluginID: chats.PluginHTTP, ExternalKey: key, Source: chats.SourceHTTP}
	}
	visit := func(do func(e *engine.Engine)) {
		t.Helper()
		e := openHost(t, ports(), engine.Config{Home: home})
		do(e)
		if err := e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	say := func(e *engine.Engine, key string) {
		if err := e.Chats.Append(t.Context(), session(key), chats.Turn{Role: "user", Content: key}); err != nil {
			t.Fatal(err)
		}
	}
	visit(func(e *engine.Engine) { say(e, "yesterday") })
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	visit(func(e *engine.Engine) { say(e, "today") })
	if err := os.WriteFile(file, old, 0o600); err != nil {
		t.Fatal(err)
	}
	visit(func(e *engine.Engine) {
		if list, err := e.Chats.List(t.Context(), chats.Filter{}); err != nil || len(list) != 1 {
			t.Errorf("%+v %v", list, err)
		}
		if _, err := e.RotateStorage(t.Context(), false, nil); err != nil {
			t.Fatal(err)
		}
	})
	if err := os.WriteFile(file, old, 0o600); err != nil {
		t.Fatal(err)
	}
	visit(func(e *engine.Engine) {
		if _, err := e.Chats.List(t.Context(), chats.Filter{}); err == nil {
			t.Error("a copy from before the rotation opens")
		}
	})
}
