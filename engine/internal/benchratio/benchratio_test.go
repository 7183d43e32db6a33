package benchratio

import (
	"maps"
	"testing"
	"time"
)

// fakeCPU is a process whose functions take exactly as long as they say.
type fakeCPU struct{ used time.Duration }

func (c *fakeCPU) now() time.Duration { return c.used }

func (c *fakeCPU) takes(d ...time.Duration) func() {
	n := 0
	return func() { c.used += d[n%len(d)]; n++ }
}

func TestRatios(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		goal           Goal
		subject, limit time.Duration
		want           float64
	}{
		"a cost of twice the limit": {AtMost(3), 2 * time.Microsecond, time.Microsecond, 2},
		"a speed of half the limit": {AtLeast(0.4), 2 * time.Microsecond, time.Microsecond, 0.5},
		"one call fills the slice":  {AtMost(1), 40 * time.Millisecond, 20 * time.Millisecond, 2},
		"a thousandth of the limit": {AtMost(1), time.Microsecond, time.Millisecond, 1e-3},
	} {
		cpu := &fakeCPU{}
		r := Computing.measure(cpu.now, cpu.takes(c.subject), cpu.takes(c.limit))
		all := r.ratios(c.goal)
		if len(all) != Computing.Rounds {
			t.Errorf("%s: %d rounds", name, len(all))
		}
		for q := 1; q <= 3; q++ {
			if got := quantile(all, q); got < c.want*0.999 || got > c.want*1.001 {
				t.Errorf("%s: quartile %d is %g, want %g", name, q, got, c.want)
			}
		}
	}
}

// TestInTurn: subject and limit alternate, so that a slower phase of the
// machine meets both.
func TestInTurn(t *testing.T) {
	t.Parallel()
	cpu := &fakeCPU{}
	var order []byte
	step := func(name byte) func() {
		return func() { cpu.used += time.Second; order = append(order, name) }
	}
	Pace{Rounds: 3, Slice: time.Second}.measure(cpu.now, step('s'), step('l'))
	if got, want := string(order), "sl"+"slslsl"; got != want {
		t.Errorf("the order is %s, want %s", got, want)
	}
}

func TestCallsFillTheSlice(t *testing.T) {
	t.Parallel()
	p := Pace{Rounds: 1, Slice: 10 * time.Millisecond}
	for each, want := range map[time.Duration]int{time.Microsecond: 10_000, 3 * time.Millisecond: 3, 10 * time.Millisecond: 1, time.Second: 1} {
		cpu := &fakeCPU{}
		if got := p.calls(cpu.now, cpu.takes(each)); got != want {
			t.Errorf("%s each: %d calls, want %d", each, got, want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	all := []float64{5, 1, 4, 2, 3}
	for q, want := range map[int]float64{1: 2, 2: 3, 3: 4} {
		if got := quantile(all, q); got != want {
			t.Errorf("quartile %d is %g, want %g", q, got, want)
		}
	}
	if all[0] != 5 {
		t.Error("the samples were sorted in place")
	}
	if got := quantile([]float64{7}, 3); got != 7 {
		t.Errorf("of one sample the quartile is %g", got)
	}
}

// TestReported checks what a benchmark says of itself, which its reader relies
// on.
func TestReported(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		run  func(*testing.B)
		want map[string]float64
	}{
		"figure": {
			func(b *testing.B) {
				next := 0.0
				Measure(b, 5, "allocs", AtMost(250), func() float64 { next++; return next })
			},
			map[string]float64{"q1": 2, "median-allocs": 3, "q3": 4, "at-most": 250},
		},
		"least": {
			func(b *testing.B) { Measure(b, 1, "MB/s", AtLeast(0.5), func() float64 { return 7 }) },
			map[string]float64{"q1": 7, "median-MB/s": 7, "q3": 7, "at-least": 0.5},
		},
	} {
		extra := testing.Benchmark(c.run).Extra
		delete(extra, "ns/op")
		if !maps.Equal(extra, c.want) {
			t.Errorf("%s: reported %v, want %v", name, extra, c.want)
		}
	}
}

// TestCPUTimeGrows: work shows, and the real clock drives a comparison to its end.
func TestCPUTimeGrows(t *testing.T) {
	t.Parallel()
	before, sum := CPUTime(), 0
	r := Pace{Rounds: 2, Slice: time.Millisecond}.measure(CPUTime, func() {
		for i := range 1000 {
			sum += i
		}
	}, func() {
		for i := range 2000 {
			sum += i
		}
	})
	if CPUTime() <= before || sum == 0 || len(r.ours) != 2 || len(r.theirs) != 2 {
		t.Errorf("from %s to %s, rounds %v", before, CPUTime(), r)
	}
}
