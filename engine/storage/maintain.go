package storage

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"osaurus/engine/internal/canonjson"
	"osaurus/engine/storage/sqlcipher"
)

// The cadences of maintenance (storage.md section 10).
const (
	OptimizeEvery   = 6 * time.Hour
	CheckpointEvery = 7 * 24 * time.Hour
	VacuumEvery     = 30 * 24 * time.Hour
	VerifyEvery     = 30 * 24 * time.Hour

	// MaintainAfter and MaintainEvery are when the host looks what is due.
	MaintainAfter = 30 * time.Second
	MaintainEvery = 30 * time.Minute

	// vacuumAt is the share of unused pages, in percent, below which moving
	// the whole database gains too little.
	vacuumAt = 20
)

const maintenanceFile = ".storage-maintenance.json"

// maintained is when each job last succeeded for a store.
type maintained struct {
	Optimize   time.Time `json:"optimize"`
	Checkpoint time.Time `json:"checkpoint"`
	Vacuum     time.Time `json:"vacuum"`
	Verify     time.Time `json:"verify"`
}

// Maintained is when a store was last looked after; a zero time is never.
type Maintained struct {
	Store      ID        `json:"store"`
	Optimize   time.Time `json:"optimize"`
	Checkpoint time.Time `json:"checkpoint"`
	Vacuum     time.Time `json:"vacuum"`
	Verify     time.Time `json:"verify"`
}

// Maintained lists the stores that were looked after, sorted.
func (s *Storage) Maintained() []Maintained {
	var list []Maintained
	for id, last := range s.readMaintenance().Stores {
		list = append(list, Maintained{id, last.Optimize, last.Checkpoint, last.Vacuum, last.Verify})
	}
	slices.SortFunc(list, func(a, b Maintained) int { return strings.Compare(string(a.Store), string(b.Store)) })
	return list
}

type maintenance struct {
	V      int                `json:"v"`
	Stores map[ID]*maintained `json:"stores"`
}

// Maintain does what is due for the stores that exist once and are in use;
// force does everything now. A store seen for the first time counts as done,
// so that a fresh start never moves a database. Each job is stamped when it
// succeeded, and not otherwise.
func (s *Storage) Maintain(ctx context.Context, force bool) error {
	state := s.readMaintenance()
	var errs []error
	for id := range corePaths {
		s.mu.Lock()
		st := s.stores[id]
		s.mu.Unlock()
		if st == nil || !exists(s.file(id.path())) {
			continue
		}
		now := s.now()
		last := state.Stores[id]
		if last == nil {
			last = &maintained{now, now, now, now}
			state.Stores[id] = last
		}
		errs = append(errs, s.maintainStore(ctx, st, last, now, force))
	}
	text, err := canonjson.Marshal(state)
	if err != nil {
		return err
	}
	return errors.Join(append(errs, s.disk.ReplaceBytes(s.file(maintenanceFile), text))...)
}

// readMaintenance starts over with a file that does not parse: it holds
// nothing but times.
func (s *Storage) readMaintenance() maintenance {
	var m maintenance
	text, err := readState(s.file(maintenanceFile))
	if err != nil || json.Unmarshal(text, &m) != nil || m.V != 1 || m.Stores == nil {
		return maintenance{V: 1, Stores: map[ID]*maintained{}}
	}
	for id, last := range m.Stores {
		if last == nil {
			delete(m.Stores, id)
		}
	}
	return m
}

func (s *Storage) maintainStore(ctx context.Context, st *Store, last *maintained, now time.Time, force bool) error {
	due := func(t time.Time, every time.Duration) bool {
		return force || now.Sub(t) >= every || t.After(now) // a clock that ran ahead
	}
	return st.Use(ctx, func(db *sqlcipher.DB) error {
		if due(last.Optimize, OptimizeEvery) {
			if _, err := db.Write.ExecContext(ctx, "PRAGMA optimize"); err != nil {
				return sqlcipher.Classify(err)
			}
			last.Optimize = now
		}
		if due(last.Checkpoint, CheckpointEvery) {
			if err := db.Checkpoint(ctx); err != nil {
				return err
			}
			last.Checkpoint = now
		}
		if due(last.Vacuum, VacuumEvery) {
			if err := s.vacuum(ctx, st.id, db); err != nil {
				return err
			}
			last.Vacuum = now
		}
		if due(last.Verify, VerifyEvery) {
			if err := db.Check(ctx, s.encrypted(st.id)); err != nil {
				issue := Issue{st.id, issueOf(err, IssueUnknown), err}
				s.note(st.id, issue)
				return issue
			}
			last.Verify = now
		}
		return nil
	})
}

func (s *Storage) encrypted(id ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.manifest.Stores[id].Format == PostureEncrypted
}

// vacuum moves the database where that gains enough and there is room.
func (s *Storage) vacuum(ctx context.Context, id ID, db *sqlcipher.DB) error {
	var pages, unused int64
	if err := db.Write.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
		return sqlcipher.Classify(err)
	}
	if err := db.Write.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&unused); err != nil {
		return sqlcipher.Classify(err)
	}
	if unused*100 <= pages*vacuumAt {
		return nil
	}
	if err := s.room(s.file(id.path()), 2); err != nil {
		return err
	}
	if _, err := db.Write.ExecContext(ctx, "VACUUM"); err != nil {
		return sqlcipher.Classify(err)
	}
	return db.Checkpoint(ctx)
}
