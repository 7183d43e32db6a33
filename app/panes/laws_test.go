package panes_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"osaurus/app/panes"
	"osaurus/engine/address"
	"osaurus/engine/control"
	"osaurus/engine/pairing"
)

// destructive are the calls that need a confirmation first. None may follow
// from a single action.
var destructive = []string{"reset", "repair", "agent-rotate", "agent-revoke", "key-revoke", "trust", "distrust", "forget", "operate-rotate", "operate-decrypt", "store-reset", "store-accept", "remains-delete", "refuse", "replaced-", "invite-revoke", "accept", "relay-on"}

// offers lists every action that can be chosen on any pane.
func offers(m *panes.Model) (list []string) {
	seen := map[string]bool{}
	add := func(actions []panes.Action) {
		for _, a := range actions {
			if a.Effect == "" && !a.Off && !seen[a.ID] {
				seen[a.ID] = true
				list = append(list, a.ID)
			}
		}
	}
	var rows func([]panes.Row)
	rows = func(rs []panes.Row) {
		for _, r := range rs {
			add(r.Actions)
			rows(r.Rows)
		}
	}
	for _, p := range panes.All {
		v := m.View(p)
		if v.Working != nil && v.Working.Cancel != nil {
			add([]panes.Action{*v.Working.Cancel})
		}
		if v.Sheet != nil {
			add(v.Sheet.Actions)
			continue
		}
		for _, b := range v.Banners {
			add(b.Actions)
		}
		for _, s := range v.Sections {
			add(s.Actions)
			rows(s.Rows)
		}
	}
	return list
}

// shown is everything a renderer can reach, secrets included.
func shown(m *panes.Model) string {
	var all strings.Builder
	for _, p := range panes.All {
		v := m.View(p)
		raw, err := json.Marshal(v)
		all.Write(raw)
		fmt.Fprintf(&all, "%v %+v", err, v)
		if v.Sheet != nil && v.Sheet.Secret != nil {
			all.WriteString(v.Sheet.Secret.Text() + v.Sheet.Secret.Code.Text())
		}
	}
	return all.String()
}

// TestLaws chooses actions in random order, offered or not, with random ways
// and values, while operations take their time.
func TestLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		synctest.Test(t, func(*testing.T) { laws(r) })
	})
}

func laws(r *rapid.T) {
	h := newScripted()
	h.id.Acknowledged = rapid.Bool().Draw(r, "acknowledged")
	if rapid.Bool().Draw(r, "none") {
		h.id.State = "none"
	}
	if rapid.Bool().Draw(r, "drift") {
		h.drift = control.Drift{Mismatched: []control.NamedAgent{{ID: "A1", Name: "Rex"}}, StaleKeys: []string{"K1"}}
	}
	h.hold = time.Duration(rapid.IntRange(0, 3).Draw(r, "hold")) * time.Second
	m := panes.New(h, panes.Env{Home: "/nowhere"})
	defer m.Close()
	synctest.Wait()
	var held []*panes.Secret
	for range rapid.IntRange(1, 25).Draw(r, "steps") {
		before := m.View(panes.Identity).Sheet
		if before != nil && before.Secret != nil && !slices.Contains(held, before.Secret) {
			held = append(held, before.Secret)
		}
		if rapid.IntRange(0, 3).Draw(r, "wait") == 0 {
			<-time.After(time.Second)
			synctest.Wait() // an operation may end in the same second
		}
		step(r, m, h, before)
		sheet := m.View(panes.Identity).Sheet
		for _, s := range held {
			if (sheet == nil || sheet.Secret != s) && (s.Text() != "" || s.Code.Text() != "" || s.Words() != nil) {
				r.Fatal("a secret is there after its sheet was dismissed")
			}
		}
		if text := shown(m); (sheet == nil || sheet.Secret == nil) && strings.Contains(text, "zz") {
			r.Fatal("a secret shows beside its sheet")
		}
	}
	if h.together {
		r.Fatal("two operations ran at once")
	}
}

func step(r *rapid.T, m *panes.Model, h *scripted, sheet *panes.Sheet) {
	list := offers(m)
	action := rapid.SampledFrom(append(list, "identity-reset", "confirm", "agent-rotate:A1", "nonsense", "cancel")).Draw(r, "action")
	via := rapid.SampledFrom([]panes.Via{panes.Click, panes.Key, panes.Return}).Draw(r, "via")
	values := map[string]string{"word": rapid.SampledFrom([]string{"RESET", "reset"}).Draw(r, "word"), "name": "Terry", "label": "x", "expiration": "90d", "dest": "/nowhere", "kind": "folder", "address": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "days": "7", "agent": "A1"}
	calls := len(h.calls)
	err := m.Do(panes.Input{Action: action, Via: via, Values: values})
	synctest.Wait()
	if offered := slices.Contains(list, action); !offered && err == nil {
		r.Fatalf("%s was taken and nothing offers it", action)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.calls[calls:] {
		for _, d := range destructive {
			if strings.HasPrefix(c, d) && (sheet == nil || via == panes.Return && sheet.Tone == panes.Danger) {
				r.Fatalf("%s led to %s without its confirmation", action, c)
			}
		}
		if c == "reset" && values["word"] != "RESET" {
			r.Fatal("reset without its word")
		}
	}
}

func prompt(id string, now time.Time) *pairing.Prompt {
	return &pairing.Prompt{ID: id, AgentName: "Rex", Connector: address.Address{19: 7}, Source: "192.0.2.1", Asked: now, Expires: now.Add(110 * time.Second)}
}

// watched runs f beside a model that is told of requests.
func watched(t *testing.T, f func(m *panes.Model, h *scripted)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newScripted()
		m := panes.New(h, panes.Env{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.Watch(t.Context())
		}()
		synctest.Wait()
		f(m, h)
		m.Close()
		<-done
	})
}

func allow(id, validity string, via panes.Via) panes.Input {
	return panes.Input{Action: "approval-allow:" + id, Via: via, Values: map[string]string{"validity": validity}}
}

func TestApproval(t *testing.T) { // PA-2, PA-3, PA-4, PA-5
	t.Parallel()
	watched(t, func(m *panes.Model, h *scripted) {
		h.approvals <- control.Approvals{Current: prompt("p1", time.Now())}
		synctest.Wait()
		v := m.View(panes.Identity).Approval
		if v == nil || v.Left != 110 || v.Countdown != "Denied in 110 s" || v.Value != "90d" || len(v.Options) != 3 || v.Facts[0].Value != (address.Address{19: 7}).String() || fact(v.Facts, "From") != "192.0.2.1" {
			t.Fatalf("%+v", v)
		}
		for _, o := range v.Options {
			if o.Caption == "" {
				t.Errorf("%s has no caption", o.Value)
			}
		}
		for _, via := range []panes.Via{panes.Key, panes.Return} {
			if m.Do(allow("p1", "90d", via)) == nil || m.Do(panes.Input{Action: "approval-deny:p1", Via: via}) == nil {
				t.Errorf("%s does something in the first second", via)
			}
		}
		<-time.After(panes.KeysAsleep - time.Nanosecond)
		if m.Do(allow("p1", "90d", panes.Key)) == nil {
			t.Error("a key woke too early")
		}
		<-time.After(time.Nanosecond)
		m.Activated() // the window just became active
		if m.Do(allow("p1", "90d", panes.Key)) == nil {
			t.Error("a key is awake though the window just became active")
		}
		<-time.After(panes.KeysAsleep)
		for _, in := range []panes.Input{allow("p1", "90d", panes.Return), allow("p1", "deny", panes.Click), allow("p1", "", panes.Click), allow("p2", "90d", panes.Click), {Action: "approval-allow"}} {
			if m.Do(in) == nil {
				t.Errorf("%+v approves", in)
			}
		}
		if err := m.Do(allow("p1", "session", panes.Key)); err != nil {
			t.Fatal(err)
		}
		if m.Do(allow("p1", "permanent", panes.Click)) == nil || m.Do(panes.Input{Action: "approval-deny:p1"}) == nil {
			t.Error("it is answered twice")
		}
		synctest.Wait()
		if got := h.answered(); len(got) != 1 || got[0] != (control.Answer{ID: "p1", Validity: "session"}) {
			t.Errorf("%+v", got)
		}
	})
}

func TestApprovalCountsDownAndExpires(t *testing.T) { // PA-5
	t.Parallel()
	watched(t, func(m *panes.Model, h *scripted) {
		h.approvals <- control.Approvals{Current: prompt("p1", time.Now())}
		synctest.Wait()
		for left := 110; left > 0; left -= 10 {
			if got := m.View(panes.Requests).Approval.Left; got != left {
				t.Fatalf("%d s left, want %d", got, left)
			}
			<-time.After(10 * time.Second)
		}
		if m.Do(allow("p1", "90d", panes.Click)) == nil {
			t.Error("an expired request can be allowed")
		}
		h.approvals <- control.Approvals{Last: &pairing.Outcome{Prompt: *prompt("p1", time.Now()), Reason: "expired"}}
		synctest.Wait()
		if v := m.View(panes.Requests); v.Approval != nil || !strings.Contains(fmt.Sprint(v.Sections), "Nobody answered in time") {
			t.Errorf("%+v", v)
		}
	})
}

// TestOneAnswer tries random answers to random requests: each gets at most one,
// and never one that was not asked for.
func TestOneAnswer(t *testing.T) { // PA-5, PA-6
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		watched(t, func(m *panes.Model, h *scripted) {
			for i := range rapid.IntRange(1, 4).Draw(r, "requests") {
				id := fmt.Sprint("p", i)
				h.approvals <- control.Approvals{Current: prompt(id, time.Now())}
				synctest.Wait()
				taken := 0
				for range rapid.IntRange(0, 6).Draw(r, "answers") {
					<-time.After(time.Duration(rapid.IntRange(0, 1500).Draw(r, "ms")) * time.Millisecond)
					in := allow(fmt.Sprint("p", rapid.IntRange(0, i+1).Draw(r, "to")), rapid.SampledFrom([]string{"session", "90d", "permanent", "deny", ""}).Draw(r, "validity"), rapid.SampledFrom([]panes.Via{panes.Click, panes.Key, panes.Return}).Draw(r, "via"))
					if rapid.Bool().Draw(r, "deny") {
						in.Action = strings.Replace(in.Action, "allow", "deny", 1)
					}
					if m.Do(in) == nil {
						taken++
						if !strings.HasSuffix(in.Action, ":"+id) || (in.Via == panes.Return && strings.Contains(in.Action, "allow")) {
							r.Fatalf("%+v was taken while %s waits", in, id)
						}
					}
				}
				synctest.Wait()
				n := 0
				for _, a := range h.answered() {
					if a.ID == id {
						n++
					}
				}
				if taken > 1 || n != taken {
					r.Fatalf("%d answers were taken, %d sent", taken, n)
				}
			}
		})
	})
}

func TestClipboardIsCleared(t *testing.T) { // ID-3
	t.Parallel()
	for _, other := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h, c := newScripted(), &clipboard{}
			h.id.State = "none"
			m := panes.New(h, panes.Env{Clipboard: c})
			synctest.Wait()
			if err := m.Do(panes.Input{Action: "identity-create"}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			m.CopySecret()
			if c.Read() != somePhrase {
				t.Fatal("nothing was copied")
			}
			<-time.After(panes.ClearAfter - time.Nanosecond)
			if c.Read() != somePhrase {
				t.Error("it was cleared too early")
			}
			if other {
				c.Write("something else")
			}
			<-time.After(time.Nanosecond)
			synctest.Wait()
			if want := map[bool]string{true: "something else"}[other]; c.Read() != want {
				t.Errorf("the pasteboard holds %q", c.Read())
			}
			m.Close()
		})
	}
}
