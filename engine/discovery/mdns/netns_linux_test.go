package mdns

import (
	"testing"

	"go.uber.org/goleak"

	"osaurus/engine/discovery/discoverytest"
)

func side() discoverytest.Side {
	m := New(Options{})
	return discoverytest.Side{Advertiser: m, Browser: m}
}

func TestMain(m *testing.M) {
	discoverytest.Main(map[string]func() discoverytest.Side{"mdns": side})
	goleak.VerifyTestMain(m)
}

// TestTwoHosts runs the suite between two embedded responders.
func TestTwoHosts(t *testing.T) {
	t.Parallel()
	discoverytest.TwoHosts(t, "TestTwoHosts", side(), "mdns", func(t *testing.T, here discoverytest.Side, there *discoverytest.Far) {
		discoverytest.Run(t, there, here.Browser)
	})
}
