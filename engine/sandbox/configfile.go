package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"osaurus/engine/atomicfile"
	"osaurus/engine/internal/canonjson"
)

// Bounds of one plugin's settings.
const (
	MaxConfigFile = 1 << 20 // bytes
	MaxConfigKey  = 256     // bytes
)

var (
	errConfigLarge = errors.New("sandbox: the settings of this plugin are full")
	errConfigName  = errors.New("sandbox: not the name of a plugin, an agent or a setting")
)

// ConfigFiles keeps plugins' settings below <home>/Tools:
// <plugin>/data/config-<AGENT-UUID>.json for each agent, which is the only
// file ever written, and an older host's config.json beside it, which only
// fills gaps on reading. No name leads out of the directory, whatever links
// stand in it.
type ConfigFiles struct {
	root *os.Root
	mu   sync.Mutex // reading, changing and writing are one step
}

// OpenConfigFiles uses dir, which is made when missing. Close releases it.
func OpenConfigFiles(dir string) (*ConfigFiles, error) {
	if err := atomicfile.MkdirAll(dir); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &ConfigFiles{root: root}, nil
}

// Close releases the directory.
func (c *ConfigFiles) Close() error { return c.root.Close() }

// Value implements ConfigStore.
func (c *ConfigFiles) Value(_ context.Context, agentID, plugin, key string) (string, bool, error) {
	own, legacy, err := configNames(agentID, plugin, key)
	if err != nil {
		return "", false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range []string{own, legacy} {
		values, err := c.read(name)
		if err != nil {
			return "", false, err
		}
		var v string
		if raw, ok := values[key]; ok && json.Unmarshal(raw, &v) == nil {
			return v, true, nil
		}
	}
	return "", false, nil
}

// SetValue implements ConfigStore.
func (c *ConfigFiles) SetValue(_ context.Context, agentID, plugin, key, value string) error {
	own, _, err := configNames(agentID, plugin, key)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	values, err := c.read(own)
	if err != nil {
		return err
	}
	if values[key], err = json.Marshal(value); err != nil {
		return err
	}
	raw, err := canonjson.Marshal(values)
	if err != nil {
		return err
	}
	if len(raw) > MaxConfigFile {
		return errConfigLarge
	}
	if err := c.root.MkdirAll(path.Dir(own), atomicfile.DirMode); err != nil {
		return err
	}
	return atomicfile.WriteIn(c.root, own, raw)
}

// Forget deletes what plugins keep for an agent.
func (c *ConfigFiles) Forget(agentID string) error {
	if !validAgentID(agentID) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	plugins, err := fs.ReadDir(c.root.FS(), ".")
	for _, p := range plugins {
		if own, _, bad := configNames(agentID, p.Name(), "any"); bad == nil {
			if failed := c.root.Remove(own); !errors.Is(failed, fs.ErrNotExist) {
				err = errors.Join(err, failed)
			}
		}
	}
	return err
}

// read returns the settings in a file; none when it is missing.
func (c *ConfigFiles) read(name string) (map[string]json.RawMessage, error) {
	values := map[string]json.RawMessage{}
	f, err := c.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return values, nil
	}
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, MaxConfigFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(raw) > MaxConfigFile || canonjson.Unmarshal(raw, &values) != nil || values == nil {
		return nil, errors.New("sandbox: " + name + " does not parse")
	}
	return values, nil
}

func configNames(agentID, plugin, key string) (own, legacy string, err error) {
	if !ValidPlugin(plugin) || !validAgentID(agentID) || key == "" || len(key) > MaxConfigKey {
		return "", "", errConfigName
	}
	data := path.Join(plugin, "data")
	return path.Join(data, "config-"+strings.ToUpper(agentID)+".json"), path.Join(data, "config.json"), nil
}
