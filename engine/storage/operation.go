package storage

import (
	"context"
	"errors"

	"osaurus/engine/storage/sqlcipher"
)

// Progress tells how far an operation over all stores is. Done and Total are
// bytes of the whole operation.
type Progress struct {
	Label string `json:"label"` // what is worked on, a store or a kind of file
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
}

// report passes the bytes of each part of an operation on as its whole.
type report struct {
	to          func(Progress)
	done, total int64
}

func newReport(to func(Progress), total int64) *report {
	if to == nil {
		to = func(Progress) {}
	}
	return &report{to: to, total: total}
}

// part returns the progress of one item of size bytes.
func (r *report) part(label string, size int64) sqlcipher.Progress {
	return func(done, total int64) {
		if total <= 0 {
			return
		}
		r.to(Progress{label, min(r.total, r.done+size*min(done, total)/total), r.total})
	}
}

// finish counts an item that is done.
func (r *report) finish(label string, size int64) {
	r.done += size
	r.to(Progress{label, min(r.done, r.total), r.total})
}

// exclusive runs do with every database closed and nobody let in. Databases
// open again at their next use. A second operation is fault.StorageBusy.
func (s *Storage) exclusive(ctx context.Context, name string, do func() error) (err error) {
	if err := s.gate.shut(ctx); err != nil {
		return err
	}
	defer s.gate.open()
	before, err := s.Status()
	if err != nil {
		return err
	}
	before.Operation = name
	s.running.Store(&before)
	defer s.running.Store(nil)
	if err := s.closeStores(); err != nil {
		return err
	}
	return do()
}

// ready fails unless the key is at hand, creating the first one.
func (s *Storage) ready(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("storage: closed")
	}
	return s.ensureKey(ctx)
}
