package runner

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/agents"
	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
)

// Caps on what runs at once (decisions C12).
const (
	MaxRuns  = 64
	MaxTasks = 32
)

// Ping is how often a silent stream shows that it lives.
const Ping = 15 * time.Second

// Config configures New. Endpoint and Chats are required.
type Config struct {
	// Endpoint returns the confirmed provider; a zero BaseURL means none.
	Endpoint func(ctx context.Context) (Endpoint, error)
	Chats    Chats
	Tools    Tools               // nil gives agents no tools
	Tasks    atomicfile.Document // tasks.json; nil keeps ownership in memory only
	Now      func() time.Time
	Rand     io.Reader
	Log      *slog.Logger
}

// Runner is safe for concurrent use. Close ends everything it runs.
type Runner struct {
	c     Config
	runs  chan struct{} // slots
	tasks taskTable

	mu     sync.Mutex
	active map[*active]bool
	group  sync.WaitGroup
	closed bool
}

// active is one run or task that a revocation can end.
type active struct {
	access *accesskey.Access
	cancel context.CancelCauseFunc
}

// New loads the ownership of tasks.
func New(c Config) (*Runner, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runner{c: c, runs: make(chan struct{}, MaxRuns), active: map[*active]bool{}}
	r.tasks.load(c.Tasks)
	return r, nil
}

// Caller is who asks: Access is nil for trusted loopback.
type Caller struct{ Access *accesskey.Access }

// Emit sends one server-sent event. flush says that nothing more is waiting.
type Emit func(event []byte, flush bool) error

// begin takes a slot and makes ctx end when the caller's access does. Errors:
// fault.ServerOverloaded.
func (r *Runner) begin(ctx context.Context, who Caller) (context.Context, func(), error) {
	select {
	case r.runs <- struct{}{}:
	default:
		return nil, nil, &fault.Error{Code: fault.ServerOverloaded, RetryAfter: time.Second}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	a := &active{who.Access, cancel}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		cancel(nil)
		<-r.runs
		return nil, nil, fault.ServerOverloaded
	}
	r.active[a] = true
	r.group.Add(1)
	return ctx, func() {
		r.mu.Lock()
		delete(r.active, a)
		r.mu.Unlock()
		cancel(nil)
		<-r.runs
		r.group.Done()
	}, nil
}

// EndAccess ends every run and task of a revoked key.
func (r *Runner) EndAccess(rev accesskey.Revocation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a := range r.active {
		if a.access != nil && rev.Matches(*a.access) {
			a.cancel(fault.AccessRevokedStream)
		}
	}
}

// InFlight returns how many runs and tasks are going on.
func (r *Runner) InFlight() int { return len(r.runs) }

// Close ends all runs and tasks and waits for them.
func (r *Runner) Close() {
	r.mu.Lock()
	r.closed = true
	for a := range r.active {
		a.cancel(context.Canceled)
	}
	r.mu.Unlock()
	r.group.Wait()
}

// Admit reserves a slot for a run, so that a refusal can still be a status.
// The run must be started or released.
func (r *Runner) Admit(ctx context.Context, who Caller) (*Run, error) {
	ctx, end, err := r.begin(ctx, who)
	if err != nil {
		return nil, err
	}
	return &Run{r: r, ctx: ctx, end: end, who: who}, nil
}

// Run is an admitted run.
type Run struct {
	r   *Runner
	ctx context.Context
	end func()
	who Caller
}

// Stream runs the agent and emits the events of PROTOCOL.md of the server
// ("Run"), [DONE] included. A failure becomes an event; the error returned is
// only that the caller is gone.
func (run *Run) Stream(a agents.Agent, req Request, emit Emit) error {
	defer run.end()
	w := &writer{emit: emit, ping: Ping}
	stop := w.keepAlive()
	err := run.r.complete(run.ctx, run.who, a, req, w)
	stop()
	if gone := w.left(); gone != nil {
		return gone
	}
	if err != nil && run.ctx.Err() != nil {
		if cause := context.Cause(run.ctx); errors.Is(cause, fault.AccessRevokedStream) {
			err = cause
		}
	}
	if err != nil {
		run.r.c.Log.Info("run failed", slog.String("error", fault.Of(err).Error()))
		if err := w.send(fault.Event(err), false); err != nil {
			return err
		}
	}
	return w.send([]byte("data: [DONE]\n\n"), true)
}

// complete streams one answer into w and stores the turn.
func (r *Runner) complete(ctx context.Context, who Caller, a agents.Agent, req Request, w *writer) error {
	if req.Model == "" {
		req.Model = a.Model
	}
	scope := ScopeOf(who.Access, a.ID, req.SessionID)
	history, err := r.history(ctx, scope)
	if err != nil {
		return err
	}
	source, model, err := r.source(ctx, a, req, history)
	if err != nil {
		return err
	}
	id, err := r.completionID()
	if err != nil {
		return err
	}
	w.head(id, r.c.Now().Unix(), model)
	if err := w.choices("["+firstChoice+"]", true); err != nil {
		return err
	}
	if err := source(ctx, w); err != nil {
		return err
	}
	if err := w.finish(); err != nil {
		return err
	}
	if scope.Session == "" { // a conversation of one turn, which nobody continues
		scope.Session = strings.Replace(id, completionPrefix, "run-", 1)
	}
	last := req.Messages[len(req.Messages)-1]
	return r.c.Chats.Append(ctx, scope, last, textMessage("assistant", w.text()))
}

func (r *Runner) history(ctx context.Context, s Scope) ([]Message, error) {
	if s.Session == "" {
		return nil, nil
	}
	return r.c.Chats.Turns(ctx, s)
}

// source returns what streams the answer: the provider or the echo model.
func (r *Runner) source(ctx context.Context, a agents.Agent, req Request, history []Message) (func(context.Context, *writer) error, string, error) {
	if req.Model == Echo {
		return func(ctx context.Context, w *writer) error { return echo(ctx, req.Messages, w.pass(req.Usage)) }, Echo, nil
	}
	e, err := r.c.Endpoint(ctx)
	if err != nil {
		return nil, "", err
	}
	if e.BaseURL == "" {
		return nil, "", fault.NoModelProvider
	}
	model, err := e.model(ctx, req.Model)
	if err != nil {
		return nil, "", err
	}
	messages := withContext(a, history, req)
	if offered := r.offer(ctx, a, req); len(offered) > 0 {
		s := &rounds{tools: r.c.Tools, offered: offered, endpoint: e, agentID: a.ID, req: req, model: model, messages: messages, log: r.c.Log}
		return s.stream, model, nil
	}
	body, err := req.upstream(model, messages, true)
	if err != nil {
		return nil, "", err
	}
	return func(ctx context.Context, w *writer) error { return e.stream(ctx, body, w.pass(req.Usage)) }, model, nil
}

// withContext puts the agent's system prompt and the stored turns before the
// caller's messages. A caller that sends a longer history itself replaces the
// stored one.
func withContext(a agents.Agent, history []Message, req Request) []json.RawMessage {
	var all []json.RawMessage
	add := func(m Message) {
		raw, err := json.Marshal(m)
		if err == nil {
			all = append(all, raw)
		}
	}
	if a.SystemPrompt != "" {
		add(textMessage("system", a.SystemPrompt))
	}
	if len(req.Messages) == 1 {
		for _, m := range history {
			add(m)
		}
	}
	return append(all, req.rawMessages()...)
}

const completionPrefix = "chatcmpl-"

func (r *Runner) completionID() (string, error) {
	var raw [12]byte
	if _, err := io.ReadFull(r.c.Rand, raw[:]); err != nil {
		return "", fmt.Errorf("naming the completion: %w", err)
	}
	return completionPrefix + hex.EncodeToString(raw[:]), nil
}
