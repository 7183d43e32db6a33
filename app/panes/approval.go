package panes

import (
	"context"
	"strconv"
	"time"

	"osaurus/engine/control"
	"osaurus/engine/pairing"
)

// KeysAsleep is how long keys do nothing after a request showed or its window
// became active: both can land in the middle of typing (PA-4).
const KeysAsleep = time.Second

// Approval is a request to pair that waits for its owner. Exactly one answer
// goes to the host; what comes later is refused here.
type Approval struct {
	ID        string
	Title     string
	Agent     string
	Facts     []Fact // connector's address in full and short, source
	Text      []string
	Options   []Option // how long the key lives
	Value     string   // the option that is chosen at first
	Expires   time.Time
	Left      int // whole seconds until it is denied
	Countdown string
	Answering bool
	Error     string
	Deny      Action // the default, and what Esc and closing do
	Allow     Action
	AllowKey  string // the key that allows, once keys are awake
}

// approval is the request that waits at the host, if any.
type approval struct {
	attached bool
	prompt   *pairing.Prompt
	shown    time.Time // when it showed, or its window became active
	answered string    // id of the prompt that was answered here
	problem  string
	last     *pairing.Outcome
	failed   error
	answer   string // how the last one was answered, here or elsewhere
}

// retryWatch is how long the panes wait before they ask again to be told of
// requests.
const retryWatch = 2 * time.Second

// watchApprovals keeps an approver attached until ctx ends.
func (m *Model) watchApprovals(ctx context.Context) {
	for ctx.Err() == nil {
		err := m.host.WatchApprovals(ctx, func(s control.Approvals) error {
			m.update(func() { m.sawApprovals(s) })
			return nil
		})
		m.update(func() {
			m.approval.attached, m.approval.prompt, m.approval.failed = false, nil, err
		})
		select {
		case <-ctx.Done():
		case <-time.After(retryWatch):
		}
	}
}

func (m *Model) sawApprovals(s control.Approvals) {
	a := &m.approval
	a.attached, a.failed = true, nil
	was := a.prompt
	a.prompt, a.last, a.answer = s.Current, s.Last, s.Answer
	if s.Current != nil && (was == nil || was.ID != s.Current.ID) {
		a.shown, a.problem = m.env.Now(), ""
		m.tell(Notice{Kind: PairingAsked, Pane: Requests, Prompt: s.Current.ID, Title: m.t("notice.asked"), Text: m.t("notice.asked.text", "agent", s.Current.AgentName, "connector", s.Current.Connector.Short())})
	}
	if was != nil && (s.Current == nil || s.Current.ID != was.ID) {
		m.tellOutcome(*was)
		m.refresh()
	}
}

// Activated says that the window of the request became active.
func (m *Model) Activated() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.approval.shown = m.env.Now()
}

// approvalView is PA-2 to PA-5.
func (m *Model) approvalView() *Approval {
	p := m.approval.prompt
	if p == nil {
		return nil
	}
	left := max(0, int((p.Expires.Sub(m.env.Now())+time.Second-1)/time.Second))
	busy := m.approval.answered == p.ID
	return &Approval{
		ID: p.ID, Title: m.t("approval.title", "agent", p.AgentName), Agent: p.AgentName, Answering: busy, Error: m.approval.problem,
		Facts:   []Fact{{Label: m.t("approval.connector"), Value: p.Connector.String(), Mono: true, Copy: true}, {Label: m.t("approval.short"), Value: p.Connector.Short(), Mono: true}, {Label: m.t("approval.source"), Value: p.Source, Mono: true}},
		Text:    []string{m.t("approval.access"), m.t("approval.sealed"), m.t("approval.compare")},
		Options: []Option{{pairing.SessionOnly.String(), m.t("approval.session"), m.t("approval.session.caption")}, {pairing.NinetyDays.String(), m.t("approval.90d"), m.t("approval.90d.caption")}, {pairing.Permanent.String(), m.t("approval.permanent"), m.t("approval.permanent.caption")}},
		Value:   pairing.NinetyDays.String(), Expires: p.Expires, Left: left, Countdown: m.t("approval.left", "n", strconv.Itoa(left)),
		Deny: Action{ID: "approval-deny:" + p.ID, Label: m.t("approval.deny"), Primary: true, Off: busy}, Allow: Action{ID: "approval-allow:" + p.ID, Label: m.t("approval.allow"), Off: busy}, AllowKey: "a",
	}
}

// answer resolves the request exactly once. Return never allows; keys do
// nothing in the first second; an answer to another request than the one that
// waits is refused.
func (m *Model) answer(verb, id string, in Input) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := &m.approval
	if a.prompt == nil || a.prompt.ID != id {
		return ErrNotOffered
	}
	validity := pairing.Deny
	switch verb {
	case "approval-allow":
		v, err := pairing.ParseValidity(in.Values["validity"])
		if err != nil || v == pairing.Deny {
			return ErrNotOffered
		}
		validity = v
	case "approval-deny":
	default:
		return ErrNotOffered
	}
	now := m.env.Now()
	asleep := (in.Via == Key || in.Via == Return) && now.Sub(a.shown) < KeysAsleep
	if a.answered == id || asleep || (in.Via == Return && validity != pairing.Deny) || (validity != pairing.Deny && !now.Before(a.prompt.Expires)) {
		return ErrOff
	}
	a.answered = id
	m.work.Go(func() {
		err := m.host.Answer(m.ctx, control.Answer{ID: id, Validity: validity.String()})
		m.update(func() {
			if err != nil && m.approval.answered == id {
				m.approval.answered, m.approval.problem = "", m.explain(err)
			}
		})
	})
	m.touch()
	return nil
}

// requestsPane lists the request that waits and how the last one ended.
func (m *Model) requestsPane() View {
	v := View{Title: m.t("requests.title"), Intro: m.t("requests.intro")}
	s := Section{ID: "requests", Title: m.t("requests.waiting"), Empty: m.t("requests.none")}
	if p := m.approval.prompt; p != nil {
		s.Rows = []Row{{ID: p.ID, Title: p.AgentName, Text: p.Source, Address: p.Connector.String(), Short: p.Connector.Short()}}
	}
	attached := Badge{m.t("requests.detached"), Warn}
	if m.approval.attached {
		attached = Badge{m.t("requests.attached"), Good}
	}
	here := Section{ID: "approver", Title: m.t("requests.here"), Caption: m.t("requests.here.text"), Rows: []Row{{ID: "approver", Title: m.t("requests.thispage"), Badges: []Badge{attached}}}}
	v.Sections = []Section{s, here}
	if last := m.approval.last; last != nil {
		v.Sections = append(v.Sections, Section{ID: "last", Title: m.t("requests.last"), Rows: []Row{{ID: "last", Title: last.Prompt.AgentName, Text: m.outcome(last.Reason), Address: last.Prompt.Connector.String(), Short: last.Prompt.Connector.Short()}}})
	}
	return v
}

func (m *Model) outcome(reason string) string {
	switch reason {
	case "answered":
		return m.t("requests.answered")
	case "expired":
		return m.t("requests.expired")
	}
	return m.t("requests.withdrawn")
}
