package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// throughRelay pairs Carol, who cannot see Alice's host, by an invite and a
// relay of the demo's own.
func (d *demo) throughRelay() error {
	domain, stopRelay, err := d.relay()
	if err != nil {
		return err
	}
	defer stopRelay()
	_, stopCarol, err := d.serve("carol", false)
	if err != nil {
		return err
	}
	defer stopCarol()
	d.say("Carol is on another network. A relay stands in between, at %s; it is trusted with nothing.", domain)
	for _, home := range []string{"alice", "carol"} {
		if _, err := d.osaurus(home, "settings", "set", "relay_domain="+domain); err != nil {
			return err
		}
	}
	if err := d.connected(); err != nil {
		return err
	}
	made, err := d.osaurus("alice", "invite", "create", "Assistant", "--json")
	if err != nil {
		return err
	}
	var invite struct {
		Link string `json:"link"`
	}
	if err := json.Unmarshal([]byte(made), &invite); err != nil || !strings.HasPrefix(invite.Link, "osaurus://") {
		return fmt.Errorf("no link in %q: %w", made, err)
	}
	fmt.Printf("   Alice's invite: %.60s…\n", invite.Link)
	if _, err := d.osaurus("carol", "pair", invite.Link, "--name", "assistant", "--yes"); err != nil {
		return err
	}
	out, err := d.osaurus("carol", "run", "assistant", prompt, "--model", "echo")
	if err != nil {
		return err
	}
	if !strings.Contains(out, prompt) {
		return errors.New("the answer is not the echo of the prompt")
	}
	fmt.Println("   Carol ran it through the relay: " + out)
	if _, err := d.osaurus("carol", "pair", invite.Link, "--yes"); err == nil || !strings.Contains(err.Error(), "already been redeemed") {
		return fmt.Errorf("an invite served twice: %w", err)
	}
	fmt.Println("   ok  the same invite again → refused")
	stopRelay()
	if _, err := d.osaurus("carol", "run", "assistant", prompt, "--model", "echo"); err == nil {
		return errors.New("a run without a relay")
	}
	fmt.Println("   ok  the relay is gone → the caller is told")
	return nil
}

// relay starts one on a free port, which is part of its domain.
func (d *demo) relay() (domain string, stop func(), err error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	_, port, err := net.SplitHostPort(free.Addr().String())
	if err = errors.Join(err, free.Close()); err != nil {
		return "", nil, err
	}
	domain = "localhost:" + port
	cmd := exec.CommandContext(d.ctx, d.bin, "--home", filepath.Join(d.dir, "relay"), "--quiet", "relay", "serve", "--listen", "127.0.0.1:"+port, "--domain", domain)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stopped := false
	return domain, func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Signal(os.Interrupt) // it may be gone already
			_ = cmd.Wait()
		}
	}, nil
}

// connected waits until the relay has Alice's agent.
func (d *demo) connected() error {
	for range 20 {
		out, err := d.osaurus("alice", "relay", "enable", "Assistant", "--json")
		if err != nil {
			return err
		}
		if strings.Contains(out, `"connected"`) {
			return nil
		}
		select {
		case <-d.ctx.Done():
			return d.ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
	return errors.New("the relay does not take Alice's agent")
}
