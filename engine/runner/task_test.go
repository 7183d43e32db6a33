package runner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"osaurus/engine/accesskey"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
)

func dispatch(t *testing.T, r *Runner, who Caller, model string) Task {
	t.Helper()
	a := someone
	a.Model = model
	task, err := r.Dispatch(t.Context(), who, a, Dispatch{Prompt: "Hi there"})
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// ended waits until nothing runs and returns the task.
func ended(t *testing.T, r *Runner, who Caller, id string) Task {
	t.Helper()
	r.group.Wait()
	task, err := r.Task(who, id)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func TestTasks(t *testing.T) {
	t.Parallel()
	r, _ := withProvider(t, nil)
	for model, want := range map[string]Task{
		"good":       {Status: Completed, Output: "Hello world"},
		Echo:         {Status: Completed, Output: "Hi there"},
		"hang-up":    {Status: Failed, Output: "Hello", Summary: fault.ProviderFailed.Text()},
		"status-500": {Status: Failed, Summary: fault.ProviderFailed.Text()},
	} {
		began := dispatch(t, r, Caller{}, model)
		if began.Status != Running || began.Success != nil || began.ID != strings.ToUpper(began.ID) || began.SessionID != "task-"+strings.ToLower(began.ID) {
			t.Errorf("%s began as %+v", model, began)
		}
		got := ended(t, r, Caller{}, strings.ToLower(began.ID))
		if got.Success == nil || *got.Success != (want.Status == Completed) {
			t.Errorf("%s: success %v", model, got.Success)
		}
		want.ID, want.Title, want.SessionID, got.Success = began.ID, "Hi there", began.SessionID, nil
		if got != want {
			t.Errorf("%s: %+v, want %+v", model, got, want)
		}
	}
}

// TestTaskOwnership: whose a task is, and what others are told (C12).
func TestTaskOwnership(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tasks.json")
	r, _ := withProvider(t, func(c *Config) { c.Tasks = atomicfile.Plain(path) })
	alice, owner := peer(1, "a"), Caller{}
	master := Caller{&accesskey.Access{MasterScoped: true, Nonce: "m"}}
	theirs, ours := dispatch(t, r, alice, Echo).ID, dispatch(t, r, owner, Echo).ID
	r.group.Wait()
	check := func(r *Runner, when string) {
		for _, c := range []struct {
			who  Caller
			id   string
			want error
		}{
			{alice, theirs, nil}, {owner, theirs, nil}, {master, theirs, nil}, {owner, ours, nil}, {master, ours, nil},
			{alice, ours, fault.AgentScopeDenied}, {peer(1, "b"), theirs, fault.AgentScopeDenied}, {peer(2, "a"), theirs, fault.AgentScopeDenied},
			{peer(1, ""), theirs, fault.AgentScopeDenied}, {alice, "none", fault.AgentScopeDenied}, {owner, "none", fault.TaskNotFound}, {master, "", fault.TaskNotFound},
		} {
			if _, err := r.Task(c.who, c.id); !errors.Is(err, c.want) {
				t.Errorf("%s: %+v asks for %s: %v", when, c.who.Access, c.id, err)
			}
			if err := r.Cancel(c.who, c.id); !errors.Is(err, c.want) {
				t.Errorf("%s: %+v cancels %s: %v", when, c.who.Access, c.id, err)
			}
		}
	}
	check(r, "at first")
	r.Close()
	raw, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(raw), "Hi there") {
		t.Errorf("what was said is on disk: %s, %v", raw, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	check(newRunner(t, func(c *Config) { c.Tasks = atomicfile.Plain(path) }), "after a restart")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	lost := newRunner(t, func(c *Config) { c.Tasks = atomicfile.Plain(path) })
	if _, err := lost.Task(alice, theirs); !errors.Is(err, fault.AgentScopeDenied) {
		t.Errorf("a lost record: %v", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	r, p := withProvider(t, nil)
	task := dispatch(t, r, Caller{}, "hold")
	for range 2 { // the second time it may have ended already
		if err := r.Cancel(Caller{}, task.ID); err != nil {
			t.Fatal(err)
		}
	}
	got := ended(t, r, Caller{}, task.ID)
	if got.Status != Cancelled || got.Output != "" || *got.Success {
		t.Errorf("%+v", got)
	}
	if err := r.Cancel(Caller{}, task.ID); err != nil {
		t.Errorf("cancelling what ended: %v", err)
	}
	if again := ended(t, r, Caller{}, task.ID); again.Status != Cancelled {
		t.Errorf("it became %s", again.Status)
	}
	select { // the provider may not have been reached
	case <-p.gone:
	default:
	}
}

// TestDraft: what has come so far shows while the task runs.
func TestDraft(t *testing.T) {
	t.Parallel()
	r, p := withProvider(t, nil)
	task := dispatch(t, r, Caller{}, "hold")
	for {
		got, err := r.Task(Caller{}, task.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.Draft == "Hello" {
			break
		}
		if got.Status != Running {
			t.Fatalf("%+v", got)
		}
	}
	if err := r.Cancel(Caller{}, task.ID); err != nil {
		t.Fatal(err)
	}
	<-p.gone
	if got := ended(t, r, Caller{}, task.ID); got.Draft != "" {
		t.Errorf("a draft is left: %+v", got)
	}
}

func TestRevocationEndsTasks(t *testing.T) {
	t.Parallel()
	r, p := withProvider(t, nil)
	task := dispatch(t, r, peer(1, "a"), "hold")
	r.mu.Lock()
	for a := range r.active {
		a.cancel(fault.AccessRevokedStream) // what EndAccess does to a key that matches
	}
	r.mu.Unlock()
	if got := ended(t, r, Caller{}, task.ID); got.Status != Cancelled {
		t.Errorf("%+v", got)
	}
	select {
	case <-p.gone:
	default:
	}
}

func TestTaskLimits(t *testing.T) {
	t.Parallel()
	r, _ := withProvider(t, nil)
	for range MaxTasks {
		dispatch(t, r, Caller{}, "hold")
	}
	a := someone
	a.Model = Echo
	if _, err := r.Dispatch(t.Context(), Caller{}, a, Dispatch{Prompt: "x"}); !errors.Is(err, fault.TaskLimit) {
		t.Errorf("one more: %v", err)
	}
	first := r.tasks.records[0].ID
	if err := r.Cancel(Caller{}, first); err != nil {
		t.Fatal(err)
	}
	for r.InFlight() == MaxTasks { // until its slot is free
		if _, err := r.Task(Caller{}, first); err != nil {
			t.Fatal(err)
		}
	}
	dispatch(t, r, Caller{}, Echo)
	r.Close()
}

// TestRecordsAreBounded: the oldest go first, but never one that runs.
func TestRecordsAreBounded(t *testing.T) {
	t.Parallel()
	var table taskTable
	for i := range MaxTaskRecords {
		status := Completed
		if i == 1 {
			status = Running
		}
		table.records = append(table.records, &record{ID: fmt.Sprint(i), Status: status, task: &Task{}})
	}
	for i, want := range []string{"1", "1", "1"} {
		if err := table.add(&record{ID: fmt.Sprint("new", i), Status: Running, task: &Task{}}); err != nil {
			t.Fatal(err)
		}
		if n := len(table.records); n != MaxTaskRecords || table.records[0].ID != want {
			t.Errorf("%d records, the oldest is %s", n, table.records[0].ID)
		}
	}
	if last := table.records[len(table.records)-1].ID; last != "new2" {
		t.Errorf("the newest is %s", last)
	}
}

func TestInterruptedTasks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tasks.json")
	if err := os.WriteFile(path, []byte(`{"version":1,"tasks":[{"id":"A","status":"running"},{"id":"B","status":"completed","audience":"0x01","nonce":"n"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRunner(t, func(c *Config) { c.Tasks = atomicfile.Plain(path) })
	a, err := r.Task(Caller{}, "a")
	if err != nil || a.Status != Failed || *a.Success || a.Summary == "" {
		t.Errorf("%+v, %v", a, err)
	}
	if b, err := r.Task(Caller{}, "b"); err != nil || b.Status != Completed {
		t.Errorf("%+v, %v", b, err)
	}
	for _, text := range []string{"", "{", "[]", `{"version":2,"tasks":[]}`, `{"version":1,"tasks":[null]}`, `{"version":1,"tasks":{}}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := newRunner(t, func(c *Config) { c.Tasks = atomicfile.Plain(path) })
		_, dispatchErr := r.Dispatch(t.Context(), Caller{}, someone, Dispatch{Prompt: "x"})
		_, taskErr := r.Task(Caller{}, "b")
		for _, err := range []error{dispatchErr, taskErr, r.Cancel(Caller{}, "b"), r.ReadTasks()} {
			if !errors.Is(err, fault.StateCorrupt) {
				t.Errorf("%s: %v", text, err)
			}
		}
		if kept, err := os.ReadFile(path); err != nil || string(kept) != text {
			t.Errorf("%s: the file was changed", text)
		}
	}
}

// TestNoTaskWithoutItsRecord: a disk that refuses starts nothing.
func TestNoTaskWithoutItsRecord(t *testing.T) {
	t.Parallel()
	r := newRunner(t, func(c *Config) { c.Tasks = atomicfile.Plain(filepath.Join(t.TempDir(), "none", "tasks.json")) })
	if _, err := r.Dispatch(t.Context(), Caller{}, someone, Dispatch{Prompt: "x"}); err == nil {
		t.Fatal("a task began without a record")
	}
	if r.InFlight() != 0 || len(r.tasks.records) != 0 || r.tasks.running != 0 {
		t.Error("something of it is left")
	}
}

func TestTitles(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", MaxTitle)
	for _, c := range []struct {
		d    Dispatch
		want string
	}{
		{Dispatch{Prompt: "the  prompt\nhere", Title: " a  title\t"}, "a title"},
		{Dispatch{Prompt: "the  prompt\nhere", Title: "  "}, "the prompt here"},
		{Dispatch{Title: long}, long}, {Dispatch{Title: long + "x"}, long[:len(long)-2] + "…"},
	} {
		if got := title(c.d); got != c.want || utf8.RuneCountInString(got) > MaxTitle {
			t.Errorf("%+v: %q", c.d, got)
		}
	}
}

func TestOutputIsCut(t *testing.T) {
	t.Parallel()
	whole := strings.Repeat("x", MaxOutput)
	if cut(whole) != whole || cut(whole+"y") != whole {
		t.Error("the limit is not where it says")
	}
	if got := cut(whole[:MaxOutput-1] + "é"); got != whole[:MaxOutput-1] {
		t.Error("a character was cut in half")
	}
}
