package panes_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"osaurus/engine"
	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/control"
	"osaurus/engine/discovery"
	"osaurus/engine/pairing"
	"osaurus/engine/server"
	"osaurus/engine/settings"
	"osaurus/engine/storage"
)

// Secrets that a scripted host hands out. The words are one letter each, so
// that none is found by chance.
const (
	somePhrase = "zzword01 zzword02 zzword03 zzword04 zzword05 zzword06 zzword07 zzword08 zzword09 zzword10 zzword11 zzword12 zzword13 zzword14 zzword15 zzword16 zzword17 zzword18 zzword19 zzword20 zzword21 zzword22 zzword23 zzword24"
	someCode   = "OSAURUS-ZZZZ-ZZZZ-ZZZZ-ZZZZ"
	someKey    = "osk-v1.zztoken"
	someLink   = "osaurus://zzlink"
)

// scripted is a host without a network, for bubbles of fake time and for many
// short runs. It counts what it was asked to do.
type scripted struct {
	mu        sync.Mutex
	id        control.Identity
	agents    []control.Agent
	keys      []accesskey.Metadata
	drift     control.Drift
	stores    storage.Status
	settings  settings.Server
	requests  []server.Entry
	inFlight  int
	relays    control.Relays
	announced chan discovery.Event
	pairs     []control.Pair
	approvals chan control.Approvals
	answers   []control.Answer
	calls     []string
	running   int  // operations at this moment
	together  bool // two ran at once
	fails     error
	hold      time.Duration // how long an operation takes
	slow      time.Duration // how long the first answer takes

	noPhrase   bool     // creating an identity gives none
	unrepaired []string // by a repair
}

func newScripted() *scripted {
	a := address.Address{19: 1}
	return &scripted{
		id:        control.Identity{State: "ready", Address: a, Acknowledged: true, DeviceID: "00000001", DeviceName: "studio"},
		agents:    []control.Agent{{Agent: agents.Agent{ID: "A1", Name: "Rex", Address: address.Address{19: 2}}, ActiveKeys: 1}},
		keys:      []accesskey.Metadata{{ID: "K1", Label: "laptop", Audience: address.Address{19: 2}, Nonce: "n1"}},
		stores:    storage.Status{Posture: storage.PostureEncrypted, Key: storage.KeyStatus{State: storage.KeyReady, ID: "0102030405060708", Keystore: "passphrase"}, Stores: []storage.StoreStatus{{ID: "chat-history", Format: "encrypted", State: "ready", Bytes: 4096}, {ID: "memory", Format: "encrypted", State: "refused", Issue: storage.IssueCorrupt}}},
		settings:  settings.DefaultServer(),
		approvals: make(chan control.Approvals),
		announced: make(chan discovery.Event),
	}
}

// act is an operation: it takes its time, and no second one may run beside it.
func (h *scripted) act(ctx context.Context, name string) error {
	h.mu.Lock()
	h.calls = append(h.calls, name)
	h.running++
	h.together = h.together || h.running > 1
	hold, fails := h.hold, h.fails
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.running--
		h.mu.Unlock()
	}()
	if hold > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(hold):
		}
	}
	return fails
}

func (h *scripted) called(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, c := range h.calls {
		if strings.HasPrefix(c, name) {
			n++
		}
	}
	return n
}

func get[T any](h *scripted, v *T) (T, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *v, nil
}

func (h *scripted) Status(context.Context) (engine.Status, error) {
	if h.slow > 0 {
		<-time.After(h.slow)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return engine.Status{Port: 1337, Keystore: "passphrase", InFlight: h.inFlight}, nil
}
func (h *scripted) Settings(context.Context) (settings.Server, error) { return get(h, &h.settings) }
func (h *scripted) SetSettings(ctx context.Context, s settings.Server) error {
	h.mu.Lock()
	h.settings = s
	h.mu.Unlock()
	return h.act(ctx, "settings")
}
func (h *scripted) Requests(context.Context) ([]server.Entry, error) { return get(h, &h.requests) }
func (h *scripted) Identity(context.Context, bool) (control.Identity, error) {
	return get(h, &h.id)
}
func (h *scripted) CreateIdentity(ctx context.Context) (control.NewIdentity, error) {
	if h.noPhrase {
		return control.NewIdentity{}, h.act(ctx, "create")
	}
	return control.NewIdentity{Phrase: somePhrase, RecoveryCode: someCode}, h.act(ctx, "create")
}
func (h *scripted) Phrase(ctx context.Context) (control.NewIdentity, error) {
	return control.NewIdentity{Phrase: somePhrase}, h.act(ctx, "phrase")
}
func (h *scripted) Acknowledge(ctx context.Context) error { return h.act(ctx, "acknowledge") }
func (h *scripted) RestoreIdentity(ctx context.Context, r control.Restore) (control.Identity, error) {
	return control.Identity{}, h.act(ctx, "restore")
}
func (h *scripted) ConfirmReplacement(ctx context.Context) error { return h.act(ctx, "replaced-drop") }
func (h *scripted) UndoReplacement(ctx context.Context) (control.Identity, error) {
	return control.Identity{}, h.act(ctx, "replaced-undo")
}
func (h *scripted) ResetIdentity(ctx context.Context) error       { return h.act(ctx, "reset") }
func (h *scripted) Health(context.Context) (control.Drift, error) { return get(h, &h.drift) }
func (h *scripted) Drift(ctx context.Context) (control.Drift, error) {
	return control.Drift{}, h.act(ctx, "drift")
}
func (h *scripted) Agents(context.Context) ([]control.Agent, error)    { return get(h, &h.agents) }
func (h *scripted) Keys(context.Context) ([]accesskey.Metadata, error) { return get(h, &h.keys) }
func (h *scripted) Repair(ctx context.Context, d control.Drift) (control.Repaired, error) {
	return control.Repaired{Moved: d.Mismatched, KeysRevoked: len(d.StaleKeys), Failed: h.unrepaired}, h.act(ctx, "repair")
}
func (h *scripted) CreateAgent(ctx context.Context, e control.EditAgent) (control.Agent, error) {
	return control.Agent{}, h.act(ctx, "agent-create")
}
func (h *scripted) AgentAction(ctx context.Context, action, id string) (control.Agent, error) {
	return control.Agent{}, h.act(ctx, "agent-"+action)
}
func (h *scripted) MintKey(ctx context.Context, m control.MintKey) (control.NewKey, error) {
	return control.NewKey{Metadata: accesskey.Metadata{Label: m.Label}, Token: someKey}, h.act(ctx, "mint "+m.Label)
}
func (h *scripted) KeyAction(ctx context.Context, action, id string) error {
	return h.act(ctx, "key-"+action)
}
func (h *scripted) RefuseKeysBefore(ctx context.Context, _ time.Time) error {
	return h.act(ctx, "refuse")
}
func (h *scripted) Whitelist(context.Context) ([]accesskey.Trusted, error) {
	return []accesskey.Trusted{{Issuer: address.Address{19: 9}}}, nil
}
func (h *scripted) Trust(ctx context.Context, _ control.Trust) error { return h.act(ctx, "trust") }
func (h *scripted) Distrust(ctx context.Context, _ control.Trust) error {
	return h.act(ctx, "distrust")
}
func (h *scripted) Peers(context.Context) ([]pairing.Peer, error) {
	return []pairing.Peer{{Address: address.Address{19: 5}, Name: "Studio", BaseURL: "http://192.0.2.7:1337"}}, nil
}
func (h *scripted) ForgetPeer(ctx context.Context, _ string) error { return h.act(ctx, "forget") }
func (h *scripted) WatchApprovals(ctx context.Context, each func(control.Approvals) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-h.approvals:
			if err := each(a); err != nil {
				return err
			}
		}
	}
}
func (h *scripted) Answer(_ context.Context, a control.Answer) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers = append(h.answers, a)
	return h.fails
}
func (h *scripted) answered() []control.Answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]control.Answer(nil), h.answers...)
}
func (h *scripted) LookAtLink(ctx context.Context, link string) (control.Offered, error) {
	return control.Offered{Name: "<b>Rex</b>", Address: address.Address{19: 5}, URL: "https://x.example", Paired: "Studio"}, h.act(ctx, "look")
}
func (h *scripted) AcceptLink(ctx context.Context, _ control.Link) (pairing.Peer, error) {
	return pairing.Peer{}, h.act(ctx, "accept")
}
func (h *scripted) Relays(context.Context) (control.Relays, error) { return get(h, &h.relays) }
func (h *scripted) Discover(ctx context.Context, each func(discovery.Event) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev, ok := <-h.announced:
			if !ok {
				return errors.New("no browser")
			}
			if err := each(ev); err != nil {
				return err
			}
		}
	}
}
func (h *scripted) Pair(ctx context.Context, p control.Pair) (pairing.Peer, error) {
	h.mu.Lock()
	h.pairs = append(h.pairs, p)
	h.mu.Unlock()
	return pairing.Peer{}, h.act(ctx, "pair")
}
func (h *scripted) EnableRelay(ctx context.Context, r control.EnableRelay) error {
	if r.On {
		return h.act(ctx, "relay-on "+r.Agent)
	}
	return h.act(ctx, "relay-off "+r.Agent)
}
func (h *scripted) Storage(context.Context) (storage.Status, error) { return get(h, &h.stores) }
func (h *scripted) Quarantine(context.Context) ([]storage.Quarantined, error) {
	return nil, nil
}
func (h *scripted) Remains(context.Context) ([]storage.Remains, error) {
	return []storage.Remains{{Path: "memory/vectura", Bytes: 9}}, nil
}
func (h *scripted) SettleRemains(ctx context.Context, in control.SettleRemains) error {
	if in.Keep {
		return h.act(ctx, "remains-keep")
	}
	return h.act(ctx, "remains-delete")
}
func (h *scripted) Maintained(context.Context) ([]storage.Maintained, error) { return nil, nil }
func (h *scripted) RecoverStore(ctx context.Context, r control.RecoverStore) error {
	return h.act(ctx, "store-"+r.Action)
}
func (h *scripted) OperateStorage(ctx context.Context, in control.StorageOrder, progress func(storage.Progress)) (control.StorageDone, error) {
	progress(storage.Progress{Label: "memory", Done: 1, Total: 2})
	return control.StorageDone{Path: "/x"}, h.act(ctx, "operate-"+in.What)
}

func (h *scripted) Invites(context.Context, string) ([]control.Invite, error) {
	return []control.Invite{{ID: "0a0b", Agent: "Rex", State: pairing.InviteActive}, {ID: "0c0d", Agent: "Rex", State: pairing.InviteUsed, From: "192.0.2.9"}}, nil
}
func (h *scripted) CreateInvite(ctx context.Context, in control.NewInvite) (control.Invite, error) {
	return control.Invite{Link: someLink}, h.act(ctx, "invite")
}
func (h *scripted) ShowInvite(ctx context.Context, _ string) (control.Invite, error) {
	return control.Invite{Link: someLink}, h.act(ctx, "invite-show")
}
func (h *scripted) RevokeInvite(ctx context.Context, _ string) error {
	return h.act(ctx, "invite-revoke")
}
