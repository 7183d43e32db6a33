package runner

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/google/uuid"

	"osaurus/engine/agents"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// Limits of tasks.
const (
	// MaxTaskRecords is how many tasks are remembered; the oldest go first.
	MaxTaskRecords = 1000
	// MaxTitle bounds a title in characters; longer ones are cut.
	MaxTitle = 120
	// MaxOutput bounds the kept answer in bytes; longer ones are cut.
	MaxOutput = 4 << 20
)

// Status of a task.
const (
	Running   = "running"
	Completed = "completed"
	Failed    = "failed"
	Cancelled = "cancelled"
)

// Task is what GET /tasks/{id} shows.
type Task struct {
	ID        string `json:"id"`
	Title     string `json:"title"`
	Status    string `json:"status"`
	Output    string `json:"output,omitempty"`
	Draft     string `json:"draft,omitempty"`
	Success   *bool  `json:"success,omitempty"`
	Summary   string `json:"summary,omitempty"`
	SessionID string `json:"session_id,omitempty"`
}

// owner is whose task it is: empty is the owner of the host.
type owner struct {
	Audience string `json:"audience,omitempty"`
	Nonce    string `json:"nonce,omitempty"`
}

func (c Caller) owner() owner {
	if c.Access == nil || c.Access.MasterScoped {
		return owner{}
	}
	return owner{c.Access.Audience.Lower(), c.Access.Nonce}
}

// record is what tasks.json keeps: enough to know whose a task is after a
// restart, and nothing of what was said.
type record struct {
	ID     string `json:"id"`
	Title  string `json:"-"`
	Status string `json:"status"`
	owner
	task   *Task
	cancel context.CancelFunc
}

type taskTable struct {
	doc atomicfile.Document // nil keeps them in memory only

	mu      sync.Mutex
	loaded  bool
	records []*record // oldest first
	running int
}

// Dispatch is the body of POST /agents/{id}/dispatch.
type Dispatch struct {
	Prompt    string `json:"prompt"`
	Title     string `json:"title"`
	SessionID string `json:"session_id"`
}

// ParseDispatch reads the body. Errors: fault.InvalidFormat, and
// fault.InvalidRequest for a blank prompt.
func ParseDispatch(body []byte) (Dispatch, error) {
	var d Dispatch
	if canonjson.Unmarshal(body, &d) != nil || len(d.SessionID) > MaxSessionID {
		return d, fault.InvalidFormat
	}
	if strings.TrimSpace(d.Prompt) == "" {
		return d, fault.WithText(fault.InvalidRequest, "The prompt is empty.")
	}
	return d, nil
}

// Dispatch starts a task that goes on without the caller. Its ownership is on
// disk before it starts. Errors: fault.TaskLimit.
func (r *Runner) Dispatch(ctx context.Context, who Caller, a agents.Agent, d Dispatch) (Task, error) {
	var raw [16]byte
	if _, err := io.ReadFull(r.c.Rand, raw[:]); err != nil {
		return Task{}, err
	}
	id, err := uuid.NewRandomFromReader(strings.NewReader(string(raw[:])))
	if err != nil {
		return Task{}, err
	}
	session := d.SessionID
	if session == "" {
		session = "task-" + id.String()
	}
	task := &Task{ID: strings.ToUpper(id.String()), Title: title(d), Status: Running, SessionID: session}
	rec := &record{ID: task.ID, Status: Running, owner: who.owner(), task: task}
	if err := r.tasks.add(rec); err != nil {
		return Task{}, err
	}
	runCtx, end, err := r.begin(context.WithoutCancel(ctx), who)
	if err != nil {
		r.tasks.finish(rec, "", err)
		return Task{}, err
	}
	runCtx, cancel := context.WithCancel(runCtx)
	r.tasks.setCancel(rec, cancel)
	started := *task
	go func() {
		defer end()
		defer cancel()
		r.work(runCtx, who, a, d, rec, session)
	}()
	return started, nil
}

func (r *Runner) work(ctx context.Context, who Caller, a agents.Agent, d Dispatch, rec *record, session string) {
	w := &writer{emit: func([]byte, bool) error { return nil }}
	w.emit = func([]byte, bool) error {
		r.tasks.draft(rec, w.text())
		return ctx.Err()
	}
	req := Request{Messages: []Message{textMessage("user", d.Prompt)}, SessionID: session, fields: map[string]json.RawMessage{}}
	raw, err := json.Marshal(req.Messages)
	if err == nil {
		req.fields["messages"] = raw
		err = r.complete(ctx, who, a, req, w)
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	r.tasks.finish(rec, w.text(), err)
}

func title(d Dispatch) string {
	t := strings.Join(strings.Fields(d.Title), " ")
	if t == "" {
		t = strings.Join(strings.Fields(d.Prompt), " ")
	}
	if utf8.RuneCountInString(t) > MaxTitle {
		t = string([]rune(t)[:MaxTitle-1]) + "…"
	}
	return t
}

// Task returns a task to its owner. Errors: fault.TaskNotFound for the owner
// of the host, fault.AgentScopeDenied for an agent-scoped key, whether the
// task is unknown or somebody else's.
func (r *Runner) Task(who Caller, id string) (Task, error) {
	r.tasks.mu.Lock()
	defer r.tasks.mu.Unlock()
	rec, err := r.tasks.findLocked(who, id)
	if err != nil {
		return Task{}, err
	}
	return *rec.task, nil
}

// Cancel stops a task. One that ended already stays as it ended.
func (r *Runner) Cancel(who Caller, id string) error {
	r.tasks.mu.Lock()
	defer r.tasks.mu.Unlock()
	rec, err := r.tasks.findLocked(who, id)
	if err != nil {
		return err
	}
	if rec.cancel != nil {
		rec.cancel()
	}
	return nil
}

func (t *taskTable) findLocked(who Caller, id string) (*record, error) {
	if err := t.loadLocked(); err != nil {
		return nil, err
	}
	for _, rec := range t.records {
		if strings.EqualFold(rec.ID, id) && (who.owner() == owner{} || who.owner() == rec.owner) {
			return rec, nil
		}
	}
	if who.owner() == (owner{}) {
		return nil, fault.TaskNotFound
	}
	return nil, fault.AgentScopeDenied
}

func (t *taskTable) add(rec *record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running >= MaxTasks {
		return fault.TaskLimit
	}
	if err := t.loadLocked(); err != nil {
		return err
	}
	next := append(slices.Clone(t.records), rec)
	for i := 0; len(next) > MaxTaskRecords && i < len(next); {
		if next[i].Status == Running {
			i++
			continue
		}
		next = slices.Delete(next, i, i+1)
	}
	if err := t.save(next); err != nil {
		return err
	}
	t.records = next
	t.running++
	return nil
}

func (t *taskTable) setCancel(rec *record, cancel context.CancelFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rec.cancel = cancel
}

func (t *taskTable) draft(rec *record, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rec.task.Draft = cut(text)
}

func (t *taskTable) finish(rec *record, text string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ok := err == nil
	rec.task.Success, rec.task.Draft, rec.cancel = &ok, "", nil
	switch {
	case ok:
		rec.task.Status, rec.task.Output = Completed, cut(text)
	case errors.Is(err, context.Canceled):
		rec.task.Status, rec.task.Summary = Cancelled, "Cancelled."
	default:
		rec.task.Status, rec.task.Output, rec.task.Summary = Failed, cut(text), fault.Of(err).Public()
	}
	rec.Status = rec.task.Status
	t.running--
	// The ownership is on disk already; a status that cannot be written reads
	// as interrupted after a restart.
	_ = t.save(t.records)
}

func cut(s string) string {
	if len(s) <= MaxOutput {
		return s
	}
	return strings.ToValidUTF8(s[:MaxOutput], "")
}

func (t *taskTable) save(records []*record) error {
	if t.doc == nil {
		return nil
	}
	raw, err := json.Marshal(map[string]any{"version": 1, "tasks": records})
	if err != nil {
		return err
	}
	return t.doc.Write(raw)
}

// load remembers whose tasks there were. What was running is interrupted, and
// what was said is gone with the process. A document that cannot be read now
// is read again when it is needed; until then there is no task, and none
// starts.
func (t *taskTable) load(doc atomicfile.Document) {
	t.doc = doc
	_ = t.loadLocked() // see above
}

// ReadTasks reads whose tasks there were, if that was not possible before.
func (r *Runner) ReadTasks() error {
	r.tasks.mu.Lock()
	defer r.tasks.mu.Unlock()
	return r.tasks.loadLocked()
}

func (t *taskTable) loadLocked() error {
	if t.loaded || t.doc == nil {
		return nil
	}
	err := t.doc.Read(t.parse)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	t.loaded = true
	return nil
}

func (t *taskTable) parse(raw []byte) error {
	var f struct {
		Version int       `json:"version"`
		Tasks   []*record `json:"tasks"`
	}
	if json.Unmarshal(raw, &f) != nil || f.Version != 1 || slices.Contains(f.Tasks, nil) {
		return fault.New(fault.StateCorrupt, errors.New("the list of tasks does not parse"))
	}
	for _, rec := range f.Tasks {
		rec.task = &Task{ID: rec.ID, Title: rec.Title, Status: rec.Status}
		if rec.Status == Running {
			no := false
			rec.Status, rec.task.Status, rec.task.Success, rec.task.Summary = Failed, Failed, &no, "Interrupted by a restart."
		}
	}
	t.records = f.Tasks
	return nil
}
