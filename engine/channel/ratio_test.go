package channel

import (
	"slices"
	"syscall"
	"testing"
	"time"
)

// pace is how a comparison is measured: rounds of subject and limit in turn,
// each for slice of process CPU time.
type pace struct {
	rounds int
	slice  time.Duration
}

var (
	computing = pace{20, 15 * time.Millisecond}
	calling   = pace{20, 30 * time.Millisecond}
	streaming = pace{60, 60 * time.Millisecond}
)

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cost returns the CPU nanoseconds of one f, over n.
func cost(f func(), n int) float64 {
	before := cpuTime()
	for range n {
		f()
	}
	return float64(cpuTime()-before) / float64(n)
}

// repeat returns how often f runs in slice.
func repeat(f func(), slice time.Duration) int {
	for n := 1; ; n *= 2 {
		if total := cost(f, n) * float64(n); total >= float64(slice)/2 {
			return max(1, int(float64(n)*float64(slice)/total))
		}
	}
}

// compare reports how fast subject is, with limit as 1: the median and the
// quartiles of the rounds' ratios, beside the goal.
func compare(b *testing.B, p pace, goal float64, subject, limit func()) {
	b.Helper()
	ns, nl := repeat(subject, p.slice), repeat(limit, p.slice)
	var speed, ours, theirs []float64
	for range p.rounds {
		s, l := cost(subject, ns), cost(limit, nl)
		speed, ours, theirs = append(speed, l/s), append(ours, s), append(theirs, l)
	}
	quantile := func(all []float64, q int) float64 {
		slices.Sort(all)
		return all[(len(all)-1)*q/4]
	}
	b.ReportMetric(0, "ns/op") // wall time of all rounds says nothing
	b.ReportMetric(quantile(ours, 2), "ours-cpu-ns")
	b.ReportMetric(quantile(theirs, 2), "limit-cpu-ns")
	b.ReportMetric(quantile(speed, 1), "q1")
	b.ReportMetric(quantile(speed, 2), "speed")
	b.ReportMetric(quantile(speed, 3), "q3")
	b.ReportMetric(goal, "goal")
}
