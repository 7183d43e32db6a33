// Package engine is a host: the one place where its parts meet. Open prepares
// everything without listening; Run serves until its context ends.
package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/atomicfile"
	"osaurus/engine/channel"
	"osaurus/engine/discovery"
	"osaurus/engine/eventlog"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/keystore"
	"osaurus/engine/pairing"
	"osaurus/engine/runner"
	"osaurus/engine/sandbox"
	"osaurus/engine/secret"
	"osaurus/engine/server"
	"osaurus/engine/storage"
	"osaurus/engine/storage/chats"
	"osaurus/engine/storage/memory"
)

// Ports is what an engine needs of the system it runs on.
type Ports struct {
	// Keystore opens the keystore of a home. The passphrase is zero when none
	// was given.
	Keystore   func(home string, passphrase secret.Bytes) (keystore.Store, error)
	Advertiser discovery.Advertiser
	Browser    discovery.Browser
	Presence   identity.Presence // nil: the keystore alone decides
	// Hardware returns a home's key in the machine's secure element; nil: there
	// is none.
	Hardware   func(home string) identity.Hardware
	Sandbox    func(home string) []sandbox.Driver // the default first; nil means none
	DeviceName string
	Client     *http.Client // for providers and peers; nil means a default
	Now        func() time.Time
	Rand       io.Reader
	Logger     *slog.Logger
}

// Config is what differs from one engine to the next.
type Config struct {
	Home       string
	Passphrase secret.Bytes
	Version    string

	// Wait is how long Open waits for another process to leave the home.
	Wait time.Duration

	// Locked opens a home whose keystore is locked too, to look at what needs
	// no secret. Whatever needs one is refused.
	Locked bool
}

// ErrInUse says that another process holds the home.
var ErrInUse = errors.New("another osaurus is using this home")

// Engine is a host. Its parts are safe for concurrent use.
type Engine struct {
	Account  *identity.Account
	Agents   *agents.Registry
	Keys     *accesskey.Keys
	Approval *pairing.Queue
	Peers    *pairing.Peers
	Runner   *runner.Runner
	Server   *server.Server
	Storage  *storage.Storage
	Chats    *chats.Chats
	Memory   *memory.Memory
	Channel  *channel.Server
	Sandbox  *sandbox.Service

	// Invites lets others, and the owner's other devices, in through the relay.
	Invites *pairing.Invites

	relays relays
	ports  Ports
	config Config
	lock   *flock.Flock
	store  keystore.Store
	log    *eventlog.Log
	logErr error // why there is no security log, or no whole one
	// savedHead is the log's head as the keystore has it.
	savedHead eventlog.Head
	settings  settingsStore
	lines     lines
	requests  func() (*identity.RequestVerifier, error) // opened when first needed
	started   time.Time
	listening atomic.Bool
}

// Where things stand below the home.
const (
	lockFile       = ".storage.lock"
	logFile        = "security.log"
	SocketPath     = "runtime/control.sock"
	engineService  = "com.osaurus.engine"
	logKeyAccount  = "log-key"
	logHeadAccount = "log-head"
)

// Open takes the home's lock and prepares every part. Errors: ErrInUse, the
// keystore's, and files that do not parse; nothing is changed by a failure.
func Open(ctx context.Context, p Ports, c Config) (e *Engine, err error) {
	return open(ctx, p, c, (*Engine).assemble)
}

// open takes the lock, opens what everything rests on, and passes it to rest.
func open(ctx context.Context, p Ports, c Config, rest func(*Engine, context.Context) error) (e *Engine, err error) {
	p = p.withDefaults()
	if err := prepareHome(c.Home); err != nil {
		return nil, err
	}
	e = &Engine{ports: p, config: c, lock: flock.New(filepath.Join(c.Home, lockFile), flock.SetPermissions(atomicfile.Mode)), started: p.Now()}
	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close(context.WithoutCancel(ctx)))
		}
	}()
	if err := narrow(c.Home); err != nil {
		return e, err
	}
	store, err := p.Keystore(c.Home, c.Passphrase)
	if c.Locked && errors.Is(err, fault.KeystoreLocked) {
		store, err = keystore.NewLocked(err), nil
	}
	if err != nil {
		return e, err
	}
	e.store = store
	if locked, ok := store.(keystore.Locked); ok {
		e.logErr = locked.Why()
	} else if err := e.openLog(ctx); err != nil {
		e.logErr = err
		p.Logger.Error("no security log", slog.String("error", err.Error()))
	}
	if err := e.settings.load(c.Home); err != nil {
		return e, err
	}
	if e.Storage, err = storage.Open(ctx, storage.Config{Root: c.Home, Keystore: e.store, Now: p.Now, Rand: p.Rand, Log: e.Event}); err != nil {
		return e, err
	}
	return e, rest(e, ctx)
}

// lockEvery is how often a home that is taken is tried again.
const lockEvery = 20 * time.Millisecond

// enter takes the home's lock.
func (e *Engine) enter(ctx context.Context) error {
	held, err := e.lock.TryLock()
	if err == nil && !held && e.config.Wait > 0 {
		ctx, cancel := context.WithTimeout(ctx, e.config.Wait)
		defer cancel()
		if held, err = e.lock.TryLockContext(ctx, lockEvery); errors.Is(err, context.DeadlineExceeded) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", e.config.Home, err)
	}
	if !held {
		return ErrInUse
	}
	return nil
}

func (p Ports) withDefaults() Ports {
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.Rand == nil {
		p.Rand = rand.Reader
	}
	if p.Logger == nil {
		p.Logger = slog.New(slog.DiscardHandler)
	}
	if p.Client == nil {
		// Answers stream for long, so only their beginnings are timed. Nothing
		// goes through a proxy of the environment.
		p.Client = &http.Client{Transport: &http.Transport{ResponseHeaderTimeout: 3 * time.Minute, IdleConnTimeout: 90 * time.Second, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}}
	}
	return p
}

// prepareHome creates the home, ours alone.
func prepareHome(home string) error {
	if home == "" {
		return fault.WithText(fault.Usage, "no home directory was named")
	}
	for _, dir := range []string{"", "identity", "agents", "config", "runtime"} {
		path := filepath.Join(home, dir)
		if err := atomicfile.MkdirAll(path); err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			if err := os.Chmod(path, atomicfile.DirMode); err != nil {
				return fmt.Errorf("%s can be read by others: %w", path, err)
			}
		}
	}
	return nil
}

func (e *Engine) path(parts ...string) string {
	return filepath.Join(append([]string{e.config.Home}, parts...)...)
}

// assemble builds the parts from the bottom up.
func (e *Engine) assemble(ctx context.Context) (err error) {
	p := e.ports
	var hardware identity.Hardware
	if p.Hardware != nil {
		hardware = p.Hardware(e.config.Home)
	}
	if e.Account, err = identity.OpenAccount(identity.AccountConfig{Vault: e.store, Dir: e.path("identity"), Presence: p.Presence, Hardware: hardware, DeviceName: p.DeviceName, Now: p.Now, Rand: p.Rand, Log: e.Event}); err != nil {
		return err
	}
	if e.Keys, err = accesskey.Open(ctx, accesskey.Config{Vault: e.store, TemporaryPath: e.path("identity", "temporary-keys.json"), Now: p.Now, Rand: p.Rand, Log: e.Event}); err != nil {
		return err
	}
	if e.Agents, err = agents.Open(agents.Config{Dir: e.path("agents"), Account: e.Account, Keys: e.Keys, Retired: e.retired, Now: p.Now, Rand: p.Rand, Log: e.Event}); err != nil {
		return err
	}
	e.Peers = pairing.OpenPeers(e.Storage.Document("identity/peers.json"), e.store, p.Now)
	if err = e.declareStores(); err != nil {
		return err
	}
	if e.Chats, err = chats.New(e.Storage, p.Now); err != nil {
		return err
	}
	if e.Memory, err = memory.New(e.Storage, p.Now); err != nil {
		return err
	}
	if e.Runner, err = runner.New(runner.Config{Endpoint: e.endpoint, Chats: history{e.Chats}, Tools: guestTools{e}, Tasks: e.Storage.Document("tasks.json"), Now: p.Now, Rand: p.Rand, Log: p.Logger}); err != nil {
		return err
	}
	e.Approval = pairing.NewQueue(p.Now, p.Rand)
	e.Channel = channel.NewServer(channel.Config{Signer: e.Agents.Signer, Now: p.Now, Rand: p.Rand})
	host := pairing.NewHost(pairing.HostConfig{Agent: e.pairable, Signer: e.Agents.Signer, Keys: e.Keys, Queue: e.Approval, Now: p.Now, Rand: p.Rand, Log: e.Event})
	e.openRelay()
	if err = e.openSandbox(); err != nil {
		return err
	}
	e.Server = server.New(server.Config{
		Version: e.config.Version, Settings: e.settings.server, Keys: e.Keys, Agents: e.Agents, Channel: e.Channel, Pairing: host, Invites: e.Invites, RelayURL: e.relays.tunnel.URL, Runner: e.Runner,
		Endpoint: e.endpoint, Memory: memories{e}, Admin: func(ctx context.Context) any { return e.Status(ctx) }, Health: e.health, Log: e.Event, Now: p.Now, Logger: p.Logger,
	})
	e.requests = sync.OnceValues(e.openRequests)
	e.Keys.OnRevoked(e.Runner.EndAccess)
	e.Agents.OnChange(e.agentsChanged)
	e.agentsChanged()
	return nil
}

// retired ends what still speaks for an address that is going away.
func (e *Engine) retired(ctx context.Context, a address.Address) error {
	e.Channel.CloseAgent(a)
	if agent, ok := e.Agents.ByAddress(a); ok {
		if err := e.Invites.Retire(ctx, agent.ID, a); err != nil {
			// Nothing opens any more for an address without an agent, and an
			// owner whose storage is locked must still be able to take it away.
			e.ports.Logger.Warn("invites of an agent's former address are still on record", slog.String("agent", agent.ID), slog.String("error", err.Error()))
		}
	}
	return nil
}

// agentsChanged makes the present agents the ones that keys are valid for.
func (e *Engine) agentsChanged() {
	e.Keys.SetAudiences(e.Account.Address(), e.Agents.Addresses())
	e.settings.changed()
	e.relays.tunnel.Changed()
}

// pairable says which agents a connector may ask for.
func (e *Engine) pairable(id string) (pairing.Agent, bool) {
	a, ok := e.Agents.Get(id)
	return pairing.Agent{ID: a.ID, Name: a.Name, Address: a.Address, Available: a.BonjourEnabled && !a.BuiltIn}, ok
}

// Unlock reads the master once and keeps the agents' signers. Without an
// identity there is nothing to unlock.
func (e *Engine) Unlock(ctx context.Context) error {
	err := e.Agents.Unlock(ctx)
	if errors.Is(err, fault.NoMaster) {
		return nil
	}
	if err == nil {
		e.finishAgents(ctx)
	}
	e.agentsChanged()
	return err
}

// finishAgents gives an address to agents whose creation a crash cut short.
func (e *Engine) finishAgents(ctx context.Context) {
	for _, a := range e.Agents.List() {
		if a.BuiltIn || a.Path != nil || !a.Address.IsZero() || len(a.Retired) > 0 {
			continue
		}
		if _, err := e.Agents.Assign(ctx, a.ID); err != nil {
			e.ports.Logger.Error("an agent has no address", slog.String("agent", a.ID), slog.String("error", err.Error()))
		}
	}
}

// FirstStart creates the identity and a first agent with an address, when
// there is no identity yet. It returns nil when there was one. The caller
// shows the phrase and destroys it.
func (e *Engine) FirstStart(ctx context.Context) (*identity.Created, error) {
	s, err := e.Account.Status(ctx)
	if err != nil || s.State != identity.None {
		return nil, err
	}
	created, err := e.CreateIdentity(ctx)
	if err != nil {
		return nil, err
	}
	return &created, nil
}

// CreateIdentity mints the master and gives the first agent an address.
func (e *Engine) CreateIdentity(ctx context.Context) (identity.Created, error) {
	created, err := e.Account.Generate(ctx)
	if err != nil {
		return identity.Created{}, err
	}
	if err := e.firstAgent(ctx); err != nil {
		// The identity stands; the agent can be made again.
		e.ports.Logger.Error("no first agent", slog.String("error", err.Error()))
	}
	return created, e.Unlock(ctx)
}

func (e *Engine) firstAgent(ctx context.Context) error {
	for _, a := range e.Agents.List() {
		if !a.BuiltIn {
			return nil
		}
	}
	a, err := e.Agents.Create(ctx, agents.Draft{Name: "Assistant", Description: "A first agent to try things with", BonjourEnabled: true})
	if err != nil {
		return err
	}
	_, err = e.Agents.Assign(ctx, a.ID)
	return err
}

// Close ends everything and releases the home.
func (e *Engine) Close(ctx context.Context) error {
	var failed error
	if e.Sandbox != nil {
		failed = e.Sandbox.Close(ctx)
	}
	if e.Runner != nil {
		e.Runner.Close()
	}
	e.lines.close()
	e.relays.close()
	if e.Keys != nil {
		failed = errors.Join(failed, e.Keys.EndSession(ctx))
	}
	if e.Agents != nil {
		e.Agents.Lock()
	}
	if e.Channel != nil {
		e.Channel.Close()
	}
	if e.Storage != nil {
		failed = errors.Join(failed, e.Storage.Close())
	}
	if e.log != nil {
		failed = errors.Join(failed, e.saveHead(ctx), e.log.Close())
	}
	if e.store != nil {
		failed = errors.Join(failed, e.store.Close())
	}
	return errors.Join(failed, e.lock.Unlock())
}

// Keystore returns the open keystore, for the operations that change its seal.
func (e *Engine) Keystore() keystore.Store { return e.store }
