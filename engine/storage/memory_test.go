package storage

import (
	"testing"

	"osaurus/engine/storage/cipher"
)

// TestCloseLeavesNothing counts what the SQL library holds. Only the one
// connection that prepares it stays, for as long as the process lives. The
// count is of the whole process, so nothing may run beside this test.
func TestCloseLeavesNothing(t *testing.T) { //nolint:paralleltest // see above
	w := newWorld(t)
	once := func() (open, closed int64) {
		s := w.open()
		addNotes(t, s, ChatHistory, 5)
		addNotes(t, s, Memory, 5)
		open = cipher.MemoryUsed()
		must(t, s.Close())
		return open, cipher.MemoryUsed()
	}
	_, first := once()
	for range 3 {
		open, closed := once()
		if closed != first {
			t.Errorf("%d bytes stay after a close, and %d did after the first one", closed, first)
		}
		if open <= 2*first {
			t.Errorf("two stores hold %d bytes beside the %d of the library", open, first)
		}
	}
}
