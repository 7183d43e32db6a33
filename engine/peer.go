package engine

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"osaurus/engine/address"
	"osaurus/engine/channel"
	"osaurus/engine/identity"
	"osaurus/engine/pairing"
)

// lines are the open channels to peers, one for each address and place.
type lines struct {
	mu   sync.Mutex
	open map[string]*channel.Transport
}

func (l *lines) get(e *Engine, base *url.URL, pinned address.Address) *channel.Transport {
	key := pinned.Lower() + " " + base.String()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[string]*channel.Transport{}
	}
	t := l.open[key]
	if t == nil {
		t = e.transport(base, pinned)
		l.open[key] = t
	}
	return t
}

// transport opens a channel that insists on what is known of the peer.
func (e *Engine) transport(base *url.URL, pinned address.Address) *channel.Transport {
	c := channel.TransportConfig{Base: e.transportTo(base), Peer: base, Pinned: pinned, Now: e.ports.Now, Rand: e.ports.Rand}
	if p, err := e.Peers.Find(pinned.String()); err == nil && p.PQ {
		c.Hybrid = channel.HybridRequired
	}
	c.OnHybrid = func() {
		if err := e.Peers.PinHybrid(pinned); err != nil {
			e.ports.Logger.Warn("the post-quantum exchange is not pinned", slog.String("error", err.Error()))
		}
	}
	return channel.NewTransport(c)
}

// forget closes the channels to an address: it was paired anew.
func (l *lines) forget(a address.Address) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, t := range l.open {
		if strings.HasPrefix(key, a.Lower()+" ") {
			t.Close()
			delete(l.open, key)
		}
	}
}

func (l *lines) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, t := range l.open {
		t.Close()
		delete(l.open, key)
	}
}

// PairingKey returns this host's key as a connector. The caller destroys it.
func (e *Engine) PairingKey(ctx context.Context) (identity.PairingKey, error) {
	master, err := e.Account.Unlock(ctx, "pair with another host")
	if err != nil {
		return identity.PairingKey{}, err
	}
	defer master.Destroy()
	return master.Pairing()
}

// Pair asks another host's owner for access to an agent and keeps it.
func (e *Engine) Pair(ctx context.Context, t pairing.Target, name string) (pairing.Peer, error) {
	if err := e.Peers.Room(t.Address); err != nil {
		return pairing.Peer{}, err
	}
	key, err := e.PairingKey(ctx)
	if err != nil {
		return pairing.Peer{}, err
	}
	defer key.Destroy()
	client := *e.ports.Client
	client.Timeout = 0 // the owner over there may take two minutes
	got, err := pairing.Pair(ctx, &client, key, t, e.ports.Rand)
	if err != nil {
		return pairing.Peer{}, err
	}
	defer got.Key.Destroy()
	defer e.lines.forget(t.Address)
	return e.Peers.Add(ctx, t, name, got)
}

// CallPeer sends a request to a paired agent's host through the channel. path
// stands below the peer's base address.
func (e *Engine) CallPeer(ctx context.Context, p pairing.Peer, build func(base *url.URL) (*http.Request, error)) (*http.Response, error) {
	base, err := url.Parse(p.BaseURL)
	if err != nil {
		return nil, err
	}
	req, err := build(base)
	if err != nil {
		return nil, err
	}
	key, err := e.Peers.Key(ctx, p.Address)
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	req.Header.Set("Authorization", "Bearer "+string(key.Expose()))
	client := http.Client{Transport: e.lines.get(e, base, p.Address)}
	resp, err := client.Do(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err := e.Peers.Used(p.Address, p.BaseURL); err != nil {
		// The answer is there, and may be the end of something that runs once.
		e.ports.Logger.Warn("the use of a peer is not noted", slog.String("error", err.Error()))
	}
	return resp, nil
}
