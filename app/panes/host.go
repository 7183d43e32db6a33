package panes

import (
	"context"
	"time"

	"osaurus/engine"
	"osaurus/engine/accesskey"
	"osaurus/engine/control"
	"osaurus/engine/discovery"
	"osaurus/engine/pairing"
	"osaurus/engine/server"
	"osaurus/engine/settings"
	"osaurus/engine/storage"
)

// Host is what the panes ask of a running host. control.Client is one.
type Host interface {
	Status(ctx context.Context) (engine.Status, error)
	Settings(ctx context.Context) (settings.Server, error)
	SetSettings(ctx context.Context, s settings.Server) error
	Requests(ctx context.Context) ([]server.Entry, error)

	Identity(ctx context.Context, withPairing bool) (control.Identity, error)
	CreateIdentity(ctx context.Context) (control.NewIdentity, error)
	Phrase(ctx context.Context) (control.NewIdentity, error)
	Acknowledge(ctx context.Context) error
	RestoreIdentity(ctx context.Context, r control.Restore) (control.Identity, error)
	ConfirmReplacement(ctx context.Context) error
	UndoReplacement(ctx context.Context) (control.Identity, error)
	ResetIdentity(ctx context.Context) error
	Health(ctx context.Context) (control.Drift, error)
	Drift(ctx context.Context) (control.Drift, error)
	Repair(ctx context.Context, shown control.Drift) (control.Repaired, error)

	Agents(ctx context.Context) ([]control.Agent, error)
	CreateAgent(ctx context.Context, e control.EditAgent) (control.Agent, error)
	AgentAction(ctx context.Context, action, id string) (control.Agent, error)
	Keys(ctx context.Context) ([]accesskey.Metadata, error)
	MintKey(ctx context.Context, m control.MintKey) (control.NewKey, error)
	KeyAction(ctx context.Context, action, id string) error
	RefuseKeysBefore(ctx context.Context, t time.Time) error
	Whitelist(ctx context.Context) ([]accesskey.Trusted, error)
	Trust(ctx context.Context, t control.Trust) error
	Distrust(ctx context.Context, t control.Trust) error

	Discover(ctx context.Context, each func(discovery.Event) error) error
	Pair(ctx context.Context, p control.Pair) (pairing.Peer, error)
	Peers(ctx context.Context) ([]pairing.Peer, error)
	ForgetPeer(ctx context.Context, peer string) error
	WatchApprovals(ctx context.Context, each func(control.Approvals) error) error
	Answer(ctx context.Context, a control.Answer) error

	Invites(ctx context.Context, agent string) ([]control.Invite, error)
	CreateInvite(ctx context.Context, in control.NewInvite) (control.Invite, error)
	ShowInvite(ctx context.Context, id string) (control.Invite, error)
	RevokeInvite(ctx context.Context, id string) error
	LookAtLink(ctx context.Context, link string) (control.Offered, error)
	AcceptLink(ctx context.Context, l control.Link) (pairing.Peer, error)
	Relays(ctx context.Context) (control.Relays, error)
	EnableRelay(ctx context.Context, r control.EnableRelay) error

	Storage(ctx context.Context) (storage.Status, error)
	Quarantine(ctx context.Context) ([]storage.Quarantined, error)
	Remains(ctx context.Context) ([]storage.Remains, error)
	SettleRemains(ctx context.Context, in control.SettleRemains) error
	Maintained(ctx context.Context) ([]storage.Maintained, error)
	RecoverStore(ctx context.Context, r control.RecoverStore) error
	OperateStorage(ctx context.Context, in control.StorageOrder, progress func(storage.Progress)) (control.StorageDone, error)
}

// facts are what the host said last.
type facts struct {
	known    bool // the host has answered once
	err      error
	status   engine.Status
	settings settings.Server

	identity    control.Identity
	identityErr error
	drift       control.Drift
	agents      []control.Agent
	keys        []accesskey.Metadata
	trusted     []accesskey.Trusted
	peers       []pairing.Peer
	invites     []control.Invite
	inviteErr   error
	relays      control.Relays
	requests    []server.Entry

	storage    storage.Status
	storageErr error
	quarantine []storage.Quarantined
	remains    []storage.Remains
	maintained []storage.Maintained
}

// ask collects everything. A part that fails leaves the others.
func (m *Model) ask(ctx context.Context) facts {
	f := facts{}
	if f.status, f.err = m.host.Status(ctx); f.err != nil {
		return f
	}
	f.known = true
	f.identity, f.identityErr = m.host.Identity(ctx, false)
	f.storage, f.storageErr = m.host.Storage(ctx)
	keep(&f.err, &f.settings)(m.host.Settings(ctx))
	keep(&f.err, &f.drift)(m.host.Health(ctx))
	keep(&f.err, &f.agents)(m.host.Agents(ctx))
	keep(&f.err, &f.keys)(m.host.Keys(ctx))
	keep(&f.err, &f.trusted)(m.host.Whitelist(ctx))
	keep(&f.storageErr, &f.quarantine)(m.host.Quarantine(ctx))
	keep(&f.storageErr, &f.remains)(m.host.Remains(ctx))
	keep(&f.storageErr, &f.maintained)(m.host.Maintained(ctx))
	keep(&f.err, &f.requests)(m.host.Requests(ctx))
	keep(&f.err, &f.relays)(m.host.Relays(ctx))
	if peers, err := m.host.Peers(ctx); err == nil {
		f.peers = peers // a sealed list whose key is away stays empty; the storage pane says why
	}
	f.invites, f.inviteErr = m.host.Invites(ctx, "")
	return f
}

// keep stores an answer, and the first error.
func keep[T any](failed *error, to *T) func(T, error) {
	return func(v T, err error) {
		switch {
		case err == nil:
			*to = v
		case *failed == nil:
			*failed = err
		}
	}
}
