package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"osaurus/app/panes"
	"osaurus/engine"
	"osaurus/engine/control"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// clock is one that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// served is a page over a real engine, without a browser.
type served struct {
	*Page
	t     *testing.T
	clock *clock
	ended chan error
}

func serve(t *testing.T) served {
	t.Helper()
	home, err := os.MkdirTemp("", "osr") // a control socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(t.Context(), engine.Ports{Keystore: func(home string, p secret.Bytes) (keystore.Store, error) {
		return keystore.OpenFile(filepath.Join(home, "keystore"), p, keystore.FileOptions{MemoryKiB: 8, Passes: 1})
	}}, engine.Config{Home: home, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(home, engine.SocketPath)
	l, err := control.ListenSocket(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	controlled := make(chan error, 1)
	go func() { controlled <- control.NewServer(e, func() {}).Serve(ctx, l) }()
	client := control.NewClient(socket)
	m := panes.New(client, panes.Env{Home: home})
	p, err := Open(ctx, m, filepath.Join(home, "runtime"))
	if err != nil {
		t.Fatal(err)
	}
	s := served{p, t, &clock{t: time.Now()}, make(chan error, 1)}
	p.now = s.clock.now
	serving, stop := context.WithCancel(ctx)
	go func() { s.ended <- p.Serve(serving) }()
	t.Cleanup(func() {
		stop()
		err := <-s.ended
		m.Close()
		client.Close()
		cancel()
		if err := errors.Join(err, <-controlled, e.Close(context.WithoutCancel(ctx)), os.RemoveAll(home)); err != nil {
			t.Error(err)
		}
	})
	return s
}

// send makes a request that is as the page's own, but for what edit changes.
func (s served) send(method, path, body string, edit func(*http.Request)) (status int, answer string, h http.Header) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.origin()+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Origin", s.origin())
	}
	if edit != nil {
		edit(req)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Header
}

// tokenOf reads the token as the browser gets it.
func (s served) tokenOf() string {
	s.t.Helper()
	raw, err := os.ReadFile(s.File())
	if err != nil {
		s.t.Fatal(err)
	}
	m := regexp.MustCompile(`url=http://127\.0\.0\.1:\d+/#([A-Za-z0-9_-]{43})"`).FindSubmatch(raw)
	if m == nil {
		s.t.Fatalf("no token in %s", raw)
	}
	return string(m[1])
}

func (s served) trade(token string) (int, string) {
	s.t.Helper()
	body, _ := json.Marshal(map[string]string{"token": token})
	status, answer, _ := s.send("POST", "/session", string(body), func(r *http.Request) { r.Header.Set(pageHeader, "1") })
	var out struct{ Session string }
	_ = json.Unmarshal([]byte(answer), &out)
	return status, out.Session
}

func with(session string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(sessionHeader, session) }
}

func TestTokenServesOnce(t *testing.T) {
	t.Parallel()
	s := serve(t)
	info, err := os.Stat(s.File())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file that leads to the page: %v, %v", info.Mode(), err)
	}
	token := s.tokenOf()
	for name, wrong := range map[string]string{"missing": "", "another": newSecret(), "cut": token[:42]} {
		if status, session := s.trade(wrong); status != http.StatusForbidden || session != "" {
			t.Errorf("a token that is %s: %d", name, status)
		}
	}
	if status, _, _ := s.send("POST", "/session", `{"token":"`+token+`"}`, nil); status != http.StatusForbidden {
		t.Errorf("without the page's header: %d", status)
	}
	status, session := s.trade(token)
	if status != http.StatusOK || len(session) != 43 || session == token {
		t.Fatalf("%d %q", status, session)
	}
	if _, err := os.Stat(s.File()); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file outlives its token")
	}
	if status, again := s.trade(token); status != http.StatusForbidden || again != "" {
		t.Errorf("replayed: %d", status)
	}
	if status, answer, h := s.send("POST", "/view", `{"pane":"identity"}`, with(session)); status != http.StatusOK || !strings.Contains(answer, "Identity") || len(h.Values("Set-Cookie")) > 0 {
		t.Errorf("the session: %d %s", status, answer)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := serve(t)
	_, session := s.trade(s.tokenOf())
	own := with(session)
	cases := map[string]func(*http.Request){
		"no header":            nil,
		"an empty header":      with(""),
		"another session":      with(newSecret()),
		"a foreign host":       func(r *http.Request) { own(r); r.Host = "evil.example" },
		"localhost":            func(r *http.Request) { own(r); r.Host = strings.Replace(s.host, "127.0.0.1", "localhost", 1) },
		"another port":         func(r *http.Request) { own(r); r.Host = "127.0.0.1:1" },
		"a foreign origin":     func(r *http.Request) { own(r); r.Header.Set("Origin", "https://evil.example") },
		"a null origin":        func(r *http.Request) { own(r); r.Header.Set("Origin", "null") },
		"another local origin": func(r *http.Request) { own(r); r.Header.Set("Origin", "http://127.0.0.1:1337") },
		"no origin":            func(r *http.Request) { own(r); r.Header.Del("Origin") },
		"two origins":          func(r *http.Request) { own(r); r.Header.Add("Origin", s.origin()) },
		"cross-site":           func(r *http.Request) { own(r); r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"same-site":            func(r *http.Request) { own(r); r.Header.Set("Sec-Fetch-Site", "same-site") },
		"a cookie instead":     func(r *http.Request) { r.Header.Set("Cookie", "session="+session) },
		"a bearer instead":     func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+session) },
	}
	for _, path := range []string{"/view", "/wait", "/do", "/check", "/active"} {
		for name, edit := range cases {
			if status, answer, _ := s.send("POST", path, `{}`, edit); status != http.StatusForbidden || strings.Contains(answer, "Identity") {
				t.Errorf("%s with %s: %d", path, name, status)
			}
		}
		if status, _, _ := s.send("GET", path, "", own); status != http.StatusMethodNotAllowed && status != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, status)
		}
	}
	for _, body := range []string{``, `{`, `[]`, `{"unknown":1}`, `{"version":-1}`, `"` + strings.Repeat("x", maxBody) + `"`} {
		if status, _, _ := s.send("POST", "/do", body, own); status != http.StatusBadRequest {
			t.Errorf("the body %.20q: %d", body, status)
		}
	}
	if status, _, _ := s.send("POST", "/do", `{"action":"identity-reset"}`, own); status != http.StatusConflict {
		t.Errorf("an action nothing offers: %d", status)
	}
}

func TestEveryAnswerIsHardened(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for _, path := range []string{"/", "/page.js", "/page.css", "/nothing"} {
		_, body, h := s.send("GET", path, "", nil)
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "script-src 'self';", "base-uri 'none'", "form-action 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy lacks %s", path, want)
			}
		}
		if strings.Contains(csp, "unsafe") || h.Get("X-Frame-Options") != "DENY" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %v", path, h)
		}
		for _, outside := range regexp.MustCompile(`(?i)(src|href|url\()\s*=?\s*["']?(https?:)?//[^"' ]*`).FindAllString(body, -1) {
			t.Errorf("%s loads %s", path, outside)
		}
	}
	for _, dest := range []string{"iframe", "frame", "embed", "object"} {
		if status, _, _ := s.send("GET", "/", "", func(r *http.Request) { r.Header.Set("Sec-Fetch-Dest", dest) }); status != http.StatusForbidden {
			t.Errorf("framed as %s: %d", dest, status)
		}
	}
	if status, _, _ := s.send("GET", "/", "", func(r *http.Request) { r.Host = "rebound.example" }); status != http.StatusForbidden {
		t.Errorf("the shell under another name: %d", status)
	}
}

func TestEndsWhenIdle(t *testing.T) {
	t.Parallel()
	s := serve(t)
	_, session := s.trade(s.tokenOf())
	s.clock.add(IdleEnd - time.Second)
	if _, idle := s.presence(); idle {
		t.Error("it ends before its time")
	}
	if status, _, _ := s.send("POST", "/view", `{"pane":"storage"}`, with(session)); status != http.StatusOK {
		t.Fatal("the page is gone already")
	}
	s.clock.add(IdleEnd - time.Second)
	// Polls are no use of the page.
	if status, _, _ := s.send("POST", "/wait", `{"pane":"storage"}`, with(session)); status != http.StatusOK {
		t.Fatal("the page is gone already")
	}
	s.clock.add(time.Second)
	err := <-s.ended
	s.ended <- err // for the clean-up
	if err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.File()); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file is still there")
	}
}

func TestABrowserThatWentAway(t *testing.T) {
	t.Parallel()
	s := serve(t)
	_, session := s.trade(s.tokenOf())
	if here, _ := s.presence(); !here {
		t.Error("the browser is not seen")
	}
	if status, _, _ := s.send("POST", "/wait", `{"pane":"identity"}`, with(session)); status != http.StatusOK {
		t.Fatal(status)
	}
	// until waits for a state of the model, which its host changes.
	until := func(what string, ok func() bool) {
		t.Helper()
		end := time.NewTimer(time.Minute)
		defer end.Stop()
		for {
			_, next := s.model.Changed()
			if ok() {
				return
			}
			select {
			case <-next:
			case <-end.C:
				t.Fatalf("this did not come: %s", what)
			}
		}
	}
	// Requests are asked here while a browser is there.
	until("it is asked", func() bool { return strings.Contains(fmt.Sprint(s.model.View(panes.Requests)), "Asks here") })
	if status, answer, _ := s.send("POST", "/do", `{"action":"identity-create"}`, with(session)); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	until("the phrase shows", func() bool { v := s.model.View(panes.Identity); return v.Sheet != nil && v.Sheet.Secret != nil })
	secret := s.model.View(panes.Identity).Sheet.Secret
	s.clock.add(awayAfter)
	if here, _ := s.presence(); here {
		t.Error("the browser still counts as there")
	}
	until("the phrase is dismissed", func() bool { return s.model.View(panes.Identity).Sheet == nil })
	if secret.Text() != "" || secret.Words() != nil {
		t.Error("the words stay after the browser went away")
	}
}
