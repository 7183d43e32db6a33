package pairing

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"sync"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/fault"
)

// Validity is how long an approved key lives. The zero value denies.
type Validity uint8

// The owner's choices.
const (
	Deny Validity = iota
	SessionOnly
	NinetyDays
	Permanent
)

// String returns the word used in JSON and on the command line.
func (v Validity) String() string {
	switch v {
	case SessionOnly:
		return "session"
	case NinetyDays:
		return "90d"
	case Permanent:
		return "permanent"
	}
	return "deny"
}

// ParseValidity reads what String writes.
func ParseValidity(s string) (Validity, error) {
	for _, v := range []Validity{Deny, SessionOnly, NinetyDays, Permanent} {
		if s == v.String() {
			return v, nil
		}
	}
	return Deny, fault.WithText(fault.Usage, "validity must be session, 90d, permanent or deny")
}

// Prompt is one question to the owner.
type Prompt struct {
	ID        string          `json:"id"`
	AgentID   string          `json:"agentId"`
	AgentName string          `json:"agentName"`
	Connector address.Address `json:"connector"`
	Source    string          `json:"source"` // IP address of the connector
	Asked     time.Time       `json:"asked"`
	Expires   time.Time       `json:"expires"`
}

// Outcome is how a prompt ended.
type Outcome struct {
	Prompt   Prompt   `json:"prompt"`
	Validity Validity `json:"-"`
	Reason   string   `json:"reason"` // answered, expired, withdrawn
}

// Queue asks the owner, one prompt at a time. Each prompt resolves exactly
// once: the first answer, the time-out and the connector hanging up compete.
type Queue struct {
	now  func() time.Time
	rand io.Reader

	mu       sync.Mutex
	attached int
	current  *pending
	changed  chan struct{} // closed and replaced at every change
	last     Outcome
}

type pending struct {
	prompt Prompt
	answer chan Validity // holds the one answer
	done   bool          // answered, though Ask may not have seen it yet
}

// Errors of Ask and Answer.
var (
	ErrNoApprover = errors.New("pairing: nobody is there to approve")
	ErrNoPrompt   = errors.New("pairing: this request is not waiting any more")
)

// NewQueue returns a queue without approvers. nil means time.Now, crypto/rand.
func NewQueue(now func() time.Time, random io.Reader) *Queue {
	if now == nil {
		now = time.Now
	}
	if random == nil {
		random = rand.Reader
	}
	return &Queue{now: now, rand: random, changed: make(chan struct{})}
}

// Attach says that something that can show prompts is there, until detach is
// called. Without any, requests are denied at once.
func (q *Queue) Attach() (detach func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.attached++
	q.changedLocked()
	return sync.OnceFunc(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.attached--
		q.changedLocked()
	})
}

// Attached reports whether anybody can approve.
func (q *Queue) Attached() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.attached > 0
}

// Current returns the prompt that waits, if any, the way the last one ended,
// and a channel that closes at the next change.
func (q *Queue) Current() (p *Prompt, last Outcome, changed <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.current != nil {
		prompt := q.current.prompt
		p = &prompt
	}
	return p, q.last, q.changed
}

// Answer resolves the prompt with this id. Errors: ErrNoPrompt.
func (q *Queue) Answer(id string, v Validity) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.current
	if p == nil || p.done || p.prompt.ID != id || !p.prompt.Expires.After(q.now()) {
		return ErrNoPrompt
	}
	p.done = true
	p.answer <- v
	return nil
}

// Ask waits for the owner. Errors: ErrNoApprover, fault.PairingBusy while
// another prompt waits, fault.PairingDenied for a denial, a time-out, and a
// ctx that ended.
func (q *Queue) Ask(ctx context.Context, p Prompt) (Validity, error) {
	var id [8]byte
	if _, err := io.ReadFull(q.rand, id[:]); err != nil {
		return Deny, err
	}
	q.mu.Lock()
	if q.attached == 0 {
		q.mu.Unlock()
		return Deny, ErrNoApprover
	}
	if q.current != nil {
		q.mu.Unlock()
		return Deny, fault.PairingBusy
	}
	p.ID, p.Asked = hex.EncodeToString(id[:]), q.now()
	p.Expires = p.Asked.Add(approvalTimeout)
	mine := &pending{prompt: p, answer: make(chan Validity, 1)}
	q.current = mine
	q.changedLocked()
	q.mu.Unlock()

	timer := time.NewTimer(approvalTimeout)
	defer timer.Stop()
	v, reason := Deny, "answered"
	select {
	case v = <-mine.answer:
	case <-timer.C:
		reason = "expired"
	case <-ctx.Done():
		reason = "withdrawn"
	}
	q.mu.Lock()
	// An answer that Answer accepted counts, whatever ended the wait.
	select {
	case v = <-mine.answer:
		reason = "answered"
	default:
	}
	q.current, q.last = nil, Outcome{Prompt: p, Validity: v, Reason: reason}
	q.changedLocked()
	q.mu.Unlock()
	if v == Deny {
		return Deny, fault.New(fault.PairingDenied, errors.New(reason))
	}
	return v, nil
}

func (q *Queue) changedLocked() {
	close(q.changed)
	q.changed = make(chan struct{})
}
