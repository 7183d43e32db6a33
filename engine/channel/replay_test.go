package channel

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestReplayWindow(t *testing.T) {
	t.Parallel()
	const w = windowSize
	type step struct {
		seq   uint64
		fresh bool
	}
	for name, steps := range map[string][]step{
		"zero is never valid":     {{0, false}, {1, true}, {0, false}},
		"each once":               {{1, true}, {1, false}, {2, true}, {2, false}, {1, false}},
		"backwards":               {{9, true}, {8, true}, {7, true}, {8, false}, {9, false}},
		"word borders":            {{63, true}, {64, true}, {65, true}, {63, false}, {64, false}, {127, true}, {128, true}, {127, false}},
		"last that fits":          {{w, true}, {1, true}, {1, false}},
		"first behind":            {{w + 1, true}, {1, false}, {2, true}, {2, false}},
		"jump of one ring":        {{5, true}, {5 + windowWords*wordBits, true}, {5, false}, {5 + windowWords*wordBits - w + 1, true}, {5 + windowWords*wordBits - w, false}},
		"jump over many rings":    {{5, true}, {1 << 40, true}, {1<<40 - 1, true}, {1<<40 - w + 1, true}, {1<<40 - w, false}, {5, false}},
		"to the largest number":   {{math.MaxUint64, true}, {math.MaxUint64, false}, {math.MaxUint64 - 1, true}, {math.MaxUint64 - w + 1, true}, {math.MaxUint64 - w, false}, {0, false}},
		"from the largest number": {{math.MaxUint64 - 1, true}, {math.MaxUint64, true}, {1, false}},
	} {
		var win replayWindow
		for i, s := range steps {
			if got := win.take(s.seq); got != s.fresh {
				t.Errorf("%s: step %d: take(%d) = %v", name, i, s.seq, got)
			}
		}
	}
}

func TestReplayWindowIsLargeEnough(t *testing.T) {
	t.Parallel()
	if windowSize < 2048 {
		t.Errorf("window of %d; PROTOCOL.md section 4 asks for 2048", windowSize)
	}
	// As many calls as our client keeps outstanding may arrive in any order.
	var w replayWindow
	for seq := uint64(windowSize); seq > 0; seq-- {
		if !w.take(seq) {
			t.Fatalf("%d refused", seq)
		}
	}
}

// TestReplayWindowAgainstSet compares with a set that forgets nothing.
func TestReplayWindowAgainstSet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var w replayWindow
		var highest uint64
		seen := map[uint64]bool{}
		base := rapid.SampledFrom([]uint64{0, 1 << 20, math.MaxUint64 - 3*windowSize}).Draw(t, "base")
		near := rapid.Uint64Range(0, 2*windowSize)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			seq := base + near.Draw(t, "offset")
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0:
				seq = rapid.Uint64().Draw(t, "anywhere")
			case 1, 2, 3:
				if highest > 0 {
					seq = highest + rapid.Uint64Range(0, 3).Draw(t, "step") // may wrap around
				}
			}
			tooOld := seq == 0 || (seq < highest && highest-seq >= windowSize)
			want := !tooOld && !seen[seq]
			if got := w.take(seq); got != want {
				t.Fatalf("take(%d) = %v with highest %d", seq, got, highest)
			}
			if want {
				seen[seq], highest = true, max(highest, seq)
			}
		}
	})
}
