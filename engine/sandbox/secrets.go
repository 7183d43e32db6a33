package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// Where secrets stand in the keystore. Account of an agent's own:
// <AGENT-UUID>.<key>; of a plugin within it: <AGENT-UUID>.<plugin>/<key>.
const (
	AgentSecrets  = "ai.osaurus.agent-secrets" //nolint:gosec // a service's name
	PluginSecrets = "ai.osaurus.tools"         //nolint:gosec // a service's name
)

// Bounds of a secret.
const (
	MaxSecret = 64 << 10 // bytes
	MinScrub  = 6        // bytes; shorter values are too common to replace
)

// Vault is the part of keystore.Store that secrets need.
type Vault interface {
	Get(ctx context.Context, service, account string) (secret.Bytes, error)
	Put(ctx context.Context, service, account string, value secret.Bytes) error
	Delete(ctx context.Context, service, account string) error
	List(ctx context.Context, service string) ([]string, error)
}

// Secrets are agents' secrets in the keystore.
type Secrets struct{ vault Vault }

// NewSecrets uses v.
func NewSecrets(v Vault) *Secrets { return &Secrets{v} }

var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,127}$`)

// ValidSecretName reports whether name can name a secret.
func ValidSecretName(name string) bool { return secretName.MatchString(name) }

// account is one item; plugin "" is the agent's own.
func account(agentID, plugin, name string) (service, item string) {
	agentID = strings.ToUpper(agentID)
	if plugin == "" {
		return AgentSecrets, agentID + "." + name
	}
	return PluginSecrets, agentID + "." + plugin + "/" + name
}

func checkSecret(agentID, plugin, name string) error {
	if !validAgentID(agentID) || plugin != "" && !ValidPlugin(plugin) || !ValidSecretName(name) {
		return fault.WithText(fault.Usage, "a secret is named by letters, digits, dot, dash and underscore, and belongs to an agent")
	}
	return nil
}

// Set stores a secret; plugin "" makes it the agent's own.
func (s *Secrets) Set(ctx context.Context, agentID, plugin, name string, value secret.Bytes) error {
	if err := checkSecret(agentID, plugin, name); err != nil {
		return err
	}
	if value.IsZero() || value.Len() > MaxSecret || !utf8.Valid(value.Expose()) || bytes.IndexByte(value.Expose(), 0) >= 0 {
		return fault.WithText(fault.Usage, "a secret's value is text of 1 to 65536 bytes without NUL")
	}
	service, item := account(agentID, plugin, name)
	return s.vault.Put(ctx, service, item, value)
}

// Delete removes a secret. A missing one is no error.
func (s *Secrets) Delete(ctx context.Context, agentID, plugin, name string) error {
	if err := checkSecret(agentID, plugin, name); err != nil {
		return err
	}
	service, item := account(agentID, plugin, name)
	return s.vault.Delete(ctx, service, item)
}

// Secret implements SecretStore.
func (s *Secrets) Secret(ctx context.Context, agentID, plugin, name string) (secret.Bytes, error) {
	if checkSecret(agentID, plugin, name) != nil {
		return secret.Bytes{}, fault.KeyNotFound
	}
	if plugin != "" {
		v, err := s.vault.Get(ctx, PluginSecrets, strings.ToUpper(agentID)+"."+plugin+"/"+name)
		if err == nil || !errors.Is(err, fault.KeyNotFound) {
			return v, err
		}
	}
	service, item := account(agentID, "", name)
	return s.vault.Get(ctx, service, item)
}

// Names lists what is set for an agent, or for a plugin within it.
func (s *Secrets) Names(ctx context.Context, agentID, plugin string) ([]string, error) {
	service, prefix := account(agentID, plugin, "")
	items, err := s.vault.List(ctx, service)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, item := range items {
		if name, ok := strings.CutPrefix(item, prefix); ok && ValidSecretName(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Named is a secret with its name.
type Named struct {
	Name  string
	Value secret.Bytes
}

// Collection is what one command of an agent may see. Destroy ends it.
type Collection []Named

// Collect returns an agent's secrets, those of a plugin over its own.
func (s *Secrets) Collect(ctx context.Context, agentID, plugin string) (all Collection, err error) {
	defer func() {
		if err != nil {
			all.Destroy()
			all = nil
		}
	}()
	names, err := s.Names(ctx, agentID, "")
	if err != nil {
		return nil, err
	}
	if plugin != "" {
		more, err := s.Names(ctx, agentID, plugin)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		v, err := s.Secret(ctx, agentID, plugin, name)
		if errors.Is(err, fault.KeyNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return all, err
		}
		all = append(all, Named{name, v})
	}
	return all, nil
}

// CollectAll returns every secret of an agent, those of all its plugins
// included: what its commands can ask the bridge for, and results must not
// show.
func (s *Secrets) CollectAll(ctx context.Context, agentID string) (all Collection, err error) {
	defer func() {
		if err != nil {
			all.Destroy()
			all = nil
		}
	}()
	prefix := strings.ToUpper(agentID) + "."
	for _, service := range []string{AgentSecrets, PluginSecrets} {
		items, err := s.vault.List(ctx, service)
		if err != nil {
			return all, err
		}
		for _, item := range items {
			name, mine := strings.CutPrefix(item, prefix)
			if !mine {
				continue
			}
			v, err := s.vault.Get(ctx, service, item)
			if errors.Is(err, fault.KeyNotFound) {
				continue // removed meanwhile
			}
			if err != nil {
				return all, err
			}
			all = append(all, Named{name[strings.LastIndexByte(name, '/')+1:], v})
		}
	}
	return all, nil
}

// Destroy overwrites every value.
func (c Collection) Destroy() {
	for _, n := range c {
		n.Value.Destroy()
	}
}

// reserved names decide what a command is and how it runs.
var reserved = []string{
	"PATH", "HOME", "SHELL", "USER", "LOGNAME", "DYLD_INSERT_LIBRARIES", "VIRTUAL_ENV", "OSAURUS_PLUGIN", "BASH_ENV", "ENV", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "FTP_PROXY",
}

// Reserved reports whether no secret may become the variable name.
func Reserved(name string) bool {
	upper := strings.ToUpper(name)
	return strings.HasPrefix(upper, "LD_") || slices.Contains(reserved, upper)
}

// Environment returns NAME=value for each secret that may be a variable. The
// strings must not outlive the call that starts the command.
func (c Collection) Environment() []string {
	var env []string
	for _, n := range c {
		if !Reserved(n.Name) {
			env = append(env, n.Name+"="+string(n.Value.Expose()))
		}
	}
	return env
}

// Scrub replaces every value of at least MinScrub bytes in text by
// [REDACTED:<NAME>], longest first, so that a value inside another leaves no
// rest.
func (c Collection) Scrub(text []byte) []byte {
	long := slices.DeleteFunc(slices.Clone(c), func(n Named) bool { return n.Value.Len() < MinScrub })
	slices.SortStableFunc(long, func(a, b Named) int { return cmp.Compare(b.Value.Len(), a.Value.Len()) })
	for _, n := range long {
		text = bytes.ReplaceAll(text, n.Value.Expose(), []byte("[REDACTED:"+n.Name+"]"))
	}
	return text
}

// RedactArguments returns the arguments of a tool call as they may be kept:
// the value that sandbox_secret_set was given is not.
func RedactArguments(tool string, args map[string]any) map[string]any {
	if _, has := args["value"]; tool != "sandbox_secret_set" || !has {
		return args
	}
	kept := make(map[string]any, len(args))
	for k, v := range args {
		kept[k] = v
	}
	kept["value"] = "[REDACTED]"
	return kept
}
