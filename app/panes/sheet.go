package panes

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
)

// sheet is an open Sheet with what its buttons do.
type sheet struct {
	Sheet
	do map[string]func(in Input) // by action; runs with m.mu held
}

// ask opens a sheet. The last action leaves it without doing anything.
func (m *Model) open(s Sheet, do map[string]func(in Input)) {
	m.closeSheet()
	m.sheets++
	s.ID = "sheet-" + strconv.Itoa(m.sheets)
	m.sheet = &sheet{s, do}
	m.touch()
}

// closeSheet dismisses what is open. Secrets in it are gone from every view.
func (m *Model) closeSheet() {
	if m.sheet != nil {
		m.sheet.Secret.dismiss()
		m.sheet = nil
	}
}

// confirm opens a sheet with one action and a way out. The way out comes last
// and is where Esc leads; nothing is confirmed by Return on a Danger sheet.
func (m *Model) confirm(s Sheet, label string, do func(in Input)) {
	s.Actions = append(s.Actions, Action{ID: "confirm", Label: label, Tone: s.Tone, Primary: s.Tone != Danger}, Action{ID: "cancel", Label: m.t("common.cancel")})
	m.open(s, map[string]func(Input){"confirm": do})
}

func (m *Model) sheetAction(in Input) error {
	if in.Action == "work-cancel" {
		m.cancelWork("")
		return nil
	}
	s := m.sheet
	if s.Tone == Danger && in.Via == Return && in.Action != "cancel" {
		return ErrOff
	}
	if in.Action == "cancel" {
		m.closeSheet()
		return nil
	}
	do, ok := s.do[in.Action]
	if !ok {
		return ErrNotOffered
	}
	s.Error = ""
	do(in)
	return nil
}

// fail shows why a sheet cannot be confirmed as it is.
func (m *Model) fail(text string) { m.sheet.Error = text }

// Check says something about what is being typed into a field that is Live:
// how many words there are. It keeps nothing.
func (m *Model) Check(values map[string]string) string {
	text, ok := values["phrase"]
	if !ok {
		return ""
	}
	return m.t("recover.count", "n", strconv.Itoa(len(phraseWords(text))))
}

// phraseWords leaves out the numbers of a numbered list.
func phraseWords(text string) []string {
	var words []string
	for _, w := range strings.Fields(text) {
		if strings.Trim(w, "0123456789.):") != "" {
			words = append(words, w)
		}
	}
	return words
}

// result is how something ended, until it is dismissed.
type result struct {
	Banner
	pane Pane
}

// say shows a result on a pane.
func (m *Model) say(p Pane, b Banner) {
	m.results++
	b.ID = "result-" + strconv.Itoa(m.results)
	b.Actions = append(b.Actions, Action{ID: "dismiss:" + b.ID, Label: m.t("common.dismiss")})
	m.banners = append([]result{{b, p}}, m.banners...)
	if len(m.banners) > maxResults {
		m.banners = m.banners[:maxResults]
	}
}

// maxResults is how many undismissed results are kept.
const maxResults = 5

func (m *Model) dismissResult(id string) {
	for i, r := range m.banners {
		if r.ID == id {
			m.banners = append(m.banners[:i:i], m.banners[i+1:]...)
			return
		}
	}
}

func (m *Model) resultBanners(p Pane) []Banner {
	var list []Banner
	for _, r := range m.banners {
		if r.pane == p {
			b := r.Banner
			b.Actions = append([]Action(nil), b.Actions...)
			list = append(list, b)
		}
	}
	return list
}

// working is the one operation that runs.
type working struct {
	Working
	stop   context.CancelFunc
	begun  time.Time
	behind *sheet // the sheet it began from, which waits for it
}

// job is something that takes time.
type job struct {
	pane    Pane // where its result shows
	title   string
	cancels bool // may be given up by its owner
	run     func(ctx context.Context) error
	done    func() // with m.mu held, after success
}

// start runs a job; there is never a second one. The sheet it was confirmed in
// stays until it is over, and shows the error if it fails.
func (m *Model) start(j job) {
	if m.working != nil {
		return
	}
	ctx, stop := context.WithCancel(m.ctx)
	w := &working{Working: Working{Title: j.title}, stop: stop, begun: m.env.Now()}
	if j.cancels {
		w.Cancel = &Action{ID: "work-cancel", Label: m.t("common.cancel")}
		m.closeSheet() // progress has its own place
	}
	if w.behind = m.sheet; w.behind != nil {
		w.behind.Busy = true
		for i := range w.behind.Actions {
			w.behind.Actions[i].Off = true
		}
	}
	m.working = w
	m.work.Go(func() {
		defer stop()
		err := j.run(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.finish(w, j, err)
		m.refresh()
		m.touch()
	})
}

func (m *Model) finish(w *working, j job, err error) {
	m.working = nil
	mine := w.behind != nil && m.sheet == w.behind
	if mine {
		m.sheet.Busy = false
		for i := range m.sheet.Actions {
			m.sheet.Actions[i].Off = false
		}
	}
	switch {
	case err == nil:
		if mine {
			m.closeSheet()
		}
		if j.done != nil {
			j.done()
		}
	case errors.Is(err, context.Canceled) && m.ctx.Err() == nil:
		m.say(j.pane, Banner{Title: m.t("common.cancelled", "what", j.title)})
	case mine:
		m.fail(m.explain(err))
	default:
		m.say(j.pane, Banner{Tone: Danger, Title: m.t("common.failed", "what", j.title), Lines: []string{m.explain(err)}})
	}
}

func (m *Model) cancelWork(string) {
	if m.working != nil && m.working.Cancel != nil {
		m.working.stop()
		m.working.Cancel = nil
		m.working.Text = m.t("common.cancelling")
	}
}

// workingView shows what runs here, or what another program began at the host.
func (m *Model) workingView() *Working {
	if m.working != nil {
		w := m.working.Working
		if w.Cancel != nil {
			c := *w.Cancel
			w.Cancel = &c
		}
		return &w
	}
	if op := m.facts.storage.Operation; op != "" {
		return &Working{Title: m.operationName(op)}
	}
	return nil
}

// Busy reports whether an operation runs that must not be cut off.
func (m *Model) Busy() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.working != nil
}

// Asking reports whether the host is being asked; what shows is from before.
func (m *Model) Asking() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asking
}

// Dismiss closes the sheet of somebody who is not there any more: what it
// shows is gone.
func (m *Model) Dismiss() {
	m.update(func() {
		if m.sheet != nil && !m.sheet.Busy {
			m.closeSheet()
		}
	})
}
