package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"osaurus/bridge"
	"osaurus/engine"
	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/keystore"
	"osaurus/engine/pairing"
	"osaurus/engine/secret"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, good := range []string{`{"home":"h"}`, `{"home":"h","port":0}`, `{"home":"h","port":65535,"portable":true,"version":"1"}`} {
		if c, err := parseConfig(good); err != nil || c.Home != "h" {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{``, `null`, `[]`, `{}`, `{"home":""}`, `{"home":1}`, `{"home":"h","x":1}`, `{"home":"h"}{}`, `{"home":"h","port":-1}`, `{"home":"h","port":65536}`,
		`{"home":"` + strings.Repeat("h", maxConfig) + `"}`} {
		if _, err := parseConfig(bad); !errors.Is(err, fault.Usage) {
			t.Errorf("%.40s: %v", bad, err)
		}
	}
}

// shortDir is one whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "osr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestHost(t *testing.T) {
	t.Parallel()
	free, home := 0, shortDir(t)
	h, err := start(config{Home: home, Port: &free, Portable: true}, secret.Bytes{})
	if err != nil {
		t.Fatal(err)
	}
	if s := h.state(); !s.Running || s.Port == 0 || s.Status == nil || len(s.Agents) != 1 {
		t.Errorf("its state is %+v", s)
	}
	if _, err := start(config{Home: home, Portable: true}, secret.Bytes{}); !errors.Is(err, engine.ErrInUse) {
		t.Errorf("a second host in the same home: %v", err)
	}
	if h.engine.Approval.Attached() {
		t.Error("somebody approves before anybody asked for events")
	}
	if _, ok := h.next(0); ok || !h.engine.Approval.Attached() {
		t.Error("who asks for events does not approve")
	}
	h.leave()
	if h.engine.Approval.Attached() {
		t.Error("who left still approves")
	}
	for n := range MaxEvents + 10 {
		h.add(event{Event: fmt.Sprint(n)})
	}
	if e, ok := h.next(0); !ok || e.Event != "10" {
		t.Errorf("the oldest that was kept is %+v", e)
	}
	if err := h.answer("x", "90d"); !errors.Is(err, pairing.ErrNoPrompt) {
		t.Errorf("answering nothing: %v", err)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if s := h.state(); s.Running {
		t.Error("it runs after it stopped")
	}
	h.mu.Lock()
	last := h.events[len(h.events)-1]
	h.mu.Unlock()
	if last != (event{Event: "stopped"}) {
		t.Errorf("its last event is %+v", last)
	}
}

// TestHeader holds osaurus.h against the header that cgo writes.
func TestHeader(t *testing.T) {
	t.Parallel()
	cc := compiler(t)
	dir := archive(t)
	check := func(header string) ([]byte, error) {
		file := filepath.Join(dir, "check.c")
		if err := os.WriteFile(file, []byte("#include \"libosaurus.h\"\n"+header), 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command(cc, "-fsyntax-only", "-I"+dir, file).CombinedOutput()
	}
	text, err := os.ReadFile("osaurus.h")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := check(string(text)); err != nil {
		t.Errorf("osaurus.h differs from what is exported: %v\n%s", err, out)
	}
	if _, err := check(strings.Replace(string(text), "int32_t milliseconds", "int64_t milliseconds", 1)); err == nil {
		t.Error("a wrong declaration was accepted")
	}
	names, err := exec.Command("nm", "-g", "--defined-only", filepath.Join(dir, "libosaurus.a")).Output()
	if err != nil {
		t.Skip("needs nm (Debian package binutils)")
	}
	for name := range strings.FieldsSeq(string(names)) {
		if strings.HasPrefix(name, "osaurus_") && !strings.Contains(string(text), name+"(") {
			t.Errorf("%s is exported and not in osaurus.h", name)
		}
	}
}

func compiler(t *testing.T) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("needs a C compiler (Debian package gcc)")
	}
	return cc
}

// made is the archive's directory once there is one.
var made string

// built makes the archive once: position-independent code of everything is
// compiled for it, which takes minutes the first time.
var built = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "osr"); err != nil {
		return "", err
	}
	made = dir
	out, err := exec.Command("go", "build", "-buildmode=c-archive", "-o", filepath.Join(dir, "libosaurus.a"), ".").CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("building the archive: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir := made; dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

func archive(t *testing.T) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestEmbedded builds a C program around the archive, runs it under the
// address sanitizer, and pairs with the host in it from a host in this
// process, over loopback.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	cc := compiler(t)
	dir := archive(t)
	bin := filepath.Join(dir, "embed")
	if out, err := exec.Command(cc, "-g", "-Wall", "-Werror", "-fsanitize=address", "-I.", "-o", bin, "testdata/embed.c", filepath.Join(dir, "libosaurus.a"), "-lpthread", "-lm", "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("linking: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), bin, shortDir(t), "90d")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	read := func(word string, into any) {
		t.Helper()
		if !lines.Scan() {
			_ = cmd.Wait()
			t.Fatalf("it says no %s: %s", word, &complaints)
		}
		raw, ok := strings.CutPrefix(lines.Text(), word+" ")
		if err := json.Unmarshal([]byte(raw), into); !ok || err != nil {
			t.Fatalf("it says %q: %v", lines.Text(), err)
		}
	}
	var there state
	read("state", &there)
	pairAndAsk(t, there, func() {
		var asked, ended event
		read("event", &asked)
		if asked.Prompt == nil || asked.Prompt.Source != "127.0.0.1" {
			t.Errorf("asked was %+v", asked)
		}
		read("event", &ended)
		if ended.Event != "approval_ended" || ended.Reason != "answered" {
			t.Errorf("it ended as %+v", ended)
		}
	})
	if err := stdin.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil || complaints.Len() > 0 {
		t.Errorf("it ends with %v: %s", err, &complaints)
	}
}

// pairAndAsk pairs a host of this process with one elsewhere, and has its
// agent answer through the channel.
func pairAndAsk(t *testing.T, there state, approved func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ports := bridge.Portable()
	ports.Advertiser, ports.Browser = nil, nil
	ports.Keystore = func(string, secret.Bytes) (keystore.Store, error) { return keystore.NewMemory(), nil }
	e, err := engine.Open(ctx, ports, engine.Config{Home: shortDir(t), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	}()
	if _, err := e.CreateIdentity(ctx); err != nil {
		t.Fatal(err)
	}
	base := &url.URL{Scheme: "http", Host: fmt.Sprint("127.0.0.1:", there.Port)}
	target := pairing.Target{BaseURL: base}
	for _, a := range there.Agents {
		if a.Address != "" {
			target.AgentID = a.ID
			if target.Address, err = address.Parse(a.Address); err != nil {
				t.Fatal(err)
			}
		}
	}
	paired := make(chan error, 1)
	var peer pairing.Peer
	go func() {
		var err error
		peer, err = e.Pair(ctx, target, "embedded")
		paired <- err
	}()
	approved()
	if err := <-paired; err != nil || peer.Address != target.Address {
		t.Fatalf("pairing: %+v, %v", peer, err)
	}
	resp, err := e.CallPeer(ctx, peer, func(base *url.URL) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("agents").String(), nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the agent's host answers %d", resp.StatusCode)
	}
}
