package engine_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"osaurus/engine/accesskey"
	"osaurus/engine/agents"
	"osaurus/engine/channel"
)

// nextSource gives each caller of a trouble its own address.
var nextSource atomic.Int64

// stranger speaks to a host's agent through a channel of its own.
func (w *whole) stranger(h *wholeHost, a agents.Agent, token string) (ask func(method, path, body string) (*http.Response, error), done func()) {
	n := nextSource.Add(1)
	_, tr := from(fmt.Sprintf("127.%d.%d.2", 60+n/200, 1+n%200))
	line := channel.NewTransport(channel.TransportConfig{Base: tr, Peer: h.url, Pinned: a.Address})
	client := &http.Client{Transport: line}
	ask = func(method, path, body string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(w.t.Context(), method, h.url.String()+path, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err == nil && refusedStatus(resp.StatusCode) {
			h.refused.Add(1)
		}
		return resp, err
	}
	return ask, func() { line.Close(); tr.CloseIdleConnections() }
}

// trouble does to every host at once what its owner and the world may do.
func (w *whole) trouble(crash bool) {
	var all sync.WaitGroup
	for _, h := range w.hosts {
		all.Go(func() {
			if _, err := h.RotateStorage(w.t.Context(), false, nil); err != nil {
				w.t.Errorf("rotating the storage key: %v", err)
			}
			w.rotations.Add(1)
		})
		all.Go(func() { w.revokedKey(h) })
		all.Go(func() { w.movedAgent(h) })
	}
	w.restartRelay(crash)
	all.Wait()
}

// revokedKey mints a key, streams with it, revokes it and tries again.
func (w *whole) revokedKey(h *wholeHost) {
	id, token := w.mint(h, h.agent)
	ask, done := w.stranger(h, h.agent, token)
	defer done()
	if status, err := statusOf(ask("GET", "/agents", "")); err != nil || status != http.StatusOK {
		w.t.Errorf("a fresh key: %d %v", status, err)
		return
	}
	if err := h.Keys.Revoke(w.t.Context(), id); err != nil {
		w.t.Error(err)
		return
	}
	w.revocations.Add(1)
	for _, path := range []string{"/agents", "/agents/" + h.agent.ID} {
		if status, err := statusOf(ask("GET", path, "")); err != nil || status != http.StatusUnauthorized {
			w.t.Errorf("%s with a revoked key: %d %v", path, status, err)
		}
	}
}

// movedAgent makes an agent with a key, gives it another address and tries the
// key again: at the old address, which must not answer any more.
func (w *whole) movedAgent(h *wholeHost) {
	a, err := h.Agents.Create(w.t.Context(), agents.Draft{Name: "Spare"})
	if err == nil {
		a, err = h.Agents.Assign(w.t.Context(), a.ID)
	}
	if err != nil {
		w.t.Error(err)
		return
	}
	_, token := w.mint(h, a)
	ask, done := w.stranger(h, a, token)
	defer done()
	if status, err := statusOf(ask("GET", "/agents", "")); err != nil || status != http.StatusOK {
		w.t.Errorf("the key of a new agent: %d %v", status, err)
	}
	if _, err := h.Agents.Rotate(w.t.Context(), a.ID); err != nil {
		w.t.Error(err)
		return
	}
	w.moves.Add(1)
	if status, err := statusOf(ask("GET", "/agents", "")); err == nil && status == http.StatusOK {
		w.t.Error("the key of an agent's former address is accepted")
	}
	if err := h.Agents.Delete(w.t.Context(), a.ID); err != nil {
		w.t.Error(err)
	}
}

// victims: one peer of each host loses its key in the middle of its runs. They
// end, and nothing it asks from then on is answered.
func (w *whole) victims() {
	release := w.model.hold()
	defer release()
	var all sync.WaitGroup
	chosen := map[*wholeHost]*wholePeer{}
	for _, p := range w.peers {
		if chosen[p.at] != nil {
			continue
		}
		chosen[p.at] = p
		all.Go(func() {
			if err := p.run(w.t.Context(), "victim", fmt.Sprintf("victim%d", p.n)); err == nil {
				w.t.Errorf("peer %d: a run of a revoked key was answered whole", p.n)
			}
		})
	}
	await(w.t, "the victims are in the middle of their answers", func() bool { return int(w.model.stalled.Load()) == len(chosen) })
	for h, p := range chosen {
		claims := w.keyOf(p)
		for _, m := range h.Keys.List() {
			if m.Nonce != claims.Nonce {
				continue
			}
			if err := h.Keys.Revoke(w.t.Context(), m.ID); err != nil {
				w.t.Error(err)
			}
			p.revoked.Store(true)
			w.revocations.Add(1)
		}
		if !p.revoked.Load() {
			w.t.Errorf("peer %d has a key that its host does not know", p.n)
		}
	}
	all.Wait() // while the provider still stalls
	for _, p := range chosen {
		if err := p.run(w.t.Context(), "victim", "late"); err == nil || !strings.Contains(err.Error(), "Access key has been revoked") {
			w.t.Errorf("peer %d after its key was revoked: %v", p.n, err)
		}
	}
}

func (w *whole) keyOf(p *wholePeer) accesskey.Claims {
	key, err := p.Peers.Key(w.t.Context(), p.peer.Address)
	if err != nil {
		w.t.Fatal(err)
	}
	defer key.Destroy()
	claims, err := accesskey.Inspect(key)
	if err != nil {
		w.t.Fatal(err)
	}
	return claims
}

func (w *whole) mint(h *wholeHost, a agents.Agent) (id, token string) {
	signer, err := h.Agents.Signer(w.t.Context(), a.Address)
	if err != nil {
		w.t.Error(err)
		return "", ""
	}
	m, err := h.Keys.Mint(w.t.Context(), signer, accesskey.MintRequest{Label: "trouble", Expiration: accesskey.Days30})
	if err != nil {
		w.t.Error(err)
		return "", ""
	}
	defer m.Token.Destroy()
	return m.ID, string(m.Token.Expose())
}

func statusOf(resp *http.Response, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// refusalsIn counts the refusals in a home's security log.
func refusalsIn(t *testing.T, home string) (n int64) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(home, "security.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(raw) {
		var e struct {
			Event  string `json:"event"`
			Untold int64  `json:"untold"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.Event == "request_refused" {
			n++
		}
		n += e.Untold
	}
	return n
}
