package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/sandbox/wire"
)

// Times of a sandbox's life.
const (
	StartTimeout = 2 * time.Minute  // from Driver.Start to the control stream
	StopTimeout  = 10 * time.Second // for a guest to end by itself
)

// Names below the home.
const (
	settingsFile  = "config/sandbox.json"
	switchesFile  = "config/sandbox-agents.json"
	usersFile     = "config/sandbox-agent-map.json"
	toolsDir      = "Tools"
	recipesDir    = "sandbox-plugins"
	workspacePath = "container/workspace"
)

// ServiceConfig configures Open. The ports are required.
type ServiceConfig struct {
	Home    string
	Version string
	// Drivers are what this system can run, the default first. Without one
	// every start says so.
	Drivers    []Driver
	Vault      Vault
	Inference  Inference
	Dispatcher Dispatcher
	Memory     Memory
	Events     EventBus
	Lookup     func(ctx context.Context, host string) ([]string, error)    // nil asks the system
	Dial       func(ctx context.Context, address string) (net.Conn, error) // nil dials
	Now        func() time.Time                                            // nil means time.Now
	Rand       io.Reader                                                   // nil means crypto/rand
	Log        func(event string, attrs ...slog.Attr)                      // the security log
	Logger     *slog.Logger                                                // the diagnostic log
}

// Service runs the sandboxes of a host and what agents do in them. It is safe
// for concurrent use.
type Service struct {
	c        ServiceConfig
	Bridge   *Bridge
	Logs     *LogRing
	Secrets  *Secrets
	Plugins  *Plugins
	tokens   *Tokens
	users    *Users
	config   *ConfigFiles
	switches *switches
	limiter  *ExecLimiter
	installs installLocks
	daemons  *daemonMonitor
	pause    time.Duration // between a daemon's end and its next start

	mu       sync.Mutex
	settings Settings
	// generation counts changes of what sandboxes run under.
	generation int
	swept      map[string]bool         // by driver
	running    map[string]*environment // by agent, or shared
	attempts   map[string]*attempt
	closed     bool
	group      sync.WaitGroup // watches of environments
}

// ErrClosed says that the host stops.
var ErrClosed = errors.New("sandbox: the host stops")

// Open reads the settings. It starts nothing.
func Open(c ServiceConfig) (s *Service, err error) {
	c = c.withDefaults()
	s = &Service{c: c, tokens: NewTokens(c.Rand), Secrets: NewSecrets(c.Vault), Logs: NewLogRing(c.Logger), limiter: NewExecLimiter(c.Now), daemons: newDaemonMonitor(c.Now), pause: DaemonPause, swept: map[string]bool{}, running: map[string]*environment{}, attempts: map[string]*attempt{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeFiles())
		}
	}()
	if s.settings, err = LoadSettings(s.path(settingsFile)); err != nil {
		return s, err
	}
	if s.users, err = OpenUsers(s.path(usersFile)); err != nil {
		return s, err
	}
	if s.switches, err = openSwitches(s.path(switchesFile)); err != nil {
		return s, err
	}
	if s.config, err = OpenConfigFiles(s.path(toolsDir)); err != nil {
		return s, err
	}
	if s.Plugins, err = OpenPlugins(PluginsConfig{
		Dir: s.path(recipesDir), MayCreate: func(id string) bool { return s.Switch(id).MayCreatePlugins() }, Secrets: s.Secrets,
		Running: s.Running, Install: s.install, Registered: s.registered, Now: c.Now,
	}); err != nil {
		return s, err
	}
	s.Bridge = NewBridge(Config{Tokens: s.tokens, Secrets: s.Secrets, Settings: s.config, Inference: c.Inference, Dispatcher: c.Dispatcher, Memory: c.Memory, Events: c.Events, Plugins: s.Plugins, Logs: scrubbed{s}, Now: c.Now, Log: c.Log})
	return s, nil
}

func (c ServiceConfig) withDefaults() ServiceConfig {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = func(string, ...slog.Attr) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Lookup == nil {
		c.Lookup = net.DefaultResolver.LookupHost
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}
	}
	return c
}

func (s *Service) path(name string) string { return filepath.Join(s.c.Home, name) }

func (s *Service) closeFiles() error {
	var failed error
	if s.config != nil {
		failed = s.config.Close()
	}
	if s.Plugins != nil {
		failed = errors.Join(failed, s.Plugins.Close())
	}
	return failed
}

// Close stops every sandbox and revokes every token.
func (s *Service) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err := s.Stop(ctx)
	s.group.Wait()
	s.Bridge.audit.settle()
	return errors.Join(err, s.closeFiles())
}

// Settings returns what sandbox.json says.
func (s *Service) Settings() Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// change saves the settings with what f does to them. Running sandboxes keep
// theirs.
func (s *Service) change(f func(*Settings)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.settings
	f(&next)
	return s.saveLocked(next)
}

func (s *Service) saveLocked(next Settings) error {
	next.heal()
	if err := next.Save(s.path(settingsFile)); err != nil {
		return err
	}
	s.settings = next
	return nil
}

// driver returns the one that the settings name, or the system's own. There
// is no falling back to another.
func (s *Service) driver(ctx context.Context) (Driver, error) {
	name := s.Settings().Driver
	for _, d := range s.c.Drivers {
		if name != "" && d.Name() != name {
			continue
		}
		if err := d.Available(ctx); err != nil {
			return nil, driverUnavailable(d.Name(), err)
		}
		return d, s.sweep(ctx, d)
	}
	return nil, fault.WithText(fault.SandboxUnavailable, "There is no sandbox driver for this system.")
}

// driverUnavailable says what keeps a driver from running. What is not as it was
// pinned stays what it is.
func driverUnavailable(name string, err error) error {
	if errors.Is(err, fault.ArtifactDamaged) {
		return err
	}
	return fault.WithText(fault.SandboxUnavailable, "The sandbox driver "+name+" is not available: "+strings.TrimPrefix(err.Error(), ErrUnavailable.Error()+": "))
}

// sweep removes, once, what a killed host left behind.
func (s *Service) sweep(ctx context.Context, d Driver) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.swept[d.Name()] {
		return nil
	}
	if err := d.Sweep(ctx); err != nil {
		return err
	}
	s.swept[d.Name()] = true
	return nil
}

// Setup verifies and prepares everything that sandboxes boot from.
func (s *Service) Setup(ctx context.Context) error {
	d, err := s.driver(ctx)
	if err != nil {
		return err
	}
	if err := d.Provision(ctx); err != nil {
		return driverUnavailable(d.Name(), err)
	}
	return s.change(func(set *Settings) { set.SetupComplete, set.ProvisionedBy = true, s.c.Version })
}

// State is what status shows of one environment.
type State struct {
	Sandbox string    `json:"sandbox"`
	AgentID string    `json:"agent_id,omitempty"` // "" is shared
	Users   []string  `json:"users"`
	Network string    `json:"network"`
	Busy    int       `json:"busy"` // commands that run
	Used    time.Time `json:"last_used"`
}

// Status is what status shows.
type Status struct {
	Driver        string  `json:"driver,omitempty"`
	Problem       string  `json:"problem,omitempty"` // why no driver runs
	SetupComplete bool    `json:"setup_complete"`
	NeedsRestart  bool    `json:"needs_restart"` // set up by another version
	PerAgent      bool    `json:"per_agent"`
	Environments  []State `json:"environments"`
}

// Status looks at everything and starts nothing.
func (s *Service) Status(ctx context.Context) Status {
	set := s.Settings()
	out := Status{SetupComplete: set.SetupComplete, NeedsRestart: set.NeedsRestart(s.c.Version), PerAgent: set.PerAgent, Environments: []State{}}
	if d, err := s.driver(ctx); err != nil {
		out.Problem = fault.Of(err).Public()
	} else {
		out.Driver = d.Name()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.running {
		out.Environments = append(out.Environments, s.stateLocked(e))
	}
	return out
}

// Health is what needs no look at the driver.
type Health struct {
	SetupComplete bool `json:"setup_complete"`
	Environments  int  `json:"environments"` // that run
}

// Health returns at once.
func (s *Service) Health() Health {
	set := s.Settings()
	s.mu.Lock()
	defer s.mu.Unlock()
	return Health{set.SetupComplete, len(s.running)}
}

// newID names a sandbox (Spec.ID), and newNonce a boot.
func (s *Service) newID(agentID string) (string, error) {
	raw, err := s.random(4)
	if err != nil {
		return "", err
	}
	stem := "shared00"
	if agentID != "" {
		stem = AgentName(agentID)[:8]
	}
	return "osr-" + stem + "-" + raw, nil
}

func (s *Service) newNonce() (string, error) { return s.random(wire.NonceSize) }

func (s *Service) random(n int) (string, error) {
	raw := make([]byte, n)
	_, err := io.ReadFull(s.c.Rand, raw)
	return hex.EncodeToString(raw), err
}

// workspace is the host directory of an environment, the only one that its
// guest sees.
func (s *Service) workspace(key string) (string, error) {
	dir := filepath.Join(s.path(workspacePath), key)
	return dir, atomicfile.MkdirAll(dir)
}

// Reset stops everything and deletes every workspace, and with the files of
// agents' plugins their recipes.
func (s *Service) Reset(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		s.c.Logger.Warn("before a reset", slog.String("error", err.Error())) // what was not kept goes anyhow
	}
	return errors.Join(s.Plugins.ForgetAll(), os.RemoveAll(s.path(workspacePath)))
}
