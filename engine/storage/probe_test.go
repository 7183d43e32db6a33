package storage

import (
	"os"
	"strings"
	"testing"
)

// TestProbe: Status tells of a store that does not open before anybody uses
// it, and of none while an operation runs.
func TestProbe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	fill(t, s)
	must(t, s.Close())
	flip(t, s.file(Memory.path()), 40)
	must(t, os.Truncate(s.file("Tools/org.other/data/data.db"), 3000))
	s = w.open()
	must(t, s.Probe(t.Context()))
	st, err := s.Status()
	must(t, err)
	closed := map[ID]IssueKind{}
	for _, one := range st.Stores {
		if one.State == StateRefused {
			closed[one.ID] = one.Issue
			if !strings.Contains(one.Next, "osaurus storage ") {
				t.Errorf("%s: nothing to type: %q", one.ID, one.Next)
			}
		}
	}
	if len(closed) != 2 || closed[Memory] != IssueCorrupt || closed["plugin:org.other"] != IssueCorrupt {
		t.Errorf("closed: %v", closed)
	}
	must(t, s.exclusive(t.Context(), "test", func() error { return s.Probe(t.Context()) }))
}

// TestPostureCopyIsOnlyACopy: what somebody writes into the readable copy of
// the posture is told of and written over.
func TestPostureCopyIsOnlyACopy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	addNotes(t, s, Memory, 1)
	must(t, s.Close())
	path := s.file(postureFile)
	want, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(`{"mode":"plaintext","version":1}`), 0o600))
	s = w.open()
	if s.Posture() != PostureEncrypted || !strings.Contains(w.logs.String(), "storage.posture_copy_differs") {
		t.Errorf("%s; log: %s", s.Posture(), &w.logs)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(want) {
		t.Errorf("%s, %v", got, err)
	}
	must(t, s.Close())
	w.logs.Reset()
	must(t, os.Remove(path))
	s = w.open()
	if got, err := os.ReadFile(path); err != nil || string(got) != string(want) || strings.Contains(w.logs.String(), "differs") {
		t.Errorf("%s, %v; log: %s", got, err, &w.logs)
	}
	must(t, s.Close())
}

// TestStatusOfAnOlderHost: what is still plaintext is not called encrypted, and
// says when it will be.
func TestStatusOfAnOlderHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	olderHostWith(w, ChatHistory)
	s := w.open()
	must(t, s.Probe(t.Context()))
	st, err := s.Status()
	must(t, err)
	if got := st.Stores[0]; got.ID != ChatHistory || got.State != StateConverts || got.Next != "osaurus storage encrypt" || !strings.Contains(got.Explain(), "at its next use") {
		t.Errorf("%+v: %s", got, got.Explain())
	}
	_, err = s.SetPosture(t.Context(), PostureEncrypted, nil)
	must(t, err)
	if st, err = s.Status(); err != nil || st.Stores[0].State != StateReady || st.Stores[0].Next != "" {
		t.Errorf("%+v, %v", st.Stores[0], err)
	}
}
