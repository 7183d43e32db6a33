package panes

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/atomicfile"
	"osaurus/engine/control"
	"osaurus/engine/identity"
	"osaurus/engine/keystore"
	"osaurus/engine/secret"
)

// phraseFile is the suggested name of a saved phrase.
const phraseFile = "osaurus-recovery-phrase.txt"

// identityPane is ID-1 to ID-7, ID-13 and ID-16.
func (m *Model) identityPane() View {
	v := View{Title: m.t("identity.title"), Intro: m.t("identity.intro")}
	f := m.facts
	switch {
	case !f.known:
		if f.err == nil {
			v.Sections = []Section{{ID: "checking", Title: m.t("identity.checking")}}
		}
		return v
	case f.identityErr != nil, f.identity.State == identity.Locked.String(), f.identity.State == identity.Missing.String():
		v.Banners = append(v.Banners, m.identityError())
	case f.identity.State == identity.None.String():
		v.Sections = append(v.Sections, m.setupCard())
	default:
		v.Banners = append(v.Banners, m.identityBanners()...)
		v.Sections = append(v.Sections, m.masterCard())
	}
	v.Sections = append(v.Sections, m.deviceCard())
	if f.identityErr == nil && f.identity.State != identity.None.String() {
		v.Sections = append(v.Sections, m.dangerZone())
	}
	return v
}

// identityError is a keystore that cannot be read or a key that is gone: it
// never looks like having no identity, and offers to create none.
func (m *Model) identityError() Banner {
	b := Banner{ID: "identity-error", Tone: Danger, Title: m.t("identity.unreadable"), Actions: []Action{{ID: "refresh", Label: m.t("common.retry"), Primary: true}}}
	switch {
	case m.facts.identityErr != nil:
		b.Lines = []string{m.explain(m.facts.identityErr)}
	case m.facts.identity.State == identity.Missing.String():
		b.Title, b.Text = m.t("identity.missing"), m.t("identity.missing.text")
		b.Actions = append(b.Actions, m.recoverAction())
	default:
		b.Title, b.Text = m.t("identity.locked"), m.t("identity.locked.text")
	}
	return b
}

func (m *Model) recoverAction() Action {
	return Action{ID: "identity-recover", Label: m.t("recover.action")}
}

func (m *Model) setupCard() Section {
	return Section{ID: "setup", Title: m.t("setup.title"), Caption: m.t("setup.text"), Actions: []Action{{ID: "identity-create", Label: m.t("setup.create"), Primary: true}, m.recoverAction()}}
}

func (m *Model) identityBanners() []Banner {
	var list []Banner
	id := m.facts.identity
	if b, ok := m.driftBanner(); ok {
		list = append(list, b)
	}
	if !id.Acknowledged {
		list = append(list, Banner{ID: "backup", Tone: Warn, Title: m.t("backup.title"), Text: m.t("backup.text"), Actions: []Action{{ID: "phrase-show", Label: m.t("backup.show"), Primary: true}}})
	}
	if id.Replaced {
		list = append(list, Banner{ID: "replaced", Tone: Warn, Title: m.t("replaced.title"), Text: m.t("replaced.text"), Actions: []Action{{ID: "replaced-drop", Label: m.t("replaced.drop")}, {ID: "replaced-undo", Label: m.t("replaced.undo")}}})
	}
	if n := m.facts.drift.ScopesRestored; n > 0 {
		list = append(list, Banner{ID: "scopes", Tone: Good, Title: m.n("drift.scopes", n)})
	}
	return list
}

// driftCount is one line: agents only, keys only, or both.
func (m *Model) driftCount(d control.Drift) string {
	agents, keys := m.n("drift.agents", len(d.Mismatched)), m.n("drift.keys", len(d.StaleKeys))
	switch {
	case len(d.StaleKeys) == 0:
		return m.t("drift.one", "what", agents)
	case len(d.Mismatched) == 0:
		return m.t("drift.one", "what", keys)
	}
	return m.t("drift.both", "agents", agents, "keys", keys)
}

func (m *Model) driftBanner() (Banner, bool) {
	d := m.facts.drift
	if len(d.Mismatched)+len(d.StaleKeys) == 0 {
		return Banner{}, false
	}
	return Banner{ID: "drift", Tone: Danger, Title: m.driftCount(d), Text: m.t("drift.text"), Actions: []Action{
		m.recoverAction(), {ID: "drift-repair", Label: m.t("drift.repair")}, {ID: "identity-reset", Label: m.t("reset.action"), Tone: Danger},
	}}, true
}

func (m *Model) masterCard() Section {
	id := m.facts.identity
	s := Section{ID: "master", Title: m.t("master.title"), Caption: m.t("master.text"), Facts: []Fact{{Label: m.t("common.address"), Value: id.Address.String(), Mono: true, Copy: true}}, Actions: []Action{{ID: "drift-check", Label: m.t("drift.check")}}}
	if !id.Created.IsZero() {
		s.Facts = append(s.Facts, Fact{Label: m.t("common.created"), Value: m.date(id.Created)})
	}
	backup, health := m.t("master.saved"), m.t("master.healthy")
	if !id.Acknowledged {
		backup = m.t("master.unsaved")
	}
	if d := m.facts.drift; len(d.Mismatched)+len(d.StaleKeys) > 0 {
		health = m.driftCount(d)
	}
	s.Facts = append(s.Facts, Fact{Label: m.t("master.backup"), Value: backup}, Fact{Label: m.t("master.health"), Value: health})
	return s
}

func (m *Model) deviceCard() Section {
	id, kind := m.facts.identity, m.t("device.software")
	if id.Hardware {
		kind = m.t("device.hardware")
	}
	return Section{ID: "device", Title: m.t("device.title"), Facts: []Fact{{Label: m.t("common.name"), Value: id.DeviceName}, {Label: m.t("device.id"), Value: id.DeviceID, Mono: true, Copy: true}, {Label: m.t("device.key"), Value: kind}, {Label: m.t("device.keystore"), Value: m.keystore(m.facts.status.Keystore)}}}
}

func (m *Model) dangerZone() Section {
	return Section{ID: "danger", Tone: Danger, Title: m.t("danger.title"), Caption: m.t("danger.text"), Actions: []Action{m.recoverAction(), {ID: "identity-reset", Label: m.t("reset.action"), Tone: Danger}}}
}

func (m *Model) createIdentity(string) {
	var made control.NewIdentity
	m.start(job{pane: Identity, title: m.t("setup.creating"), run: func(ctx context.Context) (err error) {
		made, err = m.host.CreateIdentity(ctx)
		if made.Phrase != "" {
			err = nil // the phrase is shown whatever failed after it; the panes say what did
		}
		return err
	}, done: func() { m.phraseSheet(made); made = control.NewIdentity{} }})
}

func (m *Model) showPhrase(string) {
	var shown control.NewIdentity
	m.start(job{pane: Identity, title: m.t("backup.reading"), run: func(ctx context.Context) (err error) {
		shown, err = m.host.Phrase(ctx)
		return err
	}, done: func() { m.phraseSheet(shown); shown = control.NewIdentity{} }})
}

// phraseSheet is ID-3: it is shown once, and its words leave memory with it.
func (m *Model) phraseSheet(n control.NewIdentity) {
	s := Sheet{Kind: "phrase", Title: m.t("phrase.title"), Text: []string{m.t("phrase.text")}, Secret: newSecret(m.t("phrase.label"), n.Phrase),
		Facts:  []Fact{{Label: m.t("common.address"), Value: n.Address.String(), Mono: true, Copy: true}, {Label: m.t("common.created"), Value: m.date(m.env.Now())}},
		Fields: []Field{{Name: "file", Label: m.t("phrase.file"), Hint: m.t("phrase.file.hint"), Kind: NewFile, Value: filepath.Join(m.env.Home, phraseFile)}},
		Actions: []Action{
			{ID: "copy", Label: m.t("common.copy"), Effect: CopySecret}, {ID: "save", Label: m.t("phrase.save")}, {ID: "print", Label: m.t("common.print"), Effect: Print},
			{ID: "saved", Label: m.t("phrase.saved"), Primary: true}, {ID: "cancel", Label: m.t("phrase.later")},
		}}
	if n.RecoveryCode != "" {
		s.Secret.Code = newSecret(m.t("phrase.code"), n.RecoveryCode)
		s.Text = append(s.Text, m.t("phrase.code.text"))
	}
	m.open(s, map[string]func(Input){
		"saved": func(Input) {
			m.start(job{pane: Identity, title: m.t("phrase.saved"), run: m.host.Acknowledge})
		},
		"save": func(in Input) { m.savePhrase(in.Values["file"]) },
	})
}

// savePhrase writes a file that only the owner can read, and replaces none.
func (m *Model) savePhrase(path string) {
	if !filepath.IsAbs(path) {
		m.fail(m.t("error.path"))
		return
	}
	s := m.sheet
	text := secret.New([]byte(m.phraseText(s)))
	defer text.Destroy()
	if err := saveNew(path, text.Expose()); err != nil {
		m.fail(m.t("phrase.notsaved", "why", err.Error()))
		return
	}
	s.Facts = append(s.Facts[:2:2], Fact{Label: m.t("phrase.savedto"), Value: path, Mono: true})
}

func (m *Model) phraseText(s *sheet) string {
	text := m.t("phrase.label") + "\n\n"
	for i, w := range s.Secret.Words() {
		text += strconv.Itoa(i+1) + ". " + w + "\n"
	}
	text += "\n" + s.Facts[0].Value + "\n" + s.Facts[1].Value + "\n"
	if c := s.Secret.Code.Text(); c != "" {
		text += "\n" + m.t("phrase.code") + ": " + c + "\n" + m.t("phrase.code.text") + "\n"
	}
	return text
}

// recoverSheet is ID-12.
func (m *Model) recoverSheet(string) {
	s := Sheet{Kind: "recover", Title: m.t("recover.title"), Text: []string{m.t("recover.text")}, Fields: []Field{{Name: "phrase", Label: m.t("recover.phrase"), Kind: Lines, Sensitive: true, Live: true, Hint: m.t("recover.count", "n", "0")}},
		Actions: []Action{{ID: "paste", Label: m.t("common.paste"), Effect: Paste, Field: "phrase"}}}
	m.confirm(s, m.t("recover.confirm"), func(in Input) { m.recover(in, false) })
	m.sheet.do["anyway"] = func(in Input) { m.recover(in, true) }
}

// recover reads the phrase here, so that a mistake is named before anything is
// sent. A phrase of another identity shows both addresses and needs its own
// button.
func (m *Model) recover(in Input, anyway bool) {
	typed := secret.New([]byte(in.Values["phrase"]))
	defer typed.Destroy()
	master, err := identity.ParsePhrase(typed)
	if err != nil {
		m.fail(m.phraseProblem(err))
		return
	}
	addr := master.Address()
	master.Destroy()
	phrase := in.Values["phrase"]
	var got control.Identity
	m.start(job{pane: Identity, title: m.t("recover.working"), run: func(ctx context.Context) (err error) {
		got, err = m.host.RestoreIdentity(ctx, control.Restore{Phrase: phrase, Anyway: anyway})
		phrase = ""
		if e, ok := errors.AsType[*control.Error](err); ok && e.Code == "foreign_phrase" {
			m.update(func() { m.offerAnyway(addr) })
			return errors.New(m.t("recover.foreign"))
		}
		return err
	}, done: func() { m.recovered(got) }})
}

func (m *Model) recovered(got control.Identity) {
	b := Banner{Tone: Good, Title: m.t("recover.done"), Text: got.Address.String()}
	if got.Forgetful {
		b.Text = m.t("recover.forgetful")
		b.Actions = []Action{{ID: "keys-refuse", Label: m.t("refuse.action")}}
	}
	m.say(Identity, b)
}

func (m *Model) offerAnyway(of address.Address) {
	if m.sheet == nil || m.sheet.Kind != "recover" {
		return
	}
	s := m.sheet
	stored := m.t("recover.unknown")
	if a := m.facts.identity.Address; !a.IsZero() {
		stored = a.String()
	}
	s.Facts = []Fact{{Label: m.t("recover.ofphrase"), Value: of.String(), Mono: true}, {Label: m.t("recover.ofhost"), Value: stored, Mono: true}}
	if len(s.Actions) == 3 {
		s.Actions = []Action{s.Actions[0], s.Actions[1], {ID: "anyway", Label: m.t("recover.anyway"), Tone: Danger, Off: true}, s.Actions[2]}
	}
}

func (m *Model) phraseProblem(err error) string {
	p, ok := errors.AsType[*identity.PhraseError](err)
	switch {
	case !ok:
		return m.explain(err)
	case p.TooLong:
		return m.t("recover.toolong")
	case p.Words != identity.PhraseWords:
		return m.t("recover.words", "n", strconv.Itoa(p.Words))
	case p.Word > 0:
		return m.t("recover.word", "n", strconv.Itoa(p.Word))
	}
	return m.t("recover.checksum")
}

// resetSheet is ID-16: it takes a word to be typed, and says what is lost.
func (m *Model) resetSheet(string) {
	s := Sheet{Kind: "reset", Tone: Danger, Title: m.t("reset.title"), Text: []string{m.t("reset.text"), m.n("reset.agents", m.ownAgents()), m.n("reset.keys", m.activeKeys())}, Fields: []Field{{Name: "word", Label: m.t("reset.type", "word", m.t("reset.word")), Kind: Line}}}
	m.confirm(s, m.t("reset.action"), func(in Input) {
		if in.Values["word"] != m.t("reset.word") {
			m.fail(m.t("reset.type", "word", m.t("reset.word")))
			return
		}
		m.start(job{pane: Identity, title: m.t("reset.working"), run: m.host.ResetIdentity, done: func() { m.say(Identity, Banner{Tone: Good, Title: m.t("reset.done")}) }})
	})
}

// repairSheet names both counts, and repairs what was shown and nothing else.
func (m *Model) repairSheet(string) {
	d := m.facts.drift
	s := Sheet{Kind: "repair", Tone: Danger, Title: m.t("drift.repair.title"), Text: []string{m.n("drift.repair.agents", len(d.Mismatched)), m.n("drift.repair.keys", len(d.StaleKeys)), m.t("drift.repair.text")}}
	m.confirm(s, m.t("drift.repair"), func(Input) {
		var done control.Repaired
		m.start(job{pane: Identity, title: m.t("drift.repairing"), run: func(ctx context.Context) (err error) {
			done, err = m.host.Repair(ctx, control.Drift{Mismatched: d.Mismatched, StaleKeys: d.StaleKeys})
			return err
		}, done: func() { m.repaired(done) }})
	})
}

func (m *Model) repaired(r control.Repaired) {
	b := Banner{Tone: Good, Title: m.t("drift.repaired"), Text: m.n("drift.moved", len(r.Moved)) + " " + m.n("drift.revoked", r.KeysRevoked), Lines: r.Failed}
	if len(r.Failed) > 0 {
		b.Tone, b.Title = Warn, m.n("drift.repairerrors", len(r.Failed))
	}
	m.say(Identity, b)
}

func (m *Model) checkDrift(string) {
	m.start(job{pane: Identity, title: m.t("drift.checking"), run: func(ctx context.Context) error {
		_, err := m.host.Drift(ctx)
		return err
	}})
}

func (m *Model) dropReplacedSheet(string) {
	m.confirm(Sheet{Tone: Danger, Title: m.t("replaced.drop"), Text: []string{m.t("replaced.drop.text")}}, m.t("replaced.drop"), func(Input) {
		m.start(job{pane: Identity, title: m.t("replaced.drop"), run: m.host.ConfirmReplacement})
	})
}

func (m *Model) undoReplacedSheet(string) {
	m.confirm(Sheet{Tone: Danger, Title: m.t("replaced.undo"), Text: []string{m.t("replaced.undo.text")}}, m.t("replaced.undo"), func(Input) {
		m.start(job{pane: Identity, title: m.t("replaced.undo"), run: func(ctx context.Context) error {
			_, err := m.host.UndoReplacement(ctx)
			return err
		}})
	})
}

// refuseKeysSheet ends every key issued until now: after a restore nobody
// knows which were revoked.
func (m *Model) refuseKeysSheet(string) {
	m.confirm(Sheet{Tone: Danger, Title: m.t("refuse.action"), Text: []string{m.t("refuse.text"), m.n("reset.keys", m.activeKeys())}}, m.t("refuse.action"), func(Input) {
		m.start(job{pane: Identity, title: m.t("refuse.action"), run: func(ctx context.Context) error {
			return m.host.RefuseKeysBefore(ctx, m.env.Now())
		}, done: func() { m.say(Identity, Banner{Tone: Good, Title: m.t("refuse.done")}) }})
	})
}

func (m *Model) date(t time.Time) string { return t.Local().Format("2 Jan 2006, 15:04") }

func (m *Model) day(t time.Time) string { return t.Local().Format("2 Jan 2006") }

// keystore says how well secrets are kept (decisions D10).
func (m *Model) keystore(strength string) string {
	words := map[string]string{keystore.Unwrapped.String(): m.t("keystore.unwrapped"), keystore.Passphrase.String(): m.t("keystore.passphrase"), keystore.LoginSession.String(): m.t("keystore.session"), keystore.Hardware.String(): m.t("keystore.hardware")}
	if w, ok := words[strength]; ok {
		return w
	}
	return strength
}

// saveNew writes a file, and refuses to replace one.
func saveNew(path string, content []byte) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fs.ErrExist
	}
	return atomicfile.Write(path, content)
}
