package channel

// replayWindow remembers which of the last windowSize sequence numbers were
// used (RFC 6479: a ring of words, so that moving the window clears words and
// never shifts bits). The zero value is empty. Not safe for concurrent use.
//
// Every number up to 2^64−1 works: nothing here adds to one.
type replayWindow struct {
	last uint64
	ring [windowWords]uint64
}

const (
	windowWords = 1 << 7
	wordBits    = 64
	// windowSize leaves out one word: the one being filled.
	windowSize = (windowWords - 1) * wordBits
)

// take reports whether seq is new, and marks it. Zero, numbers already taken
// and numbers windowSize or more behind the highest are refused.
func (w *replayWindow) take(seq uint64) bool {
	if seq == 0 || (seq < w.last && w.last-seq >= windowSize) {
		return false
	}
	word := seq / wordBits
	if seq > w.last {
		top := w.last / wordBits
		for i := range min(word-top, windowWords) {
			w.ring[(top+1+i)%windowWords] = 0
		}
		w.last = seq
	}
	slot, bit := &w.ring[word%windowWords], uint64(1)<<(seq%wordBits)
	fresh := *slot&bit == 0
	*slot |= bit
	return fresh
}
