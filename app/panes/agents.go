package panes

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/control"
)

// maxLabel is how many characters a key's label may have.
const maxLabel = 80

// agentsPane is ID-8 to ID-11 and ID-14.
func (m *Model) agentsPane() View {
	v := View{Title: m.t("agents.title"), Intro: m.t("agents.intro")}
	if !m.facts.known {
		return v
	}
	list := Section{ID: "agents", Title: m.t("agents.list"), Empty: m.t("agents.none"), Actions: []Action{{ID: "agent-create", Label: m.t("agents.create")}}}
	for _, a := range m.facts.agents {
		if !a.BuiltIn {
			list.Rows = append(list.Rows, m.agentRow(a))
		}
	}
	keys := Section{ID: "keys", Title: m.t("keys.title"), Caption: m.t("keys.text"), Empty: m.t("keys.none"), Rows: m.keyRows(address.Address{}), Actions: []Action{{ID: "key-create:", Label: m.t("keys.create"), Primary: true}}}
	v.Sections = []Section{list, keys, m.trustSection()}
	return v
}

func (m *Model) agentRow(a control.Agent) Row {
	r := Row{ID: a.ID, Title: a.Name, Text: a.Description}
	if a.Address.IsZero() {
		r.Text = m.t("agents.noaddress")
		r.Actions = []Action{{ID: "agent-assign:" + a.ID, Label: m.t("agents.generate")}}
		return r
	}
	r.Address, r.Short = a.Address.String(), a.Address.Short()
	r.Facts = []Fact{{Label: m.t("common.address"), Value: r.Address, Mono: true, Copy: true}}
	if m.stale(a.ID) {
		r.Badges = append(r.Badges, Badge{m.t("agents.stale"), Danger})
	}
	r.Badges = append(r.Badges, Badge{m.n("agents.keys", a.ActiveKeys), Plain})
	r.Actions = []Action{{ID: "key-create:" + a.ID, Label: m.t("keys.create")}, {ID: "agent-rotate:" + a.ID, Label: m.t("agents.rotate")}, {ID: "agent-revoke:" + a.ID, Label: m.t("agents.revoke"), Tone: Danger}}
	r.Rows, r.Empty = m.keyRows(a.Address), m.t("keys.none")
	return r
}

// stale tells whether an agent's address is not of this identity.
func (m *Model) stale(id string) bool {
	return slices.ContainsFunc(m.facts.drift.Mismatched, func(a control.NamedAgent) bool { return a.ID == id })
}

func (m *Model) agentByID(id string) (control.Agent, bool) {
	for _, a := range m.facts.agents {
		if a.ID == id {
			return a, true
		}
	}
	return control.Agent{}, false
}

func (m *Model) agentAt(a address.Address) (control.Agent, bool) {
	for _, g := range m.facts.agents {
		if !a.IsZero() && g.Address == a {
			return g, true
		}
	}
	return control.Agent{}, false
}

func (m *Model) ownAgents() int {
	n := 0
	for _, a := range m.facts.agents {
		if !a.BuiltIn {
			n++
		}
	}
	return n
}

func (m *Model) createAgentSheet(string) {
	s := Sheet{Kind: "agent", Title: m.t("agents.create"), Fields: []Field{{Name: "name", Label: m.t("common.name"), Kind: Line}, {Name: "description", Label: m.t("agents.description"), Kind: Line}}}
	m.confirm(s, m.t("agents.create"), func(in Input) {
		name, description := tidy(in.Values["name"]), tidy(in.Values["description"])
		if name == "" {
			m.fail(m.t("error.name"))
			return
		}
		m.start(job{pane: Agents, title: m.t("agents.creating"), run: func(ctx context.Context) error {
			_, err := m.host.CreateAgent(ctx, control.EditAgent{Name: &name, Description: &description})
			return err
		}})
	})
}

// tidy trims a text and makes every run of white space one space.
func tidy(s string) string { return strings.Join(strings.Fields(s), " ") }

func (m *Model) agentJob(title, action, id string, done func()) {
	m.start(job{pane: Agents, title: title, run: func(ctx context.Context) error {
		_, err := m.host.AgentAction(ctx, action, id)
		return err
	}, done: done})
}

func (m *Model) assignAgent(id string) { m.agentJob(m.t("agents.generating"), "assign", id, nil) }

func (m *Model) rotateAgentSheet(id string) {
	a, _ := m.agentByID(id)
	s := Sheet{Kind: "rotate", Tone: Danger, Title: m.t("agents.rotate.title", "name", a.Name), Text: []string{m.t("agents.rotate.text"), m.n("agents.keysdie", a.ActiveKeys)}}
	m.confirm(s, m.t("agents.rotate"), func(Input) {
		m.agentJob(m.t("agents.rotating"), "rotate", id, func() { m.say(Agents, Banner{Tone: Good, Title: m.t("agents.rotated", "name", a.Name)}) })
	})
}

func (m *Model) revokeAgentSheet(id string) {
	a, _ := m.agentByID(id)
	s := Sheet{Kind: "revoke", Tone: Danger, Title: m.t("agents.revoke.title", "name", a.Name), Text: []string{m.t("agents.revoke.text"), m.n("agents.keysdie", a.ActiveKeys)}}
	m.confirm(s, m.t("agents.revoke"), func(Input) {
		m.agentJob(m.t("agents.revoking"), "revoke", id, func() { m.say(Agents, Banner{Tone: Good, Title: m.t("agents.revoked", "name", a.Name)}) })
	})
}

// keyRows lists the keys of an agent, newest first; those that belong to none
// are listed for the zero address.
func (m *Model) keyRows(aud address.Address) []Row {
	keys := slices.Clone(m.facts.keys)
	slices.SortStableFunc(keys, func(a, b accesskey.Metadata) int { return cmp.Compare(b.CreatedAt, a.CreatedAt) })
	var rows []Row
	for _, k := range keys {
		_, isAgents := m.agentAt(k.Audience)
		if isAgents == !aud.IsZero() && (aud.IsZero() || k.Audience == aud) {
			rows = append(rows, m.keyRow(k))
		}
	}
	return rows
}

func (m *Model) keyRow(k accesskey.Metadata) Row {
	r := Row{ID: k.ID, Title: k.Label, Text: k.Prefix + "…", Badges: m.keyBadges(k)}
	if r.Title == "" {
		r.Title = m.t("keys.unnamed")
	}
	expiry := m.t("keys.never")
	if k.ExpiresAt != 0 {
		expiry = m.day(time.Unix(k.ExpiresAt, 0))
	}
	r.Facts = []Fact{{Label: m.t("common.created"), Value: m.day(time.Unix(k.CreatedAt, 0))}, {Label: m.t("keys.expires"), Value: expiry}}
	if !k.Revoked {
		r.Actions = []Action{{ID: "key-revoke:" + k.ID, Label: m.t("keys.revoke"), Tone: Danger}}
	}
	return r
}

func (m *Model) keyBadges(k accesskey.Metadata) []Badge {
	isAgent := func(a address.Address) bool { _, ok := m.agentAt(a); return ok }
	var list []Badge
	switch {
	case k.Revoked:
		list = append(list, Badge{m.t("keys.revoked"), Danger})
	case k.ExpiresAt != 0 && k.ExpiresAt <= m.env.Now().Unix():
		list = append(list, Badge{m.t("keys.expired"), Warn})
	case k.Audience != m.facts.identity.Address && k.Legacy(isAgent):
		list = append(list, Badge{m.t("keys.legacy"), Warn})
	default:
		list = append(list, Badge{m.t("keys.active"), Good})
	}
	if k.Temporary {
		list = append(list, Badge{m.t("keys.temporary"), Plain})
	}
	if !k.Audience.IsZero() && k.Audience == m.facts.identity.Address {
		list = append(list, Badge{m.t("keys.all"), Plain})
	}
	return list
}

func (m *Model) activeKeys() int {
	n, now := 0, m.env.Now().Unix()
	for _, k := range m.facts.keys {
		if !k.Revoked && (k.ExpiresAt == 0 || k.ExpiresAt > now) {
			n++
		}
	}
	return n
}

// createKeySheet is ID-11; agent "" is every agent.
func (m *Model) createKeySheet(agent string) {
	scope := m.t("keys.scope.all")
	if a, ok := m.agentByID(agent); ok {
		scope = m.t("keys.scope.agent", "name", a.Name)
	}
	terms := []Option{{string(accesskey.Days30), m.t("keys.30d"), ""}, {string(accesskey.Days90), m.t("keys.90d"), ""}, {string(accesskey.Year), m.t("keys.1y"), ""}, {string(accesskey.Never), m.t("keys.never"), m.t("keys.never.caption")}}
	s := Sheet{Kind: "key", Title: m.t("keys.create"), Text: []string{scope}, Fields: []Field{{Name: "label", Label: m.t("keys.label"), Kind: Line, Hint: m.t("keys.label.hint")}, {Name: "expiration", Label: m.t("keys.validity"), Kind: Choice, Value: string(accesskey.Days90), Options: terms}}}
	m.confirm(s, m.t("keys.create"), func(in Input) {
		label, exp := tidy(in.Values["label"]), accesskey.Expiration(in.Values["expiration"])
		switch _, err := accesskey.ParseExpiration(string(exp)); {
		case label == "":
			m.fail(m.t("error.name"))
			return
		case utf8.RuneCountInString(label) > maxLabel:
			m.fail(m.t("keys.label.hint"))
			return
		case err != nil:
			m.fail(m.t("keys.validity"))
			return
		}
		m.mintKey(control.MintKey{Agent: agent, Label: label, Expiration: exp})
	})
}

// mintKey shows the new key once. Nothing keeps it.
func (m *Model) mintKey(order control.MintKey) {
	var made control.NewKey
	m.start(job{pane: Agents, title: m.t("keys.creating"), run: func(ctx context.Context) (err error) {
		made, err = m.host.MintKey(ctx, order)
		return err
	}, done: func() {
		m.open(Sheet{Kind: "newkey", Title: m.t("keys.new"), Text: []string{m.t("keys.new.text")}, Secret: newSecret(made.Label, made.Token),
			Actions: []Action{{ID: "copy", Label: m.t("common.copy"), Effect: CopySecret, Primary: true}, {ID: "cancel", Label: m.t("keys.new.done")}}}, nil)
		made.Token = ""
	}})
}

func (m *Model) revokeKeySheet(id string) {
	name := id
	for _, k := range m.facts.keys {
		if k.ID == id {
			name = k.Label
		}
	}
	m.confirm(Sheet{Kind: "revokekey", Tone: Danger, Title: m.t("keys.revoke.title", "name", name), Text: []string{m.t("keys.revoke.text")}}, m.t("keys.revoke"), func(Input) {
		m.start(job{pane: Agents, title: m.t("keys.revoking"), run: func(ctx context.Context) error { return m.host.KeyAction(ctx, "revoke", id) }})
	})
}

// trustSection is ID-14: addresses that may issue keys besides the owner.
func (m *Model) trustSection() Section {
	s := Section{ID: "trust", Title: m.t("trust.title"), Caption: m.t("trust.text"), Empty: m.t("trust.none"), Actions: []Action{{ID: "trust-add", Label: m.t("trust.add")}}}
	for _, t := range m.facts.trusted {
		scope, id := m.t("trust.all"), ""
		if a, ok := m.agentAt(t.Audience); ok {
			scope, id = a.Name, a.ID
		} else if !t.Audience.IsZero() {
			scope, id = t.Audience.String(), t.Audience.String()
		}
		s.Rows = append(s.Rows, Row{ID: t.Issuer.String() + "@" + id, Title: t.Issuer.Short(), Text: scope, Address: t.Issuer.String(), Short: t.Issuer.Short(), Actions: []Action{{ID: "trust-remove:" + t.Issuer.String() + "@" + id, Label: m.t("trust.remove"), Tone: Danger}}})
	}
	return s
}

func (m *Model) trustSheet(string) {
	scopes := []Option{{"", m.t("trust.all"), ""}}
	for _, a := range m.facts.agents {
		if !a.BuiltIn && !a.Address.IsZero() {
			scopes = append(scopes, Option{a.ID, a.Name, a.Address.Short()})
		}
	}
	s := Sheet{Kind: "trust", Tone: Danger, Title: m.t("trust.add"), Text: []string{m.t("trust.add.text")}, Fields: []Field{{Name: "address", Label: m.t("common.address"), Kind: Line}, {Name: "agent", Label: m.t("trust.scope"), Kind: Choice, Options: scopes}}}
	m.confirm(s, m.t("trust.add"), func(in Input) {
		issuer, err := address.ParseChecksummed(strings.TrimSpace(in.Values["address"]))
		if err != nil || issuer.IsZero() {
			m.fail(m.t("trust.malformed"))
			return
		}
		order := control.Trust{Agent: in.Values["agent"], Issuer: issuer}
		m.start(job{pane: Agents, title: m.t("trust.adding"), run: func(ctx context.Context) error { return m.host.Trust(ctx, order) }})
	})
}

func (m *Model) distrustSheet(arg string) {
	text, agent, _ := strings.Cut(arg, "@")
	issuer, err := address.Parse(text)
	if err != nil {
		return
	}
	m.confirm(Sheet{Kind: "distrust", Tone: Danger, Title: m.t("trust.remove"), Text: []string{m.t("trust.remove.text")}, Facts: []Fact{{Label: m.t("common.address"), Value: text, Mono: true}}}, m.t("trust.remove"), func(Input) {
		m.start(job{pane: Agents, title: m.t("trust.remove"), run: func(ctx context.Context) error {
			return m.host.Distrust(ctx, control.Trust{Agent: agent, Issuer: issuer})
		}})
	})
}
