package storage

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/storage/sqlcipher"
)

func (w *world) stamps(s *Storage) maintained {
	w.t.Helper()
	m := s.readMaintenance()
	if m.Stores[ChatHistory] == nil {
		return maintained{}
	}
	return *m.Stores[ChatHistory]
}

// TestMaintain: each job runs when it is due, and is stamped when it was done.
func TestMaintain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	addNotes(t, s, ChatHistory, 50)
	start := w.clock
	must(t, s.Maintain(t.Context(), false))
	if got := w.stamps(s); !got.Optimize.Equal(start) || !got.Vacuum.Equal(start) {
		t.Errorf("a first start counts as done: %+v", got)
	}
	for _, c := range []struct {
		after time.Duration
		want  func(maintained) time.Time
	}{
		{OptimizeEvery, func(m maintained) time.Time { return m.Optimize }},
		{CheckpointEvery, func(m maintained) time.Time { return m.Checkpoint }},
		{VacuumEvery, func(m maintained) time.Time { return m.Vacuum }},
		{VerifyEvery, func(m maintained) time.Time { return m.Verify }},
	} {
		must(t, os.Remove(filepath.Join(w.root, maintenanceFile)))
		w.clock = start
		must(t, s.Maintain(t.Context(), false))
		w.clock = start.Add(c.after - time.Second)
		must(t, s.Maintain(t.Context(), false))
		if !c.want(w.stamps(s)).Equal(start) {
			t.Errorf("%v: a second too early", c.after)
		}
		w.clock = start.Add(c.after)
		must(t, s.Maintain(t.Context(), false))
		if !c.want(w.stamps(s)).Equal(w.clock) {
			t.Errorf("%v: not when it was due", c.after)
		}
	}
	w.clock = start.Add(-time.Hour)
	must(t, s.Maintain(t.Context(), false))
	if !w.stamps(s).Optimize.Equal(w.clock) {
		t.Error("a stamp from the future keeps a job from running")
	}
	must(t, os.WriteFile(filepath.Join(w.root, maintenanceFile), []byte("{half"), 0o600))
	must(t, s.Maintain(t.Context(), true))
}

// TestVacuum: only where it gains, and with room.
func TestVacuum(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	addNotes(t, s, ChatHistory, 2000)
	size := func() int64 {
		info, err := os.Stat(filepath.Join(w.root, ChatHistory.path()))
		must(t, err)
		return info.Size()
	}
	must(t, s.Maintain(t.Context(), true))
	full := size()
	must(t, use(t, s, ChatHistory, func(db *sqlcipher.DB) error {
		_, err := db.Write.Exec("DELETE FROM notes WHERE id > 100")
		return err
	}))
	s.disk.Space = func(string) (int64, error) { return 0, nil }
	before := w.stamps(s)
	w.clock = w.clock.Add(time.Hour)
	if err := s.Maintain(t.Context(), true); !errors.Is(err, ErrNoSpace) || !w.stamps(s).Vacuum.Equal(before.Vacuum) || w.stamps(s).Optimize.Equal(before.Optimize) {
		t.Errorf("without room: %v, %+v", err, w.stamps(s))
	}
	s.disk.Space = nil
	must(t, s.Maintain(t.Context(), true))
	if size() > full/2 {
		t.Errorf("%d bytes of %d are left", size(), full)
	}
}

func TestMaintainFindsDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	filled(w)
	s := w.open()
	addNotes(t, s, ChatHistory, 0)
	must(t, s.closeStores())
	path := filepath.Join(w.root, ChatHistory.path())
	info, err := os.Stat(path)
	must(t, err)
	flip(t, path, info.Size()-200)
	if err := s.Maintain(t.Context(), true); !errors.Is(err, fault.StoreDamaged) {
		t.Errorf("%v", err)
	}
	if issues := s.Issues(); len(issues) != 1 || issues[0].Store != ChatHistory || issues[0].Kind != IssueCorrupt {
		t.Errorf("%v", issues)
	}
}

func TestVerifyAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	filled(w)
	s := w.open()
	issues, files, err := s.VerifyAll(t.Context(), nil)
	if err != nil || len(issues)+len(files) > 0 {
		t.Fatalf("%v, %v, %v", issues, files, err)
	}
	hashes, err := s.Blobs().List()
	must(t, err)
	flip(t, s.Blobs().Path(hashes[0]), 60)
	flip(t, filepath.Join(w.root, "Tools/org.other/data/data.db"), 5000)
	issues, files, err = s.VerifyAll(t.Context(), nil)
	if err != nil || len(issues) != 1 || issues[0].Store != "plugin:org.other" || len(files) != 1 || !strings.Contains(files[0], string(hashes[0])) {
		t.Errorf("%v, %v, %v", issues, files, err)
	}
}

// TestStatus: the JSON that people's scripts read.
func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	filled(w)
	must(t, os.Remove(filepath.Join(w.root, Memory.path())))
	s := w.open()
	status, err := s.Status()
	must(t, err)
	text, err := json.Marshal(status)
	must(t, err)
	for _, want := range []string{
		`{"posture":"encrypted","key":{"state":"ready","id":"` + s.Key().ID.String() + `","keystore":"`,
		`{"id":"methods","path":"methods/methods.sqlite","bytes":0,"format":"missing","state":"new"}`,
		`"id":"memory","path":"memory/memory.sqlite","bytes":0,"format":"missing","state":"refused","issue":"missing","next":"osaurus storage import BACKUP`,
		`{"id":"plugin:org.other","path":"Tools/org.other/data/data.db","bytes":`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s\nlacks %s", text, want)
		}
	}
}
