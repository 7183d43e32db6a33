// Package panes holds the models of the settings panes, the approval of a
// pairing, the menu bar and the notifications: what shows, what may be done,
// what is asked first, and every text. Renderers draw a View and give the IDs
// of its actions back; they decide nothing. Everything is asked of a running
// host over its control socket.
package panes

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"osaurus/engine/control"
	"osaurus/engine/discovery"
)

// Errors of Do.
var (
	ErrNotOffered = errors.New("nothing offers this action now")
	ErrOff        = errors.New("this action is off now")
)

// refreshEvery is how often the panes ask the host again while nothing else
// makes them: somebody may use the command line beside them.
const refreshEvery = 5 * time.Second

// Env is what a model needs of its surroundings. Every field may be missing.
type Env struct {
	Language      string // "" is English
	Home          string // suggested for files that are saved
	Now           func() time.Time
	Clipboard     Clipboard                           // only where the renderer has none of its own
	DiskEncrypted func(ctx context.Context) DiskState // of the disk that holds the home
	Notify        func(Notice)
	Serving       Serving // starts and stops the host, where this process may
}

// DiskState is whether the disk under the home is encrypted.
type DiskState uint8

// The states of the disk. The zero value is not known.
const (
	DiskUnknown DiskState = iota
	DiskPlain
	DiskEncrypted
)

// Via is how an action was chosen.
type Via string

// The ways. Return never approves anything.
const (
	Click  Via = "click"
	Key    Via = "key"
	Return Via = "return"
)

// Input is one thing a person did.
type Input struct {
	Action string
	Values map[string]string // of the sheet's fields
	Via    Via               // "" is Click
}

// Model is the state behind every pane. It is safe for concurrent use.
type Model struct {
	host  Host
	env   Env
	texts texts

	ctx    context.Context //nolint:containedctx // the life of the model: work survives the window that began it
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu       sync.Mutex
	version  uint64
	changed  chan struct{}
	facts    facts
	asking   bool
	askAgain bool
	sheet    *sheet
	sheets   int
	banners  []result
	results  int
	working  *working
	approval approval
	serving  ServingState
	exported bool // a backup was made since this model began
	disk     DiskState
	noticed  noticed
	nearby   nearby
}

// New returns a model of a host. Call Close when it is done with.
func New(host Host, env Env) *Model {
	if env.Now == nil {
		env.Now = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Model{host: host, env: env, texts: textsFor(env.Language), ctx: ctx, cancel: cancel, changed: make(chan struct{}), noticed: newNoticed(), nearby: nearby{found: map[string]discovery.Instance{}}}
	m.Refresh()
	if env.DiskEncrypted != nil {
		m.work.Go(func() {
			d := env.DiskEncrypted(ctx)
			m.update(func() { m.disk = d })
		})
	}
	return m
}

// Close ends the work and destroys what is shown. Work at the host that was
// begun goes on or is undone there, as the host says.
func (m *Model) Close() {
	m.cancel()
	m.work.Wait()
	m.update(m.closeSheet)
}

// Watch keeps the panes up to date and attaches an approver, until ctx ends:
// while it runs, requests to pair are asked, and the network is looked at.
func (m *Model) Watch(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	var beside sync.WaitGroup
	beside.Go(func() { m.watchApprovals(ctx) })
	beside.Go(func() { m.watchNearby(ctx) })
	defer beside.Wait()
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.Refresh()
		}
	}
}

// Changed returns a number that grows with every change, and a channel that is
// closed at the next one.
func (m *Model) Changed() (version uint64, next <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.version, m.changed
}

// update changes the state and says so.
func (m *Model) update(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	m.touch()
}

// touch says that something has changed. The caller holds m.mu.
func (m *Model) touch() {
	m.version++
	close(m.changed)
	m.changed = make(chan struct{})
}

// Refresh asks the host again, in the background.
func (m *Model) Refresh() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refresh()
}

// refresh is Refresh for those that hold m.mu. Questions never pile up.
func (m *Model) refresh() {
	if m.asking {
		m.askAgain = true
		return
	}
	m.asking = true
	m.work.Go(func() {
		for again := true; again; {
			f := m.ask(m.ctx)
			m.mu.Lock()
			again = m.askAgain && m.ctx.Err() == nil
			m.askAgain, m.asking = false, again
			m.learn(f)
			m.touch()
			m.mu.Unlock()
		}
	})
}

// learn takes what the host said. A host that stops answering leaves what it
// said before, beside the error.
func (m *Model) learn(f facts) {
	if m.ctx.Err() != nil {
		return
	}
	before := m.facts
	if !f.known {
		m.facts.err = f.err
		return
	}
	m.facts = f
	m.notice(before, f)
}

// View returns a pane as it is to be drawn now.
func (m *Model) View(p Pane) View {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.pane(p)
	v.Pane, v.Tabs = p, m.tabs()
	if m.sheet != nil {
		s := m.sheet.Sheet
		s.Actions = slices.Clone(s.Actions)
		v.Sheet = &s
	}
	v.Working, v.Approval = m.workingView(), m.approvalView()
	m.settle(&v)
	return v
}

func (m *Model) pane(p Pane) View {
	var v View
	switch p {
	case Agents:
		v = m.agentsPane()
	case Peers:
		v = m.peersPane()
	case Storage:
		v = m.storagePane()
	case Requests:
		v = m.requestsPane()
	case Identity:
		v = m.identityPane()
	default:
		v = m.identityPane()
	}
	v.Banners = append(m.resultBanners(p), v.Banners...)
	if m.facts.err != nil {
		v.Banners = append([]Banner{m.unreachable()}, v.Banners...)
	}
	return v
}

func (m *Model) unreachable() Banner {
	return Banner{ID: "host", Tone: Danger, Title: m.t("host.unreachable"), Lines: []string{m.explain(m.facts.err)}, Actions: []Action{{ID: "refresh", Label: m.t("common.retry")}}}
}

func (m *Model) tabs() []Tab {
	names := map[Pane]string{Identity: m.t("identity.title"), Agents: m.t("agents.title"), Peers: m.t("peers.title"), Storage: m.t("storage.title"), Requests: m.t("requests.title")}
	tabs := make([]Tab, 0, len(All))
	for _, p := range All {
		t := Tab{Pane: p, Title: names[p]}
		if p == Requests && m.approval.prompt != nil {
			t.Count = 1
		}
		tabs = append(tabs, t)
	}
	return tabs
}

// Do does what a person chose. An action that no pane offers, or that is off,
// is refused: a renderer that is late, or lies, changes nothing. What takes
// time goes on in the background; Changed tells.
func (m *Model) Do(in Input) error {
	verb, arg, _ := strings.Cut(in.Action, ":")
	if strings.HasPrefix(verb, "approval-") {
		return m.answer(verb, arg, in)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch off, ok := m.offered()[in.Action]; {
	case !ok:
		return ErrNotOffered
	case off:
		return ErrOff
	}
	defer m.touch()
	if m.sheet != nil {
		return m.sheetAction(in)
	}
	handlers[verb](m, arg)
	return nil
}

// offered lists the actions that can be chosen now, and whether they are off.
func (m *Model) offered() map[string]bool {
	out := map[string]bool{}
	add := func(list []Action) {
		for _, a := range list {
			out[a.ID] = out[a.ID] || a.Off
		}
	}
	if m.working != nil && m.working.Cancel != nil {
		out[m.working.Cancel.ID] = false
	}
	if m.sheet != nil {
		add(m.sheet.Actions)
		return out
	}
	for _, p := range All {
		v := m.pane(p)
		m.settle(&v)
		v.each(add)
	}
	add(m.menuActions())
	return out
}

// each hands over every list of actions of a pane.
func (v *View) each(f func([]Action)) {
	for _, b := range v.Banners {
		f(b.Actions)
	}
	for _, s := range v.Sections {
		f(s.Actions)
		eachRow(s.Rows, f)
	}
}

func eachRow(rows []Row, f func([]Action)) {
	for _, r := range rows {
		f(r.Actions)
		eachRow(r.Rows, f)
	}
}

// settle turns every action off while another one works (ST-8), and those
// behind a sheet.
func (m *Model) settle(v *View) {
	if m.working == nil && m.facts.storage.Operation == "" {
		return
	}
	v.each(func(list []Action) {
		for i := range list {
			if list[i].Effect == "" && list[i].ID != "refresh" && !strings.HasPrefix(list[i].ID, "dismiss:") {
				list[i].Off = true
			}
		}
	})
}

// handlers are the actions of the panes. Those with consequences open a sheet.
var handlers map[string]func(m *Model, arg string)

func init() {
	handlers = map[string]func(*Model, string){
		"refresh": func(m *Model, _ string) { m.refresh() },
		"dismiss": (*Model).dismissResult, "work-cancel": (*Model).cancelWork,

		"identity-create": (*Model).createIdentity, "phrase-show": (*Model).showPhrase, "identity-recover": (*Model).recoverSheet,
		"identity-reset": (*Model).resetSheet, "drift-repair": (*Model).repairSheet, "drift-check": (*Model).checkDrift,
		"replaced-drop": (*Model).dropReplacedSheet, "replaced-undo": (*Model).undoReplacedSheet, "keys-refuse": (*Model).refuseKeysSheet,

		"agent-create": (*Model).createAgentSheet, "agent-assign": (*Model).assignAgent, "agent-rotate": (*Model).rotateAgentSheet, "agent-revoke": (*Model).revokeAgentSheet,
		"key-create": (*Model).createKeySheet, "key-revoke": (*Model).revokeKeySheet,
		"trust-add": (*Model).trustSheet, "trust-remove": (*Model).distrustSheet,

		"peer-forget": (*Model).forgetPeerSheet, "invite-create": (*Model).inviteSheet, "invite-show": (*Model).showInvite, "invite-revoke": (*Model).revokeInviteSheet,
		"link-open": (*Model).linkSheet, "nearby-pair": (*Model).nearbyPairSheet,

		"storage-export": (*Model).exportSheet, "storage-rotate": (*Model).rotateStorageSheet, "storage-encrypt": (*Model).encryptSheet, "storage-decrypt": (*Model).decryptSheet,
		"storage-maintain": (*Model).maintain, "storage-verify": (*Model).verify,
		"store-retry": (*Model).retryStore, "store-reset": (*Model).resetStoreSheet, "store-accept": (*Model).acceptStoreSheet,
		"remains-delete": (*Model).deleteRemainsSheet, "remains-keep": (*Model).keepRemains,

		"host-start": (*Model).startHost, "host-stop": (*Model).stopHost, "expose": (*Model).exposeSheet, "relay-on": (*Model).relayOnSheet, "relay-off": (*Model).relayOff,
	}
}

// explain turns an error into words for the owner. None holds a secret.
func (m *Model) explain(err error) string {
	if errors.Is(err, control.ErrNoHost) {
		return m.t("error.nohost")
	}
	if errors.Is(err, control.ErrCutOff) {
		return m.t("error.cutoff")
	}
	if errors.Is(err, context.Canceled) {
		return m.t("error.cancelled")
	}
	if e, ok := errors.AsType[*control.Error](err); ok {
		if key := errorTexts[e.Code]; key != "" {
			return m.t(key)
		}
		return e.Message
	}
	return err.Error()
}

// errorTexts are the refusals that have words of their own here; the others
// come in the host's.
var errorTexts = map[string]string{
	"keystore_locked":     "error.keystore",
	"storage_key_missing": "error.storagekey",
	"storage_busy":        "error.busy",
	"unreachable":         "error.unreachable",
}

func verbOf(action string) string {
	verb, _, _ := strings.Cut(action, ":")
	return verb
}
