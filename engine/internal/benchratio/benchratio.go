// Package benchratio measures a subject against what limits it: both in one
// process, in turn, by CPU time, because on a shared machine neither wall time
// nor a figure from another run can be compared. Only benchmarks import it.
package benchratio

import (
	"slices"
	"syscall"
	"testing"
	"time"
)

// Pace is how a comparison is measured: rounds of subject and limit in turn,
// each for slice of process CPU time.
type Pace struct {
	Rounds int
	Slice  time.Duration
}

// The paces at which medians of one machine repeat: pure computing, whole HTTP
// calls, and streams whose system calls vary most.
var (
	Computing = Pace{20, 15 * time.Millisecond}
	Calling   = Pace{20, 30 * time.Millisecond}
	Streaming = Pace{60, 60 * time.Millisecond}
)

// Goal is what a median must reach.
type Goal struct {
	bound   float64
	atLeast bool
}

// AtMost is a goal for a cost: CPU time in units of the limit's, or a figure.
func AtMost(x float64) Goal { return Goal{bound: x} }

// AtLeast is a goal for a speed: the limit's CPU time in units of the
// subject's, or a figure.
func AtLeast(x float64) Goal { return Goal{bound: x, atLeast: true} }

// Names of what a benchmark reports. The median's unit follows MedianPrefix;
// Ratio is that of comparisons.
const (
	MedianPrefix = "median-"
	Ratio        = "x"
	LowerUnit    = "q1"
	UpperUnit    = "q3"
	AtMostUnit   = "at-most"
	AtLeastUnit  = "at-least"
)

// Compare reports the median and the quartiles of the rounds' ratios beside
// the goal. It measures once however large b.N is, so run it with -benchtime 1x.
func Compare(b *testing.B, p Pace, g Goal, subject, limit func()) {
	b.Helper()
	r := p.measure(CPUTime, subject, limit)
	b.ReportMetric(quantile(r.ours, 2), "ours-cpu-ns")
	b.ReportMetric(quantile(r.theirs, 2), "limit-cpu-ns")
	g.report(b, Ratio, r.ratios(g))
}

// Measure reports the median and the quartiles of n samples of a figure in the
// unit, which has no blanks, beside the goal.
func Measure(b *testing.B, n int, unit string, g Goal, sample func() float64) {
	b.Helper()
	all := make([]float64, n)
	for i := range all {
		all[i] = sample()
	}
	g.report(b, unit, all)
}

func (g Goal) report(b *testing.B, unit string, all []float64) {
	b.ReportMetric(0, "ns/op") // the wall time of all rounds says nothing
	b.ReportMetric(quantile(all, 1), LowerUnit)
	b.ReportMetric(quantile(all, 2), MedianPrefix+unit)
	b.ReportMetric(quantile(all, 3), UpperUnit)
	if g.atLeast {
		b.ReportMetric(g.bound, AtLeastUnit)
	} else {
		b.ReportMetric(g.bound, AtMostUnit)
	}
}

// CPUTime is what this process has used, in user and system mode.
func CPUTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic("benchratio: internal error: " + err.Error())
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rounds are the CPU nanoseconds of one call, round by round.
type rounds struct{ ours, theirs []float64 }

func (r rounds) ratios(g Goal) []float64 {
	all := make([]float64, len(r.ours))
	for i := range all {
		all[i] = r.ours[i] / r.theirs[i]
		if g.atLeast {
			all[i] = r.theirs[i] / r.ours[i]
		}
	}
	return all
}

func (p Pace) measure(cpu func() time.Duration, subject, limit func()) rounds {
	var r rounds
	ns, nl := p.calls(cpu, subject), p.calls(cpu, limit)
	for range p.Rounds {
		r.ours = append(r.ours, cost(cpu, subject, ns))
		r.theirs = append(r.theirs, cost(cpu, limit, nl))
	}
	return r
}

// calls returns how often f runs in one slice.
func (p Pace) calls(cpu func() time.Duration, f func()) int {
	for n := 1; ; n *= 2 {
		if total := cost(cpu, f, n) * float64(n); total >= float64(p.Slice)/2 {
			return max(1, int(float64(n)*float64(p.Slice)/total))
		}
	}
}

// cost returns the CPU nanoseconds of one f, over n.
func cost(cpu func() time.Duration, f func(), n int) float64 {
	before := cpu()
	for range n {
		f()
	}
	return float64(cpu()-before) / float64(n)
}

// quantile returns the q-th quartile: 1, 2 (the median) or 3.
func quantile(all []float64, q int) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[(len(sorted)-1)*q/4]
}
