package panes

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"osaurus/engine/control"
	"osaurus/engine/storage"
	"osaurus/engine/storage/sqlcipher"
)

// storagePane is ST-1 to ST-9.
func (m *Model) storagePane() View {
	v := View{Title: m.t("storage.title"), Intro: m.t("storage.intro")}
	f := m.facts
	if !f.known {
		return v
	}
	if f.storageErr != nil {
		v.Banners = append(v.Banners, Banner{ID: "storage-error", Tone: Danger, Title: m.t("storage.unreadable"), Lines: []string{m.explain(f.storageErr)}, Actions: []Action{{ID: "refresh", Label: m.t("common.retry")}}})
	}
	if f.storage.Key.Keystore == "unwrapped" {
		v.Banners = append(v.Banners, Banner{ID: "unwrapped", Tone: Warn, Title: m.t("keystore.unwrapped"), Text: m.t("keystore.unwrapped.text")})
	}
	v.Sections = append(v.Sections, m.storageStatus(), m.storesSection(), m.backupSection(), m.keySection(), m.switchSection(), m.maintenanceSection())
	if len(f.quarantine)+len(f.remains) > 0 {
		v.Sections = append(v.Sections, m.asideSection())
	}
	v.Sections = append(v.Sections, Section{ID: "about", Title: m.t("storage.about"), Rows: []Row{{ID: "what", Text: m.t("storage.about.what")}, {ID: "key", Text: m.t("storage.about.key")}, {ID: "move", Text: m.t("storage.about.move")}}})
	return v
}

// posture is what lies on disk, whatever was asked for.
func (m *Model) posture() (string, Tone) {
	encrypted, plain := 0, 0
	for _, s := range m.facts.storage.Stores {
		switch s.Format {
		case sqlcipher.Encrypted.String():
			encrypted++
		case sqlcipher.Plaintext.String():
			plain++
		}
	}
	switch {
	case encrypted > 0 && plain > 0:
		return m.t("storage.mixed"), Warn
	case encrypted > 0:
		return m.t("storage.encrypted"), Good
	case plain > 0:
		return m.t("storage.plaintext"), Warn
	}
	return m.t("storage.empty"), Plain
}

func (m *Model) storageStatus() Section {
	word, tone := m.posture()
	key := map[storage.KeyState]string{storage.KeyReady: m.t("storage.key.ready"), storage.KeyFresh: m.t("storage.key.none"), storage.KeyLocked: m.t("storage.key.locked"), storage.KeyMissing: m.t("storage.key.missing")}
	k := m.facts.storage.Key
	s := Section{ID: "status", Title: m.t("storage.status"), Rows: []Row{{ID: "posture", Title: m.t("storage.posture"), Badges: []Badge{{word, tone}}}}}
	if k.State == storage.KeyMissing || k.State == storage.KeyLocked {
		s.Tone = Danger
	}
	s.Facts = []Fact{{Label: m.t("storage.key"), Value: key[k.State]}, {Label: m.t("storage.key.id"), Value: k.ID, Mono: true}, {Label: m.t("device.keystore"), Value: m.keystore(k.Keystore)}, {Label: m.t("storage.key.item"), Value: storage.KeyItem, Mono: true}, {Label: m.t("storage.cipher"), Value: m.t("storage.cipher.text")}}
	return s
}

func (m *Model) storesSection() Section {
	s := Section{ID: "stores", Title: m.t("storage.stores")}
	for _, st := range m.facts.storage.Stores {
		r := Row{ID: string(st.ID), Title: m.storeName(st.ID), Text: m.storeState(st), Facts: []Fact{{Label: m.t("storage.size"), Value: size(st.Bytes)}, {Label: m.t("storage.file"), Value: st.Path, Mono: true}}}
		if st.Issue != "" {
			r.Badges = []Badge{m.issueBadge(st.Issue)}
			r.Text = st.Issue.Explain()
			r.Actions = []Action{{ID: "store-retry:" + r.ID, Label: m.t("common.retry")}}
			if st.Issue == storage.IssueUnexpectedPlaintext {
				r.Actions = append(r.Actions, Action{ID: "store-accept:" + r.ID, Label: m.t("storage.accept")})
			}
			r.Actions = append(r.Actions, Action{ID: "store-reset:" + r.ID, Label: m.t("storage.reset"), Tone: Danger})
		}
		s.Rows = append(s.Rows, r)
	}
	return s
}

func (m *Model) issueBadge(k storage.IssueKind) Badge {
	switch k {
	case storage.IssueLocked:
		return Badge{m.t("badge.locked"), Warn}
	case storage.IssueCorrupt, storage.IssueMissing:
		return Badge{m.t("badge.corrupt"), Danger}
	case storage.IssueMigration, storage.IssueForwardVersion:
		return Badge{m.t("badge.migration"), Warn}
	case storage.IssueUnexpectedPlaintext, storage.IssueUnsafePath, storage.IssueUnknown:
	}
	return Badge{m.t("badge.error"), Danger}
}

func (m *Model) storeState(s storage.StoreStatus) string {
	switch s.State {
	case storage.StateNew:
		return m.t("storage.state.new")
	case storage.StateConverts:
		return m.t("storage.state.converts")
	}
	return m.t("storage.state.ready", "format", s.Format)
}

func (m *Model) storeName(id storage.ID) string {
	kind, name, has := strings.Cut(string(id), ":")
	switch {
	case kind == "agent" && has:
		if a, ok := m.agentByID(strings.ToUpper(name)); ok {
			name = a.Name
		}
		return m.t("storage.store.agent", "name", name)
	case kind == "plugin" && has:
		return m.t("storage.store.plugin", "name", name)
	}
	known := map[string]string{"chat-history": m.t("storage.store.chats"), "memory": m.t("storage.store.memory"), "methods": m.t("storage.store.methods"), "tool-index": m.t("storage.store.tools"), "scheduler": m.t("storage.store.scheduler")}
	if known[kind] != "" {
		return known[kind]
	}
	return string(id)
}

func (m *Model) backupSection() Section {
	s := Section{ID: "backup", Title: m.t("export.title"), Caption: m.t("export.text"), Actions: []Action{{ID: "storage-export", Label: m.t("export.action"), Primary: true}}}
	if m.exported {
		s.Rows = []Row{{ID: "exported", Title: m.t("export.session"), Badges: []Badge{{m.t("export.done.badge"), Good}}}}
	}
	return s
}

func (m *Model) keySection() Section {
	return Section{ID: "key", Title: m.t("rotate.title"), Caption: m.t("rotate.text"), Actions: []Action{{ID: "storage-rotate", Label: m.t("rotate.action"), Off: m.facts.storage.Key.State != storage.KeyReady}}}
}

func (m *Model) switchSection() Section {
	s := Section{ID: "encryption", Title: m.t("encryption.title"), Caption: m.t("encryption.on")}
	if m.facts.storage.Posture == storage.PosturePlaintext {
		s.Caption, s.Actions = m.t("encryption.off"), []Action{{ID: "storage-encrypt", Label: m.t("encryption.encrypt"), Primary: true}}
		return s
	}
	s.Actions = []Action{{ID: "storage-decrypt", Label: m.t("encryption.decrypt"), Tone: Danger}}
	return s
}

func (m *Model) maintenanceSection() Section {
	s := Section{ID: "maintenance", Title: m.t("maintain.title"), Caption: m.t("maintain.text"), Empty: m.t("maintain.never"), Actions: []Action{{ID: "storage-maintain", Label: m.t("maintain.action")}, {ID: "storage-verify", Label: m.t("verify.action")}}}
	for _, l := range m.facts.maintained {
		s.Rows = append(s.Rows, Row{ID: "maintained-" + string(l.Store), Title: m.storeName(l.Store), Facts: []Fact{
			{Label: m.t("maintain.optimize"), Value: m.when(l.Optimize)}, {Label: m.t("maintain.checkpoint"), Value: m.when(l.Checkpoint)}, {Label: m.t("maintain.vacuum"), Value: m.when(l.Vacuum)}, {Label: m.t("verify.last"), Value: m.when(l.Verify)}}})
	}
	return s
}

func (m *Model) when(t time.Time) string {
	if t.IsZero() {
		return m.t("common.never")
	}
	return m.date(t)
}

// asideSection lists what was set aside, and what an older host left in clear.
func (m *Model) asideSection() Section {
	s := Section{ID: "aside", Title: m.t("aside.title"), Caption: m.t("aside.text")}
	for _, q := range m.facts.quarantine {
		s.Rows = append(s.Rows, Row{ID: "aside-" + q.Path + q.MovedAt.String(), Title: m.storeName(q.Store), Text: q.Reason, Facts: []Fact{{Label: m.t("aside.moved"), Value: m.date(q.MovedAt)}, {Label: m.t("storage.file"), Value: q.Path, Mono: true}}})
	}
	for _, r := range m.facts.remains {
		row := Row{ID: "remains-" + r.Path, Title: r.Path, Text: m.t("remains.text"), Facts: []Fact{{Label: m.t("storage.size"), Value: size(r.Bytes)}}, Actions: []Action{{ID: "remains-delete:" + r.Path, Label: m.t("remains.delete"), Tone: Danger}}}
		if !r.Kept {
			row.Actions = append(row.Actions, Action{ID: "remains-keep:" + r.Path, Label: m.t("remains.keep")})
		}
		s.Rows = append(s.Rows, row)
	}
	return s
}

// operationName says what runs, also when another program began it.
func (m *Model) operationName(op string) string {
	names := map[string]string{"rotate": m.t("rotate.working"), "export": m.t("export.working"), "migrate": m.t("encryption.encrypting"), "posture": m.t("encryption.converting"), "encrypt": m.t("encryption.encrypting"), "decrypt": m.t("encryption.decrypting"), "verify": m.t("verify.working"), "maintain": m.t("maintain.working")}
	if names[op] != "" {
		return names[op]
	}
	return m.t("storage.operation")
}

// operate runs an operation over all stores with its progress.
func (m *Model) operate(order control.StorageOrder, cancels bool, done func(control.StorageDone)) {
	var out control.StorageDone
	m.start(job{pane: Storage, title: m.operationName(order.What), cancels: cancels, run: func(ctx context.Context) (err error) {
		out, err = m.host.OperateStorage(ctx, order, m.progress)
		return err
	}, done: func() { done(out) }})
	m.closeSheet()
}

func (m *Model) progress(p storage.Progress) {
	m.update(func() {
		if w := m.working; w != nil {
			w.Done, w.Total = p.Done, p.Total
			if w.Cancel != nil || w.Text == "" || w.Text != m.t("common.cancelling") {
				w.Text = m.t("storage.progress", "what", p.Label, "done", size(p.Done), "total", size(p.Total))
			}
		}
	})
}

// exportSheet is ST-4.
func (m *Model) exportSheet(string) { m.exportThen(nil) }

// exportThen exports, and then goes on with what the export was offered for.
func (m *Model) exportThen(next func()) {
	kinds := []Option{{"folder", m.t("export.folder"), m.t("export.folder.caption")}, {"tar", m.t("export.tar"), m.t("export.tar.caption")}, {"age", m.t("export.age"), m.t("export.age.caption")}}
	s := Sheet{Kind: "export", Title: m.t("export.title"), Text: []string{m.t("export.warning")}, Fields: []Field{{Name: "dest", Label: m.t("export.dest"), Kind: Folder, Value: m.env.Home}, {Name: "kind", Label: m.t("export.kind"), Kind: Choice, Value: "folder", Options: kinds}, {Name: "recipients", Label: m.t("export.recipients"), Hint: m.t("export.recipients.hint"), Kind: Line}}}
	m.confirm(s, m.t("export.action"), func(in Input) {
		order := control.StorageOrder{What: "export", Dest: in.Values["dest"], Recipients: strings.Fields(in.Values["recipients"])}
		order.Tar = in.Values["kind"] == "tar"
		switch {
		case !filepath.IsAbs(order.Dest):
			m.fail(m.t("error.path"))
			return
		case in.Values["kind"] == "age" && len(order.Recipients) == 0:
			m.fail(m.t("export.recipients.hint"))
			return
		case in.Values["kind"] != "age":
			order.Recipients = nil
		}
		m.operate(order, true, func(d control.StorageDone) {
			m.exportDone(d)
			if next != nil {
				next()
			}
		})
	})
}

func (m *Model) exportDone(d control.StorageDone) {
	b := Banner{Tone: Good, Title: m.t("export.done"), Text: m.t("export.counts", "stores", m.n("export.databases", d.Stores), "blobs", m.n("export.blobs", d.Attachments), "files", m.n("export.files", d.Files), "bytes", size(d.Bytes), "path", d.Path)}
	if len(d.Missing) > 0 {
		b.Tone, b.Title, b.Lines = Warn, m.t("export.incomplete"), d.Missing
	} else {
		m.exported = true
	}
	m.say(Storage, b)
}

// rotateStorageSheet is ST-5. Without a backup of this session it offers one.
func (m *Model) rotateStorageSheet(string) {
	s := Sheet{Kind: "rotatekey", Tone: Danger, Title: m.t("rotate.title"), Text: []string{m.t("rotate.explain"), m.t("rotate.backups")}}
	rotate := func(Input) {
		m.operate(control.StorageOrder{What: "rotate"}, false, func(d control.StorageDone) {
			b := Banner{Tone: Good, Title: m.t("rotate.done"), Text: m.t("rotate.counts", "id", d.NewKeyID, "stores", m.n("export.databases", d.Stores), "files", m.n("export.files", d.Files))}
			if len(d.Unread) > 0 {
				b.Tone, b.Lines = Warn, d.Unread
			}
			m.say(Storage, b)
		})
	}
	if m.exported {
		m.confirm(s, m.t("rotate.action"), rotate)
		return
	}
	s.Text = append(s.Text, m.t("rotate.nobackup"))
	s.Actions = []Action{{ID: "export", Label: m.t("rotate.exportfirst"), Primary: true}}
	m.confirm(s, m.t("rotate.without"), rotate)
	m.sheet.do["export"] = func(Input) { m.exportThen(func() { m.rotateStorageSheet("") }) }
}

// decryptSheet is ST-6 towards plaintext: it says what protects the data then.
func (m *Model) decryptSheet(string) {
	disk := map[DiskState]string{DiskUnknown: m.t("disk.unknown"), DiskPlain: m.t("disk.plain"), DiskEncrypted: m.t("disk.encrypted")}
	s := Sheet{Kind: "decrypt", Tone: Danger, Title: m.t("encryption.decrypt"), Text: []string{m.t("encryption.decrypt.text"), disk[m.disk]}}
	m.confirm(s, m.t("encryption.decrypt"), func(Input) {
		m.operate(control.StorageOrder{What: "decrypt"}, false, func(d control.StorageDone) { m.converted(m.t("encryption.decrypted"), d) })
	})
}

func (m *Model) encryptSheet(string) {
	s := Sheet{Kind: "encrypt", Title: m.t("encryption.encrypt"), Text: []string{m.t("encryption.encrypt.text"), m.t("encryption.loss")}}
	m.confirm(s, m.t("encryption.encrypt"), func(Input) {
		m.operate(control.StorageOrder{What: "encrypt"}, false, func(d control.StorageDone) { m.converted(m.t("encryption.encrypted"), d) })
	})
}

func (m *Model) converted(title string, d control.StorageDone) {
	b := Banner{Tone: Good, Title: title, Text: m.n("export.databases", len(d.Converted))}
	for _, i := range d.Issues {
		b.Tone = Danger
		b.Lines = append(b.Lines, m.storeName(i.Store)+": "+i.Issue.Explain())
	}
	m.say(Storage, b)
}

func (m *Model) maintain(string) {
	m.operate(control.StorageOrder{What: "maintain"}, false, func(control.StorageDone) {
		m.say(Storage, Banner{Tone: Good, Title: m.t("maintain.done")})
	})
}

func (m *Model) verify(string) {
	m.operate(control.StorageOrder{What: "verify"}, true, func(d control.StorageDone) {
		b := Banner{Tone: Good, Title: m.t("verify.done")}
		if len(d.Issues)+len(d.Unread) > 0 {
			b.Tone, b.Title, b.Lines = Danger, m.t("verify.bad"), d.Unread
			for _, i := range d.Issues {
				b.Lines = append(b.Lines, m.storeName(i.Store)+": "+i.Issue.Explain())
			}
		}
		m.say(Storage, b)
	})
}

func (m *Model) recoverStore(id, action, title string) {
	m.start(job{pane: Storage, title: title, run: func(ctx context.Context) error {
		return m.host.RecoverStore(ctx, control.RecoverStore{Store: storage.ID(id), Action: action})
	}})
}

func (m *Model) retryStore(id string) { m.recoverStore(id, "retry", m.t("storage.retrying")) }

// resetStoreSheet moves a store aside; it never deletes it.
func (m *Model) resetStoreSheet(id string) {
	s := Sheet{Kind: "resetstore", Tone: Danger, Title: m.t("storage.reset.title", "name", m.storeName(storage.ID(id))), Text: []string{m.t("storage.reset.text")}}
	m.confirm(s, m.t("storage.reset"), func(Input) { m.recoverStore(id, "reset", m.t("storage.resetting")) })
}

func (m *Model) acceptStoreSheet(id string) {
	s := Sheet{Kind: "acceptstore", Tone: Danger, Title: m.t("storage.accept.title", "name", m.storeName(storage.ID(id))), Text: []string{m.t("storage.accept.text")}}
	m.confirm(s, m.t("storage.accept"), func(Input) { m.recoverStore(id, "accept", m.t("storage.accepting")) })
}

func (m *Model) settleRemains(path string, keepIt bool) {
	m.start(job{pane: Storage, title: m.t("remains.working"), run: func(ctx context.Context) error {
		return m.host.SettleRemains(ctx, control.SettleRemains{Path: path, Keep: keepIt})
	}})
}

func (m *Model) keepRemains(path string) { m.settleRemains(path, true) }

func (m *Model) deleteRemainsSheet(path string) {
	s := Sheet{Kind: "remains", Tone: Danger, Title: m.t("remains.delete"), Text: []string{m.t("remains.delete.text")}, Facts: []Fact{{Label: m.t("storage.file"), Value: path, Mono: true}}}
	m.confirm(s, m.t("remains.delete"), func(Input) { m.settleRemains(path, false) })
}

// size writes a number of bytes for people.
func size(n int64) string {
	const k = 1024
	switch {
	case n < k:
		return fmt.Sprintf("%d B", n)
	case n < k*k:
		return fmt.Sprintf("%.1f KB", float64(n)/k)
	case n < k*k*k:
		return fmt.Sprintf("%.1f MB", float64(n)/(k*k))
	}
	return fmt.Sprintf("%.1f GB", float64(n)/(k*k*k))
}
