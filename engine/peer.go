package engine

import (
	"context"
	"net/http"
	"net/url"
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
		t = channel.NewTransport(channel.TransportConfig{Base: e.transportTo(base), Peer: base, Pinned: pinned, Now: e.ports.Now, Rand: e.ports.Rand})
		l.open[key] = t
	}
	return t
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
	return resp, e.Peers.Used(p.Address, p.BaseURL)
}
