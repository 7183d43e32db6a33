//go:build linux

package gvisor

import (
	"fmt"
	"os"
	"testing"
	"time"

	"osaurus/engine/internal/benchratio"
	"osaurus/engine/sandbox/drivertest"
)

// BenchmarkSandbox measures wall time, of which most passes in other
// processes: a start with verification and unpacking until the guest's first
// stream, and a command by way of the control stream.
func BenchmarkSandbox(b *testing.B) {
	state, err := os.MkdirTemp("", "osr")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(state) })
	d := open(drivertest.NewWorld(b), state)
	if err := d.Available(b.Context()); err != nil {
		b.Skip(err)
	}
	bestEffort := os.Geteuid() != 0 || !cgroupsUsable()
	b.Run("20a_start_warm", func(b *testing.B) {
		drivertest.Start(b, d, drivertest.NewSpec("", bestEffort)) // warm
		benchratio.Measure(b, 7, "ms", benchratio.AtMost(1000), func() float64 {
			began := time.Now()
			g := drivertest.Start(b, d, drivertest.NewSpec("", bestEffort))
			took := milliseconds(began)
			if err := g.Stop(b.Context()); err != nil {
				b.Fatal(err)
			}
			return took
		})
	})
	b.Run("20b_exec", func(b *testing.B) {
		g := drivertest.Start(b, d, drivertest.NewSpec("", bestEffort))
		benchratio.Measure(b, 30, "ms", benchratio.AtMost(150), func() float64 {
			began := time.Now()
			if out, exit := g.Exec(b, 2001, "/bin/echo", "hi"); exit != 0 || out != "hi" {
				b.Fatal(fmt.Sprint(exit, out))
			}
			return milliseconds(began)
		})
	})
	b.Run("20c_bridge_stream", func(b *testing.B) {
		g := drivertest.Start(b, d, drivertest.NewSpec("", bestEffort))
		benchratio.Measure(b, 30, "ms", benchratio.AtMost(150), func() float64 {
			began := time.Now()
			if _, exit := g.Sh(b, 2001, "osaurus-host /tmp/osaurus-bridge.sock hello"); exit != 0 {
				b.Fatal("no answer")
			}
			return milliseconds(began)
		})
	})
}

func milliseconds(since time.Time) float64 { return float64(time.Since(since)) / 1e6 }
