package panes

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"osaurus/engine/control"
	"osaurus/engine/pairing"
)

// peersPane is ID-15, and the relay that invites go through.
func (m *Model) peersPane() View {
	v := View{Title: m.t("peers.title"), Intro: m.t("peers.intro")}
	if !m.facts.known {
		return v
	}
	peers := Section{ID: "peers", Title: m.t("peers.list"), Caption: m.t("peers.text"), Empty: m.t("peers.none")}
	for _, p := range m.facts.peers {
		peers.Rows = append(peers.Rows, m.peerRow(p))
	}
	peers.Actions = []Action{{ID: "link-open", Label: m.t("link.open")}}
	v.Sections = []Section{peers, m.nearbySection(), m.relaySection(), m.invitesSection()}
	return v
}

func (m *Model) peerRow(p pairing.Peer) Row {
	expiry := m.t("keys.never")
	if p.Expires != 0 {
		expiry = m.day(time.Unix(p.Expires, 0))
	}
	used := m.t("common.never")
	if p.LastUsed != 0 {
		used = m.date(time.Unix(p.LastUsed, 0))
	}
	return Row{ID: p.Address.String(), Title: p.Name, Address: p.Address.String(), Short: p.Address.Short(), Facts: []Fact{
		{Label: m.t("peers.pinned"), Value: p.Address.String(), Mono: true, Copy: true}, {Label: m.t("peers.where"), Value: p.BaseURL, Mono: true}, {Label: m.t("peers.since"), Value: m.date(time.Unix(p.PairedAt, 0))}, {Label: m.t("peers.used"), Value: used}, {Label: m.t("keys.expires"), Value: expiry},
	}, Actions: []Action{{ID: "peer-forget:" + p.Address.String(), Label: m.t("peers.forget"), Tone: Danger}}}
}

func (m *Model) forgetPeerSheet(addr string) {
	name := addr
	for _, p := range m.facts.peers {
		if p.Address.String() == addr {
			name = p.Name
		}
	}
	s := Sheet{Kind: "forget", Tone: Danger, Title: m.t("peers.forget.title", "name", name), Text: []string{m.t("peers.forget.text")}, Facts: []Fact{{Label: m.t("peers.pinned"), Value: addr, Mono: true}}}
	m.confirm(s, m.t("peers.forget"), func(Input) {
		m.start(job{pane: Peers, title: m.t("peers.forgetting"), run: func(ctx context.Context) error { return m.host.ForgetPeer(ctx, addr) }})
	})
}

func (m *Model) invitesSection() Section {
	s := Section{ID: "invites", Title: m.t("invites.title"), Caption: m.t("invites.text"), Empty: m.t("invites.none"), Actions: []Action{{ID: "invite-create", Label: m.t("invites.create"), Primary: true, Off: m.ownAgents() == 0}}}
	if m.facts.inviteErr != nil {
		s.Caption = m.explain(m.facts.inviteErr)
	}
	list := slices.Clone(m.facts.invites)
	slices.SortStableFunc(list, func(a, b control.Invite) int { return b.Issued.Compare(a.Issued) })
	for _, in := range list {
		s.Rows = append(s.Rows, m.inviteRow(in))
	}
	return s
}

func (m *Model) inviteRow(in control.Invite) Row {
	r := Row{ID: "invite-" + in.ID, Title: in.Agent, Text: m.t("invites.id", "id", in.ID), Facts: []Fact{{Label: m.t("common.created"), Value: m.date(in.Issued)}, {Label: m.t("keys.expires"), Value: m.date(in.Expires)}}}
	if in.From != "" {
		r.Facts = append(r.Facts, Fact{Label: m.t("invites.from"), Value: in.From})
	}
	end := Action{ID: "invite-revoke:" + in.ID, Label: m.t("invites.revoke"), Tone: Danger}
	switch in.State {
	case pairing.InviteActive:
		r.Badges = []Badge{{m.t("invites.active"), Good}}
		r.Actions = []Action{{ID: "invite-show:" + in.ID, Label: m.t("invites.show")}, end}
	case pairing.InviteUsed:
		r.Badges, r.Actions = []Badge{{m.t("invites.used"), Plain}}, []Action{end}
	case pairing.InviteRevoked:
		r.Badges = []Badge{{m.t("invites.revoked"), Danger}}
	default:
		r.Badges = []Badge{{m.t("invites.expired"), Warn}}
	}
	return r
}

func (m *Model) inviteSheet(string) {
	var agents []Option
	for _, a := range m.facts.agents {
		if !a.BuiltIn && !a.Address.IsZero() {
			agents = append(agents, Option{a.ID, a.Name, a.Address.Short()})
		}
	}
	terms := []Option{{"1", m.t("invites.day"), ""}, {"7", m.t("invites.week"), ""}, {"30", m.t("invites.month"), ""}}
	s := Sheet{Kind: "invite", Title: m.t("invites.create"), Text: []string{m.t("invites.create.text")}, Fields: []Field{{Name: "agent", Label: m.t("invites.agent"), Kind: Choice, Options: agents}, {Name: "days", Label: m.t("keys.validity"), Kind: Choice, Value: "7", Options: terms}}}
	if len(agents) > 0 {
		s.Fields[0].Value = agents[0].Value
	}
	m.confirm(s, m.t("invites.create"), func(in Input) {
		days, err := strconv.Atoi(in.Values["days"])
		life := time.Duration(days) * 24 * time.Hour
		if err != nil || life < pairing.MinInvite || life > pairing.MaxInvite {
			m.fail(m.t("keys.validity"))
			return
		}
		agent := in.Values["agent"]
		m.linkJob(func(ctx context.Context) (control.Invite, error) {
			return m.host.CreateInvite(ctx, control.NewInvite{Agent: agent, Lifetime: life})
		})
	})
}

func (m *Model) showInvite(id string) {
	m.linkJob(func(ctx context.Context) (control.Invite, error) { return m.host.ShowInvite(ctx, id) })
}

// linkJob shows the link that get returns, as text and as a QR code. Whoever
// has it may use it once, so it is dismissed like a secret.
func (m *Model) linkJob(get func(ctx context.Context) (control.Invite, error)) {
	var made control.Invite
	m.start(job{pane: Peers, title: m.t("invites.creating"), run: func(ctx context.Context) (err error) {
		made, err = get(ctx)
		return err
	}, done: func() {
		m.open(Sheet{Kind: "link", Title: m.t("invites.link"), Text: []string{m.t("invites.link.text")}, Secret: newSecret(m.t("invites.link"), made.Link), QR: true,
			Actions: []Action{{ID: "copy", Label: m.t("common.copy"), Effect: CopySecret, Primary: true}, {ID: "cancel", Label: m.t("common.done")}}}, nil)
	}})
}

func (m *Model) revokeInviteSheet(id string) {
	m.confirm(Sheet{Kind: "revokeinvite", Tone: Danger, Title: m.t("invites.revoke"), Text: []string{m.t("invites.revoke.text")}}, m.t("invites.revoke"), func(Input) {
		m.start(job{pane: Peers, title: m.t("invites.revoke"), run: func(ctx context.Context) error { return m.host.RevokeInvite(ctx, id) }})
	})
}

// linkSheet asks for an osaurus:// link where no system hands one over.
func (m *Model) linkSheet(string) {
	s := Sheet{Kind: "openlink", Title: m.t("link.open"), Text: []string{m.t("link.open.text")}, Fields: []Field{{Name: "link", Label: m.t("link.link"), Kind: Line, Sensitive: true}}}
	m.confirm(s, m.t("link.look"), func(in Input) { m.lookAt(in.Values["link"]) })
}

// OpenLink shows what an osaurus:// link says (LNK-1). Nothing is sent before
// it is accepted.
func (m *Model) OpenLink(link string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sheet == nil {
		m.lookAt(link)
	}
	m.touch()
}

func (m *Model) lookAt(link string) {
	var in control.Offered
	m.start(job{pane: Peers, title: m.t("link.reading"), run: func(ctx context.Context) (err error) {
		in, err = m.host.LookAtLink(ctx, strings.TrimSpace(link))
		return err
	}, done: func() { m.acceptSheet(strings.TrimSpace(link), in) }})
}

// acceptSheet is LNK-1: name, address, host and expiry are somebody else's
// text.
func (m *Model) acceptSheet(link string, in control.Offered) {
	s := Sheet{Kind: "accept", Title: m.t("link.title"), Text: []string{m.t("link.text")}, Facts: []Fact{
		{Label: m.t("common.name"), Value: in.Name}, {Label: m.t("common.address"), Value: in.Address.String(), Mono: true}, {Label: m.t("link.host"), Value: in.URL, Mono: true}, {Label: m.t("keys.expires"), Value: m.date(in.Expires)}}}
	if in.Description != "" {
		s.Facts = append(s.Facts, Fact{Label: m.t("agents.description"), Value: in.Description})
	}
	if in.Paired != "" {
		s.Text = append(s.Text, m.t("link.paired", "name", in.Paired))
	}
	m.confirm(s, m.t("link.accept"), func(Input) {
		m.start(job{pane: Peers, title: m.t("link.accepting"), run: func(ctx context.Context) error {
			_, err := m.host.AcceptLink(ctx, control.Link{Link: link})
			return err
		}, done: func() { m.say(Peers, Banner{Tone: Good, Title: m.t("link.done")}) }})
	})
}
