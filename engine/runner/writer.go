package runner

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// writer turns chunks into events. Its lock keeps pings from cutting into one.
type writer struct {
	emit Emit
	ping time.Duration

	mu       sync.Mutex
	gone     error  // the first failure to emit; nothing is emitted after it
	prefix   string // everything of an event before its choices
	answer   strings.Builder
	finished bool
	usage    json.RawMessage
	spent    json.RawMessage // the usage of the rounds before
	calls    *toolCalls      // nil passes tool calls on to the caller
}

func (w *writer) send(event []byte, flush bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone == nil {
		w.gone = w.emit(event, flush)
	}
	return w.gone
}

// left returns the failure to emit: the caller is gone.
func (w *writer) left() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone
}

// keepAlive sends a comment at every interval until it is stopped.
func (w *writer) keepAlive() (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(w.ping)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if err := w.send([]byte(": ping\n\n"), true); err != nil {
					return
				}
			}
		}
	}()
	return func() {
		close(done)
		<-gone
	}
}

func (w *writer) head(id string, created int64, model string) {
	name, err := canonjson.Marshal(model)
	if err != nil {
		name = []byte(`""`)
	}
	w.prefix = `data: {"id":"` + id + `","object":"chat.completion.chunk","created":` + strconv.FormatInt(created, 10) + `,"model":` + string(name) + `,"choices":`
}

// choices sends one chunk with a ready list of choices.
func (w *writer) choices(list string, flush bool) error {
	return w.send([]byte(w.prefix+list+"}\n\n"), flush)
}

// pass returns the function that forwards a provider's chunks. The role was
// sent already, usage is kept for the end.
func (w *writer) pass(usage bool) func(chunk, bool) error {
	return func(c chunk, more bool) error {
		if usage && len(c.Usage) > 0 && string(c.Usage) != "null" {
			w.usage = c.Usage
		}
		for _, raw := range c.Choices {
			var ch choice
			if json.Unmarshal(raw, &ch) != nil {
				return fault.New(fault.ProviderFailed, errMalformed)
			}
			if ch.Delta.Content != nil {
				w.answer.WriteString(*ch.Delta.Content)
			}
			if w.calls != nil {
				var err error
				if raw, err = w.calls.take(&ch, raw); err != nil {
					return fault.New(fault.ProviderFailed, err)
				}
			}
			if ch.Finish == nil && ch.empty() {
				continue
			}
			w.finished = w.finished || ch.Finish != nil
			if err := w.choices("["+string(raw)+"]", !more); err != nil {
				return err
			}
		}
		return nil
	}
}

// empty reports a delta that only repeats the role.
func (c choice) empty() bool {
	return (c.Delta.Content == nil || *c.Delta.Content == "") && (c.Delta.Reasoning == nil || *c.Delta.Reasoning == "") && len(c.Delta.Tools) == 0
}

// finish makes sure the stream says why it ended, and adds the usage.
func (w *writer) finish() error {
	if !w.finished {
		if err := w.choices("["+lastChoice+"]", false); err != nil {
			return err
		}
	}
	usage := addUsage(w.spent, w.usage)
	if usage == nil {
		return nil
	}
	return w.send([]byte(w.prefix+`[],"usage":`+string(usage)+"}\n\n"), false)
}

// tool sends that a tool of ours has started or finished: its name, and
// nothing of what it was given or gave back.
func (w *writer) tool(name, phase string) error {
	raw, err := canonjson.Marshal(map[string]string{"name": name, "phase": phase})
	if err != nil {
		return err
	}
	return w.send([]byte(w.prefix+`[],"osaurus_agent_tool":`+string(raw)+"}\n\n"), true)
}

// nextRound begins the answer anew: only the last round's text is kept.
func (w *writer) nextRound() {
	w.answer.Reset()
	w.spent, w.usage = addUsage(w.spent, w.usage), nil
}

func (w *writer) text() string { return w.answer.String() }
