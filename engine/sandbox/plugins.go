package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
	"osaurus/engine/ratelimit"
)

// viaBridge is how a recipe came to be.
const viaBridge = "host_bridge"

// Names of a recipe on disk. One that is not installed yet has both ends.
const (
	recipeEnd  = ".json"
	pendingEnd = ".pending"
)

// PluginsConfig configures OpenPlugins. Dir, MayCreate, Secrets, Running and
// Install are required.
type PluginsConfig struct {
	Dir       string // recipes stand in <dir>/<AGENT-UUID>/<plugin>.json
	Hosts     []string
	MayCreate func(agentID string) bool
	Secrets   SecretStore
	Running   func(agentID string) bool // whether the agent's sandbox runs
	// Install puts a saved recipe into the sandbox.
	Install func(ctx context.Context, who Identity, r Recipe) error
	// Registered is told of a recipe that is installed from now on.
	Registered func(who Identity, r Recipe)
	Rate       int // recipes in a Window; 0 means DefaultRates.HTTP
	Now        func() time.Time
}

// Plugins takes recipes that agents write: check, restrict, save, install,
// register. It is safe for concurrent use.
type Plugins struct {
	c       PluginsConfig
	root    *os.Root
	limiter *ratelimit.Limiter
	locks   installLocks

	mu        sync.Mutex
	installed map[string]Recipe // by agent and plugin
}

// OpenPlugins reads the recipes of every agent. One that does not parse is
// left where it is and is not installed; one whose installation a stopped host
// did not finish is removed.
func OpenPlugins(c PluginsConfig) (*Plugins, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rate == 0 {
		c.Rate = DefaultRates.HTTP
	}
	if c.Hosts == nil {
		c.Hosts = DefaultSetupHosts
	}
	if c.Registered == nil {
		c.Registered = func(Identity, Recipe) {}
	}
	if err := atomicfile.MkdirAll(c.Dir); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return nil, err
	}
	p := &Plugins{c: c, root: root, installed: map[string]Recipe{}, limiter: ratelimit.New(ratelimit.Options{Limit: c.Rate, Window: Window, Now: c.Now})}
	return p, p.load()
}

// Close releases the directory.
func (p *Plugins) Close() error { return p.root.Close() }

func (p *Plugins) load() error {
	agents, err := os.ReadDir(p.c.Dir)
	if err != nil {
		return err
	}
	for _, a := range agents {
		if !a.IsDir() || !validAgentID(a.Name()) {
			continue
		}
		files, err := os.ReadDir(path.Join(p.c.Dir, a.Name()))
		if err != nil {
			return err
		}
		for _, f := range files {
			if strings.HasSuffix(f.Name(), recipeEnd+pendingEnd) {
				if err := p.root.Remove(path.Join(a.Name(), f.Name())); err != nil {
					return err
				}
				continue
			}
			id, ok := strings.CutSuffix(f.Name(), recipeEnd)
			if !ok || !f.Type().IsRegular() || !ValidPlugin(id) {
				continue
			}
			raw, err := p.root.ReadFile(path.Join(a.Name(), f.Name()))
			if r, parseErr := ParseRecipe(raw); err == nil && parseErr == nil && r.ID == id {
				p.installed[pluginKey(a.Name(), id)] = r
			}
		}
	}
	return nil
}

func pluginKey(agentID, plugin string) string { return strings.ToUpper(agentID) + "/" + plugin }

// MayCreate implements PluginRegistrar.
func (p *Plugins) MayCreate(agentID string) bool { return p.c.MayCreate(agentID) }

// Installed implements PluginRegistrar.
func (p *Plugins) Installed(agentID, plugin string) (Recipe, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.installed[pluginKey(agentID, plugin)]
	return r, ok
}

// List returns an agent's recipes.
func (p *Plugins) List(agentID string) []Recipe {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []Recipe
	for key, r := range p.installed {
		if strings.HasPrefix(key, strings.ToUpper(agentID)+"/") {
			list = append(list, r)
		}
	}
	return list
}

// Create implements PluginRegistrar. The order is part of the protocol: a
// recipe that is refused for what it says charges no limit.
func (p *Plugins) Create(ctx context.Context, who Identity, r Recipe) (Plugin, error) {
	has := func(ctx context.Context, name string) (bool, error) {
		s, err := p.c.Secrets.Secret(ctx, who.AgentID, r.ID, name)
		defer s.Destroy()
		if errors.Is(err, fault.KeyNotFound) {
			return false, nil
		}
		return err == nil && !s.IsZero(), err
	}
	if err := r.Validate(ctx, p.c.Hosts, has); err != nil {
		return Plugin{}, err
	}
	if wait, ok := p.limiter.Allow(who.AgentID); !ok {
		return Plugin{}, &PluginError{Kind: PluginLimited, Text: "Rate limit exceeded", Retry: wait}
	}
	if !p.c.Running(who.AgentID) {
		return Plugin{}, &PluginError{Kind: PluginUnavailable, Text: "Sandbox is not running", Retry: time.Second}
	}
	r = r.Restrict(p.c.Now().UTC().Truncate(time.Second))
	err := p.locks.hold(ctx, strings.ToUpper(who.AgentID), func() error { return p.add(ctx, who, r) })
	if err != nil {
		return Plugin{}, err
	}
	return r.summary(), nil
}

var errNotSaved = &PluginError{Kind: PluginFailed, Text: "The plugin could not be saved"}

// add saves, installs and registers. The recipe has its name on disk only once
// it is installed; until then, and when that fails, an earlier one stands.
func (p *Plugins) add(ctx context.Context, who Identity, r Recipe) error {
	name := path.Join(strings.ToUpper(who.AgentID), r.ID+recipeEnd)
	if err := p.save(name+pendingEnd, r); err != nil {
		return errNotSaved
	}
	if err := p.c.Install(ctx, who, r); err != nil {
		_ = p.root.Remove(name + pendingEnd) // else the next start does
		return &PluginError{Kind: PluginFailed, Text: "The plugin could not be installed: " + fault.Of(err).Public()}
	}
	if err := p.commit(name); err != nil {
		return errNotSaved
	}
	p.mu.Lock()
	p.installed[pluginKey(who.AgentID, r.ID)] = r
	p.mu.Unlock()
	p.c.Registered(who, r)
	return nil
}

// Forget deletes an agent's recipes.
func (p *Plugins) Forget(agentID string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.installed, func(key string, _ Recipe) bool { return strings.HasPrefix(key, pluginKey(agentID, "")) })
	if !validAgentID(agentID) {
		return nil
	}
	return p.root.RemoveAll(strings.ToUpper(agentID))
}

// ForgetAll deletes the recipes of every agent.
func (p *Plugins) ForgetAll() error {
	agents, err := os.ReadDir(p.c.Dir)
	for _, a := range agents {
		if validAgentID(a.Name()) {
			err = errors.Join(err, p.Forget(a.Name()))
		}
	}
	return err
}

func (r Recipe) summary() Plugin {
	out := Plugin{ID: r.ID, Name: r.Name, Tools: []ToolName{}}
	for _, t := range r.Tools {
		name := t.Name
		if name == "" {
			name = t.ID
		}
		out.Tools = append(out.Tools, ToolName{name, t.Description})
	}
	return out
}

func (p *Plugins) save(name string, r Recipe) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if raw, err = canonjson.Marshal(json.RawMessage(raw)); err != nil {
		return err
	}
	if err := p.root.MkdirAll(path.Dir(name), atomicfile.DirMode); err != nil {
		return err
	}
	return atomicfile.WriteIn(p.root, name, raw)
}

// commit gives a saved recipe its name, durably.
func (p *Plugins) commit(name string) error {
	if err := p.root.Rename(name+pendingEnd, name); err != nil {
		return err
	}
	dir, err := p.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// created is the answer of plugin/create.
type created struct {
	Plugin
	Status string `json:"status"`
}

func (c *call) createPlugin() (any, error) {
	if !c.only(http.MethodPost, "plugin", "create") {
		return nil, refuse(http.StatusBadRequest, "POST /api/plugin/create expected")
	}
	if !c.c.Plugins.MayCreate(c.who.AgentID) {
		return nil, &failure{status: http.StatusForbidden, text: "Plugin creation is disabled for this agent", why: switchedOff}
	}
	recipe, err := ParseRecipe(c.body)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "Invalid plugin JSON")
	}
	plugin, err := c.c.Plugins.Create(c.r.Context(), c.who, recipe)
	if err != nil {
		return nil, pluginFailure(err)
	}
	return created{plugin, "installed"}, nil
}

func pluginFailure(err error) error {
	e, ok := errors.AsType[*PluginError](err)
	if !ok {
		return failed("Plugin creation failed: ", err)
	}
	f := &failure{status: e.Status(), text: e.Text, retry: e.Retry}
	if e.Kind == PluginLimited {
		f.why = tooMany
	}
	return f
}
