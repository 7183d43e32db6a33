package server

import (
	"sync"

	"osaurus/engine/address"
)

// hosts says which tunnel carries an agent: the newest that proved its
// address. What a tunnel holds is guarded here too, so that the two never
// differ.
type hosts struct {
	mu   sync.RWMutex
	byID map[address.Address]*tunnel
}

func (h *hosts) owner(a address.Address) *tunnel {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.byID[a]
}

func (h *hosts) count() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.byID)
}

// loss is an address that a tunnel had to give up; empty says that it was the
// last.
type loss struct {
	t     *tunnel
	a     address.Address
	empty bool
}

// claim gives t the addresses, and returns who lost one. ok is false when t
// would hold more than most; held is how many it has then.
func (h *hosts) claim(t *tunnel, most int, addrs ...address.Address) (lost []loss, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.gone {
		return nil, false
	}
	fresh := 0
	for _, a := range addrs {
		if h.byID[a] != t {
			fresh++
		}
	}
	if len(t.held)+fresh > most {
		return nil, false
	}
	for _, a := range addrs {
		if old := h.byID[a]; old != nil && old != t {
			delete(old.held, a)
			lost = append(lost, loss{old, a, len(old.held) == 0})
		}
		h.byID[a] = t
		t.held[a] = true
	}
	return lost, true
}

// release takes an address from t, if it has it.
func (h *hosts) release(t *tunnel, a address.Address) (had, empty bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byID[a] != t {
		return false, false
	}
	delete(h.byID, a)
	delete(t.held, a)
	return true, len(t.held) == 0
}

// drop takes everything from t, for good.
func (h *hosts) drop(t *tunnel) []address.Address {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.gone = true
	all := make([]address.Address, 0, len(t.held))
	for a := range t.held {
		delete(h.byID, a)
		all = append(all, a)
	}
	clear(t.held)
	return all
}

// of lists what t holds.
func (h *hosts) of(t *tunnel) []address.Address {
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := make([]address.Address, 0, len(t.held))
	for a := range t.held {
		all = append(all, a)
	}
	return all
}
