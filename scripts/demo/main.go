// Command demo shows the main job between two hosts on this machine: pair with
// the owner's approval, run an agent over the encrypted channel with a recorder
// in between, see every attack refused, and invite a third through a relay.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"osaurus/engine/address"
)

const (
	prompt   = "please repeat this pumpernickel sentence"
	deadline = 90 * time.Second
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	inside := len(os.Args) == 2 && os.Args[1] == insideFlag
	if !inside {
		entered, err := enterNetwork(ctx)
		switch {
		case entered && err != nil:
			os.Exit(1) // the demo inside said why
		case entered:
			return
		}
		fmt.Println("Agents are found by address here:", err)
	}
	if err := run(ctx, inside); err != nil {
		fmt.Fprintln(os.Stderr, "demo failed:", err)
		os.Exit(1)
	}
	fmt.Println("\nEvery step did what it should.")
}

// demo is the stage: two homes, one binary.
type demo struct {
	ctx      context.Context
	dir, bin string
	announce bool // the network is ours alone: mDNS may be heard on it
	step     int
}

func run(ctx context.Context, announce bool) (err error) {
	dir, err := os.MkdirTemp("", "osaurus-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// The machine's buses lead out of the demo: to its Avahi, which announces on
	// its network, and to the keyring of whoever runs this.
	for _, bus := range []string{"DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"} {
		if err := os.Setenv(bus, "unix:path="+filepath.Join(dir, "no-bus")); err != nil {
			return err
		}
	}
	d := &demo{ctx: ctx, dir: dir, bin: filepath.Join(dir, "osaurus"), announce: announce}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", d.bin, "./app/osaurus").CombinedOutput(); err != nil {
		return fmt.Errorf("building: %w\n%s", err, out)
	}
	host, stopAlice, err := d.serve("alice", announce)
	if err != nil {
		return err
	}
	defer stopAlice()
	bob, stopBob, err := d.serve("bob", false)
	if err != nil {
		return err
	}
	defer stopBob()
	d.say("Alice's host serves at %s, Bob's at %s, each in a home of its own.", host.addr, bob.addr)
	if err := d.find(&host); err != nil {
		return err
	}
	wire, err := newRecorder(ctx, host.addr)
	if err != nil {
		return err
	}
	defer wire.close()
	if err := d.pair(host, wire); err != nil {
		return err
	}
	if err := d.talk(wire); err != nil {
		return err
	}
	if err := d.attack(host, wire); err != nil {
		return err
	}
	return d.throughRelay()
}

func (d *demo) say(format string, args ...any) {
	d.step++
	fmt.Printf("\n%d. %s\n", d.step, fmt.Sprintf(format, args...))
}

// osaurus runs one command of one home and returns what it printed.
func (d *demo) osaurus(home string, args ...string) (string, error) {
	cmd := exec.CommandContext(d.ctx, d.bin, append([]string{"--home", filepath.Join(d.dir, home), "--quiet"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("osaurus %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// hosted is a running host and the agent of it that others may ask for.
type hosted struct {
	addr  string // host:port
	agent agent
}

// agent is what "agents list --json" and "discover --json" tell of one.
type agent struct {
	ID      string          `json:"id"`
	AgentID string          `json:"agent_id"`
	Name    string          `json:"name"`
	Address address.Address `json:"address"`
}

func (d *demo) serve(home string, expose bool) (hosted, func(), error) {
	var h hosted
	if expose {
		if _, err := d.osaurus(home, "settings", "set", "expose=true"); err != nil {
			return h, nil, err
		}
	}
	cmd := exec.CommandContext(d.ctx, d.bin, "--home", filepath.Join(d.dir, home), "--json", "serve", "--port", "0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return h, nil, err
	}
	if err := cmd.Start(); err != nil {
		return h, nil, err
	}
	stop := func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may be gone already
		_ = cmd.Wait()
	}
	var started struct{ URL string }
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&started); err != nil {
		stop()
		return h, nil, fmt.Errorf("%s's host did not start: %w", home, err)
	}
	h.addr = strings.TrimPrefix(started.URL, "http://")
	return h, stop, nil
}

// find learns of Alice's agent: over mDNS where the network is ours alone.
func (d *demo) find(h *hosted) error {
	if !d.announce {
		d.say("Bob learns the address of Alice's agent from her: nothing is announced on this network.")
		list, err := d.osaurus("alice", "agents", "list", "--json")
		if err != nil {
			return err
		}
		var agents []agent
		if err := json.Unmarshal([]byte(list), &agents); err != nil || len(agents) < 2 {
			return fmt.Errorf("no agent to pair with: %w", err)
		}
		h.agent = agents[1]
		return nil
	}
	d.say("Bob looks around: mDNS, in a network of the demo's own.")
	var first struct {
		Instance agent `json:"instance"`
	}
	found, err := d.osaurus("bob", "discover", "--json", "--wait", "6s")
	if err != nil {
		return err
	}
	if err := json.NewDecoder(strings.NewReader(found)).Decode(&first); err != nil {
		return fmt.Errorf("nothing was found: %w", err)
	}
	h.agent = first.Instance
	h.agent.ID = first.Instance.AgentID
	fmt.Printf("   found: %s  %s\n", h.agent.Name, h.agent.Address)
	return nil
}

func (d *demo) pair(h hosted, wire *recorder) error {
	d.say("Bob asks for Alice's agent %s; she is shown the request and allows it.", h.agent.Address.Short())
	out, err := d.ask(fmt.Sprintf("http://%s/%s@%s", wire.addr, h.agent.ID, h.agent.Address), "--name", "assistant")
	if err != nil {
		return err
	}
	fmt.Println("   " + out)
	return nil
}

// ask is Bob's request to pair while Alice is there to allow it.
func (d *demo) ask(target string, flags ...string) (string, error) {
	watch := exec.CommandContext(d.ctx, d.bin, "--home", filepath.Join(d.dir, "alice"), "approvals", "watch", "--json")
	lines, err := watch.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := watch.Start(); err != nil {
		return "", err
	}
	defer func() {
		_ = watch.Process.Signal(os.Interrupt) // it may be gone already
		_ = watch.Wait()
	}()
	events := json.NewDecoder(bufio.NewReader(lines))
	if err := events.Decode(&struct{}{}); err != nil {
		return "", fmt.Errorf("the approver did not attach: %w", err)
	}
	approved := make(chan error, 1)
	go func() { approved <- d.approve(events) }()
	out, err := d.osaurus("bob", append([]string{"pair", target}, flags...)...)
	return out, errors.Join(err, <-approved)
}

// approve answers the first request that shows.
func (d *demo) approve(events *json.Decoder) error {
	for {
		var e struct {
			Current *struct{ ID, Connector, Source, AgentName string }
		}
		if err := events.Decode(&e); err != nil {
			return err
		}
		if e.Current == nil {
			continue
		}
		fmt.Printf("   asked: %s from %s wants %s\n", e.Current.Connector, e.Current.Source, e.Current.AgentName)
		_, err := d.osaurus("alice", "approvals", "approve", e.Current.ID)
		return err
	}
}

func (d *demo) talk(wire *recorder) error {
	d.say("Bob runs the agent through the channel; the answer streams.")
	out, err := d.osaurus("bob", "run", "assistant", prompt, "--model", "echo")
	if err != nil {
		return err
	}
	fmt.Println("   " + out)
	if !strings.Contains(out, prompt) {
		return errors.New("the answer is not the echo of the prompt")
	}
	d.say("A recorder sat in between. What could it read?")
	seen := wire.bytes()
	for _, secret := range []string{prompt, "pumpernickel", "osk-v1.", "Bearer", "chat.completion", "\"messages\""} {
		if bytes.Contains(seen, []byte(secret)) {
			return fmt.Errorf("the recorder read %q", secret)
		}
	}
	if !bytes.Contains(seen, []byte("/secure/call")) {
		return errors.New("the recorder saw no call: it was not in between")
	}
	fmt.Printf("   %d bytes: no prompt, no answer, no key\n", len(seen))
	return nil
}

func (d *demo) attack(h hosted, wire *recorder) error {
	d.say("Attacks, each refused:")
	steps := []struct {
		name string
		try  func() error
	}{
		{"replayed envelope → 409", func() error { return d.replay(h, wire) }},
		{"answer cut off → the caller is told", func() error { return d.truncate(wire) }},
		{"run in clear from a proxy → 401 without a key", func() error { return d.plain(h) }},
		{"allowed, but for another address than Bob pinned → he takes no key", func() error { return d.wrongPin(h) }},
		{"revoked key → refused", func() error { return d.revoked() }},
	}
	for _, s := range steps {
		if err := s.try(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Println("   ok  " + s.name)
	}
	if out, err := d.osaurus("alice", "log", "verify"); err != nil {
		return err
	} else {
		d.say("Alice's security log: %s", out)
	}
	return nil
}

// replay sends the last recorded call once more.
func (d *demo) replay(h hosted, wire *recorder) error {
	body := wire.lastCall()
	if body == nil {
		return errors.New("no call was recorded")
	}
	status, text, err := d.post("http://"+h.addr+"/secure/call", body)
	if err != nil {
		return err
	}
	if status != http.StatusConflict || !strings.Contains(text, "secure_replay") {
		return fmt.Errorf("got %d %s", status, text)
	}
	return nil
}

func (d *demo) post(url string, body []byte, headers ...string) (int, string, error) {
	req, err := http.NewRequestWithContext(d.ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

func (d *demo) truncate(wire *recorder) error {
	wire.cutStreams(true)
	defer wire.cutStreams(false)
	out, err := d.osaurus("bob", "run", "assistant", prompt, "--model", "echo")
	if err == nil {
		return fmt.Errorf("a cut answer passed as whole: %q", out)
	}
	return nil
}

func (d *demo) plain(h hosted) error {
	status, text, err := d.post("http://"+h.addr+"/agents/"+h.agent.ID+"/run", []byte(`{"messages":[{"role":"user","content":"x"}]}`), "X-Forwarded-For", "203.0.113.9")
	if err != nil {
		return err
	}
	if status != http.StatusUnauthorized {
		return fmt.Errorf("got %d %s", status, text)
	}
	key, err := d.osaurus("alice", "keys", "create", "--label", "demo", "--expires", "30d")
	if err != nil {
		return err
	}
	status, text, err = d.post("http://"+h.addr+"/agents/"+h.agent.ID+"/run", []byte(`{"messages":[{"role":"user","content":"x"}]}`), "X-Osaurus-Relay-Origin", "1", "Authorization", "Bearer "+key)
	if err != nil {
		return err
	}
	if status != http.StatusUpgradeRequired || !strings.Contains(text, "secure_channel_required") {
		return fmt.Errorf("with a key from elsewhere: got %d %s", status, text)
	}
	return nil
}

func (d *demo) wrongPin(h hosted) error {
	_, err := d.ask(fmt.Sprintf("http://%s/%s@0x70997970C51812dc3A010C7d01b50e0d17dc79C8", h.addr, h.agent.ID))
	if err == nil {
		return errors.New("paired with an address that is not the agent's")
	}
	if !strings.Contains(err.Error(), "another address than the one pinned") {
		return err
	}
	return nil
}

func (d *demo) revoked() error {
	list, err := d.osaurus("alice", "keys", "list", "--json")
	if err != nil {
		return err
	}
	var keys []struct{ ID, Label string }
	if err := json.Unmarshal([]byte(list), &keys); err != nil {
		return err
	}
	for _, k := range keys {
		if _, err := d.osaurus("alice", "keys", "revoke", k.ID, "--yes"); err != nil {
			return err
		}
	}
	_, err = d.osaurus("bob", "run", "assistant", prompt, "--model", "echo")
	if err == nil {
		return errors.New("a revoked key still runs")
	}
	if !strings.Contains(err.Error(), "revoked") {
		return err
	}
	return nil
}
