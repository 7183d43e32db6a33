package bridge

import (
	"context"

	"osaurus/bridge/secretservice"
	"osaurus/engine"
	"osaurus/engine/keystore"
)

// adapt puts what a Linux desktop offers in place of the portable ports.
func adapt(p *engine.Ports) {
	p.Keystore = opener(&systemStore{
		name: "secret-service", what: "the login keyring of this desktop (Secret Service)", available: secretservice.Available,
		open: func(ctx context.Context, id string) (keystore.Store, error) { return secretservice.Open(ctx, id) },
	})
	if d, ok := p.Advertiser.(discoverer); ok {
		n := newNetwork(d)
		p.Advertiser, p.Browser = n, n
	}
}
