package identity

import (
	"testing"

	"osaurus/engine/internal/benchratio"
)

// BenchmarkPhrase is row 9: the words of a master, written and read.
func BenchmarkPhrase(b *testing.B) {
	m := master(b, "0000000000000000000000000000000000000000000000000000000000000001")
	phrase, err := m.Phrase()
	if err != nil {
		b.Fatal(err)
	}
	const calls = 1000
	each := func(do func() error) func() float64 {
		return func() float64 {
			before := benchratio.CPUTime()
			for range calls {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
			return float64((benchratio.CPUTime() - before).Microseconds()) / calls
		}
	}
	b.Run("9 writing a phrase", func(b *testing.B) {
		benchratio.Measure(b, 20, "cpu-µs", benchratio.AtMost(20), each(func() error {
			p, err := m.Phrase()
			p.Destroy()
			return err
		}))
	})
	b.Run("9 reading a phrase", func(b *testing.B) {
		benchratio.Measure(b, 20, "cpu-µs", benchratio.AtMost(20), each(func() error {
			again, err := ParsePhrase(phrase)
			again.Destroy()
			return err
		}))
	})
}
