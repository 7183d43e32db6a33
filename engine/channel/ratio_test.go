package channel

import (
	"slices"
	"syscall"
	"testing"
	"time"
)

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func compare(b *testing.B, subject, limit func()) {
	cost := func(f func(), n int) float64 {
		before := cpuTime()
		for range n {
			f()
		}
		return float64(cpuTime()-before) / float64(n)
	}
	size := func(f func()) int {
		n := 1
		for {
			before := cpuTime()
			for range n {
				f()
			}
			if d := cpuTime() - before; d > 15*time.Millisecond {
				return n
			}
			n *= 2
		}
	}
	ns, nl := size(subject), size(limit)
	var ratios, cs, cl []float64
	for range 20 {
		a, c := cost(subject, ns), cost(limit, nl)
		ratios, cs, cl = append(ratios, a/c), append(cs, a), append(cl, c)
	}
	slices.Sort(ratios)
	slices.Sort(cs)
	slices.Sort(cl)
	b.ReportMetric(ratios[10], "cost-ratio")
	b.ReportMetric(1/ratios[10], "speed-ratio")
	b.ReportMetric(ratios[5], "q1")
	b.ReportMetric(ratios[15], "q3")
	b.ReportMetric(cs[10], "subject-ns")
	b.ReportMetric(cl[10], "limit-ns")
	b.ReportMetric(0, "ns/op")
}
