//go:build linux

package gvisor

import (
	"os"
	"testing"
	"time"

	"osaurus/engine/internal/benchratio"
	"osaurus/engine/sandbox/drivertest"
)

// callsMeasured is below what an agent may call the bridge in a minute.
const callsMeasured = 100

// BenchmarkSandbox measures wall time, of which most passes in other
// processes, with the programs that ship inside the guest: a start with
// verification and unpacking until the agent has its token, a command, and a
// call of the bridge, by a program that runs and by one that starts for it.
func BenchmarkSandbox(b *testing.B) {
	root := os.Geteuid() == 0
	subject := drivertest.Subject{Open: open, Workspace: root, Limited: root && cgroupsUsable()}
	b.Run("20a_start_warm", func(b *testing.B) {
		t := drivertest.NewTimes(b, subject)
		t.Start() // warm
		benchratio.Measure(b, 7, "ms", benchratio.AtMost(1000), func() float64 { return milliseconds(t.Start()) })
	})
	b.Run("20b_exec", func(b *testing.B) {
		t := drivertest.NewTimes(b, subject)
		t.Exec("true") // the start
		benchratio.Measure(b, 30, "ms", benchratio.AtMost(150), func() float64 { return milliseconds(t.Exec("echo hi")) })
	})
	b.Run("20c_bridge_call", func(b *testing.B) {
		all := drivertest.NewTimes(b, subject).Calls(callsMeasured)
		next := 0
		benchratio.Measure(b, len(all), "ms", benchratio.AtMost(10), func() float64 {
			next++
			return milliseconds(all[next-1])
		})
	})
	b.Run("20d_exec_osaurus-host", func(b *testing.B) {
		t := drivertest.NewTimes(b, subject)
		t.Exec("true")
		// Two programs start: the shell of 20b and osaurus-host.
		benchratio.Measure(b, 30, "ms", benchratio.AtMost(300), func() float64 { return milliseconds(t.Exec("osaurus-host log hi")) })
	})
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
