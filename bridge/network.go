package bridge

import (
	"context"
	"sync"

	"osaurus/bridge/dnssd"
	"osaurus/engine/discovery"
)

// network is the system's DNS-SD responder where one runs when it is first
// needed, and the embedded one where none does. Two on one machine would
// answer for each other's names, so the choice holds while anything is
// published.
type network struct {
	available func() error
	system    discoverer
	embedded  discoverer

	mu     sync.Mutex
	chosen discoverer // nil while nothing is published
}

// discoverer is both ports of discovery.
type discoverer interface {
	discovery.Advertiser
	discovery.Browser
}

func newNetwork(embedded discoverer) *network {
	return &network{available: dnssd.Available, system: dnssd.New(), embedded: embedded}
}

func (n *network) choose() discoverer {
	if n.available() == nil {
		return n.system
	}
	return n.embedded
}

// Publish implements discovery.Advertiser.
func (n *network) Publish(ctx context.Context, want []discovery.Instance) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.chosen == nil {
		if len(want) == 0 {
			return nil
		}
		n.chosen = n.choose()
	}
	if len(want) > 0 {
		return n.chosen.Publish(ctx, want)
	}
	// Closing withdraws all, and the next call may choose again.
	err := n.chosen.Close()
	n.chosen = nil
	return err
}

// Close implements discovery.Advertiser.
func (n *network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.chosen == nil {
		return nil
	}
	defer func() { n.chosen = nil }()
	return n.chosen.Close()
}

// Browse implements discovery.Browser.
func (n *network) Browse(ctx context.Context, f func(discovery.Event)) error {
	return n.choose().Browse(ctx, f)
}
