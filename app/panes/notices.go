package panes

import (
	"time"

	"osaurus/engine/accesskey"
	"osaurus/engine/pairing"
	"osaurus/engine/relay"
	"osaurus/engine/storage"
)

// NoticeKind says what a notification is about.
type NoticeKind string

// The kinds of notices.
const (
	PairingAsked    NoticeKind = "pairing-asked"
	PairingApproved NoticeKind = "pairing-approved"
	PairingDenied   NoticeKind = "pairing-denied"
	PairingExpired  NoticeKind = "pairing-expired"
	KeyMinted       NoticeKind = "key-minted"
	KeyRevoked      NoticeKind = "key-revoked"
	KeyExpiring     NoticeKind = "key-expiring"
	AgentUsed       NoticeKind = "agent-used"
	DriftFound      NoticeKind = "drift"
	StoreLocked     NoticeKind = "store-locked"
	RelaySuperseded NoticeKind = "relay-superseded"
)

// Bounds of notices.
const (
	expiringWithin = 7 * 24 * time.Hour
	usedAtMost     = time.Minute // one notice for each key
	maxNoticed     = 4096        // pairs of key and agent that are remembered for it
)

// Notice is a notification: a title, a sentence, and the pane its action opens.
// It never holds a secret, and never approves anything: that of a request to
// pair offers Review, which opens its pane, and Deny.
type Notice struct {
	Kind   NoticeKind
	Title  string
	Text   string
	Pane   Pane
	Action string // label of the action that opens Pane
	Prompt string // of a request to pair: what Deny denies, with "approval-deny:" before it
	Deny   string // label of Deny, "" where there is none
}

// noticed is what was told already.
type noticed struct {
	used     map[string]bool      // agents that a key has used, as nonce@agent
	told     map[string]time.Time // key nonce to the last notice
	expiring map[string]bool      // key ids
	latest   time.Time            // of the requests that were looked at
}

func newNoticed() noticed {
	return noticed{used: map[string]bool{}, told: map[string]time.Time{}}
}

func (m *Model) tell(n Notice) {
	if m.env.Notify == nil {
		return
	}
	n.Action = m.t("notice.open")
	if n.Prompt != "" {
		n.Action, n.Deny = m.t("notice.review"), m.t("approval.deny")
	}
	m.work.Go(func() { m.env.Notify(n) })
}

func (m *Model) tellOutcome(p pairing.Prompt) {
	n := Notice{Pane: Requests, Text: m.t("notice.ended.text", "agent", p.AgentName, "connector", p.Connector.Short())}
	last := m.approval.last
	switch {
	case last == nil || last.Prompt.ID != p.ID:
		return
	case last.Reason == "expired":
		n.Kind, n.Title = PairingExpired, m.t("notice.expired")
	case last.Reason != "answered":
		n.Kind, n.Title = PairingExpired, m.t("notice.withdrawn")
	case m.approval.answer == pairing.Deny.String():
		n.Kind, n.Title = PairingDenied, m.t("notice.denied")
	default:
		n.Kind, n.Title = PairingApproved, m.t("notice.approved")
	}
	m.tell(n)
}

// notice compares what the host said with what it said before. The first
// answer is where it starts from, except for what needs somebody.
func (m *Model) notice(before, now facts) {
	if m.env.Notify == nil {
		return
	}
	m.noticeKeys(before, now)
	m.noticeUse(before, now)
	if drifted, drifts := len(before.drift.Mismatched)+len(before.drift.StaleKeys), len(now.drift.Mismatched)+len(now.drift.StaleKeys); drifted == 0 && drifts > 0 {
		m.tell(Notice{Kind: DriftFound, Pane: Identity, Title: m.t("notice.drift"), Text: m.driftCount(now.drift)})
	}
	was := map[storage.ID]storage.IssueKind{}
	for _, s := range before.storage.Stores {
		was[s.ID] = s.Issue
	}
	for _, s := range now.storage.Stores {
		if s.Issue == storage.IssueLocked && was[s.ID] != storage.IssueLocked {
			m.tell(Notice{Kind: StoreLocked, Pane: Storage, Title: m.t("notice.locked"), Text: m.t("notice.locked.text", "name", m.storeName(s.ID))})
		}
	}
	replaced := map[string]bool{}
	for _, r := range before.relays.Agents {
		replaced[r.Agent] = r.State == relay.ServedElsewhere
	}
	for _, r := range now.relays.Agents {
		if r.State == relay.ServedElsewhere && !replaced[r.Agent] {
			m.tell(Notice{Kind: RelaySuperseded, Pane: Peers, Title: m.t("notice.superseded"), Text: m.t("notice.superseded.text", "name", r.Name)})
		}
	}
}

func (m *Model) noticeKeys(before, now facts) {
	was := map[string]accesskey.Metadata{}
	for _, k := range before.keys {
		was[k.ID] = k
	}
	soon := map[string]bool{}
	for _, k := range now.keys {
		old, known := was[k.ID]
		switch {
		case !before.known:
		case !known && !k.Revoked:
			m.tell(Notice{Kind: KeyMinted, Pane: Agents, Title: m.t("notice.minted"), Text: m.t("notice.key.text", "name", k.Label)})
		case known && k.Revoked && !old.Revoked:
			m.tell(Notice{Kind: KeyRevoked, Pane: Agents, Title: m.t("notice.revoked"), Text: m.t("notice.key.text", "name", k.Label)})
		}
		left := time.Unix(k.ExpiresAt, 0).Sub(m.env.Now())
		if k.ExpiresAt != 0 && !k.Revoked && left > 0 && left <= expiringWithin {
			soon[k.ID] = true
			if !m.noticed.expiring[k.ID] {
				m.tell(Notice{Kind: KeyExpiring, Pane: Agents, Title: m.t("notice.expiring"), Text: m.t("notice.expiring.text", "name", k.Label, "date", m.day(time.Unix(k.ExpiresAt, 0)))})
			}
		}
	}
	m.noticed.expiring = soon
}

// noticeUse tells of a key's first use of an agent, at most once a minute for
// a key. What was used before the panes looked is known.
func (m *Model) noticeUse(before, now facts) {
	labels := map[string]string{}
	for _, k := range now.keys {
		labels[k.Nonce] = k.Label
	}
	latest := m.noticed.latest
	for _, r := range now.requests {
		label, ok := labels[r.KeyNonce]
		a, isAgent := m.agentAt(r.Audience)
		if !r.Time.After(latest) || r.KeyNonce == "" || !ok || !isAgent {
			continue
		}
		if r.Time.After(m.noticed.latest) {
			m.noticed.latest = r.Time
		}
		use := r.KeyNonce + "@" + a.ID
		last, told := m.noticed.told[r.KeyNonce]
		if m.noticed.used[use] || len(m.noticed.used) >= maxNoticed || (told && r.Time.Sub(last) < usedAtMost) {
			continue
		}
		m.noticed.used[use] = true
		if before.known {
			m.noticed.told[r.KeyNonce] = r.Time
			m.tell(Notice{Kind: AgentUsed, Pane: Agents, Title: m.t("notice.used", "agent", a.Name), Text: m.t("notice.key.text", "name", label)})
		}
	}
}
