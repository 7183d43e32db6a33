package sandbox

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"osaurus/engine/internal/canonjson"
)

// Bounds of a recipe.
const (
	MaxRecipeFiles = 128
	MaxRecipeTools = 64
	MaxRecipeText  = 64 << 10 // bytes of a name, a description or a command
	maxFilePath    = 512      // bytes
)

// Recipe is a SandboxPlugin: files, commands and tools that are installed for
// one agent.
type Recipe struct {
	ID             string            `json:"id,omitempty"`
	Name           string            `json:"name"`
	Description    string            `json:"description,omitempty"`
	Version        string            `json:"version,omitempty"`
	Author         string            `json:"author,omitempty"`
	Source         string            `json:"source,omitempty"`
	Dependencies   []string          `json:"dependencies,omitempty"`
	Setup          string            `json:"setup,omitempty"`
	Files          map[string]string `json:"files,omitempty"`
	Tools          []Tool            `json:"tools,omitempty"`
	Daemon         *Daemon           `json:"daemon,omitempty"`
	Secrets        []string          `json:"secrets,omitempty"`
	AllowedDomains []string          `json:"allowed_domains,omitempty"`
	Permissions    Permissions       `json:"permissions"`
	Metadata       map[string]string `json:"metadata,omitempty"`
	Created        *time.Time        `json:"created_at,omitempty"`
	Updated        *time.Time        `json:"updated_at,omitempty"`
	CreatedBy      string            `json:"created_by,omitempty"`
	CreatedVia     string            `json:"created_via,omitempty"`
}

// Tool is a command of a recipe that a model may call.
type Tool struct {
	ID          string          `json:"id"`
	Name        string          `json:"name,omitempty"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Run         string          `json:"run"`
}

// Daemon is a command of a recipe that keeps running.
type Daemon struct {
	Command string `json:"command"`
}

// Permissions is what a recipe asks for.
type Permissions struct {
	Network   string `json:"network,omitempty"` // none, outbound, or a list of domains
	Inference bool   `json:"inference"`
}

// PluginErrorKind is why a recipe was not installed.
type PluginErrorKind uint8

// The kinds.
const (
	invalidPluginError PluginErrorKind = iota
	PluginInvalid
	PluginUnavailable
	PluginLimited
	PluginFailed
)

// PluginError is a refusal of the pipeline.
type PluginError struct {
	Kind  PluginErrorKind
	Text  string // for the agent
	Retry time.Duration
}

// Error returns the text.
func (e *PluginError) Error() string { return e.Text }

// Status is the HTTP status of the kind.
func (e *PluginError) Status() int {
	switch e.Kind {
	case PluginInvalid:
		return http.StatusBadRequest
	case PluginUnavailable:
		return http.StatusServiceUnavailable
	case PluginLimited:
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}

func invalid(format string, args ...any) error {
	return &PluginError{Kind: PluginInvalid, Text: fmt.Sprintf(format, args...)}
}

var errRecipe = errors.New("sandbox: not a recipe")

// ParseRecipe reads a recipe with ISO-8601 dates. Unknown fields are ignored.
// A recipe without an id gets one from its name.
func ParseRecipe(raw []byte) (Recipe, error) {
	var r Recipe
	if canonjson.Unmarshal(raw, &r) != nil || strings.TrimSpace(r.Name) == "" && r.ID == "" {
		return Recipe{}, errRecipe
	}
	if r.ID == "" {
		r.ID = slug(r.Name)
	}
	if r.Name == "" {
		r.Name = r.ID
	}
	return r, nil
}

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

func slug(name string) string {
	s := strings.Trim(notSlug.ReplaceAllString(strings.ToLower(name), "-"), "-")
	return strings.TrimRight(s[:min(len(s), 64)], "-")
}

// Validate checks a recipe in the order of the pipeline: names and files, the
// hosts its commands mention, its declared secrets. hosts are the patterns of
// the setup policy; has reports whether the agent has a secret.
func (r Recipe) Validate(ctx context.Context, hosts []string, has func(ctx context.Context, name string) (bool, error)) error {
	for _, check := range []func() error{r.checkNames, r.checkFiles, r.checkTools, func() error { return r.checkHosts(hosts) }} {
		if err := check(); err != nil {
			return err
		}
	}
	for _, name := range r.Secrets {
		if !ValidSecretName(name) {
			return invalid("A declared secret has no valid name")
		}
		ok, err := has(ctx, name)
		if err != nil {
			return &PluginError{Kind: PluginUnavailable, Text: "Secrets are not available"}
		}
		if !ok {
			return invalid("Secret %s has no value; set it first", name)
		}
	}
	return nil
}

func (r Recipe) checkNames() error {
	if !ValidPlugin(r.ID) {
		return invalid("Plugin id must be 1 to 64 of a-z, 0-9, dot, dash and underscore")
	}
	for _, s := range []string{r.Name, r.Description, r.Version, r.Author, r.Source, r.Setup} {
		if len(s) > MaxRecipeText || strings.IndexByte(s, 0) >= 0 {
			return invalid("A text of the recipe is too long or contains a NUL byte")
		}
	}
	if len(r.Dependencies) > 0 {
		if _, err := QuotePackages(r.Dependencies); err != nil {
			return invalid("Dependencies: %v", err)
		}
	}
	return nil
}

func (r Recipe) checkFiles() error {
	if len(r.Files) > MaxRecipeFiles {
		return invalid("A recipe has at most %d files", MaxRecipeFiles)
	}
	for name, content := range r.Files {
		if err := checkFileName(name); err != nil {
			return err
		}
		if binary(content) {
			return invalid("A file of the recipe is binary; only text is accepted")
		}
	}
	return nil
}

func checkFileName(name string) error {
	switch {
	case name == "":
		return invalid("A file path is empty")
	case strings.Contains(name, ".."):
		return invalid("A file path contains `..`")
	case strings.HasPrefix(name, "/"):
		return invalid("A file path is absolute")
	case strings.IndexByte(name, 0) >= 0:
		return invalid("A file path contains a NUL byte")
	case len(name) > maxFilePath || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) || strings.ContainsRune(name, '\\') || path.Clean(name) != name || name == ".":
		return invalid("A file path is not in its plain form")
	}
	return nil
}

// binary refuses what is no text, also when it hides behind base64 of a data
// address.
func binary(s string) bool {
	if _, data, ok := strings.Cut(s, ";base64,"); ok && strings.HasPrefix(s, "data:") {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(data))
		return err != nil || binary(string(raw))
	}
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && !strings.ContainsRune("\t\n\r\f\x1b", r)
	})
}

var toolID = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,63}$`)

func (r Recipe) checkTools() error {
	if len(r.Tools) > MaxRecipeTools {
		return invalid("A recipe has at most %d tools", MaxRecipeTools)
	}
	seen := map[string]bool{}
	for i, t := range r.Tools {
		switch {
		case !toolID.MatchString(t.ID):
			return invalid("Tool %d has no valid id", i+1)
		case seen[t.ID]:
			return invalid("Two tools have the same id")
		case strings.TrimSpace(t.Run) == "" || len(t.Run) > MaxRecipeText || strings.IndexByte(t.Run, 0) >= 0:
			return invalid("Tool %d has no command", i+1)
		}
		seen[t.ID] = true
	}
	if r.Daemon != nil && (strings.TrimSpace(r.Daemon.Command) == "" || len(r.Daemon.Command) > MaxRecipeText || strings.IndexByte(r.Daemon.Command, 0) >= 0) {
		return invalid("The daemon has no command")
	}
	return nil
}

// checkHosts looks at every command; the recipe's own declared domains count.
func (r Recipe) checkHosts(hosts []string) error {
	allowed := slices.Concat(hosts, r.Domains())
	commands := map[string]string{"setup": r.Setup}
	for _, t := range r.Tools {
		commands["tool "+t.ID] = t.Run
	}
	if r.Daemon != nil {
		commands["daemon"] = r.Daemon.Command
	}
	for _, d := range r.Dependencies {
		commands["dependencies"] += " " + d
	}
	for where, text := range commands {
		if host := ForeignHost(text, allowed); host != "" {
			return invalid("The command of %s names a host that is not allowed", where)
		}
	}
	return nil
}

// Domains returns the domains a recipe declares, valid ones only.
func (r Recipe) Domains() []string {
	list := slices.Clone(r.AllowedDomains)
	if network := restrictedNetwork(r.Permissions.Network); network != "none" {
		list = append(list, strings.Split(network, ",")...)
	}
	list = slices.DeleteFunc(list, func(p string) bool { return !ValidPattern(strings.ToLower(strings.TrimSpace(p))) })
	patterns, _ := NormalPatterns(list)
	return patterns
}

// Restrict gives a recipe that an agent wrote the defaults such recipes have
// and says where it came from.
func (r Recipe) Restrict(now time.Time) Recipe {
	r.Permissions = Permissions{Network: restrictedNetwork(r.Permissions.Network)}
	r.CreatedBy, r.CreatedVia = "agent", viaBridge
	if r.Created == nil {
		r.Created = &now
	}
	r.Updated = &now
	return r
}

// restrictedNetwork keeps a list of domains only when every one is plain.
func restrictedNetwork(network string) string {
	var kept []string
	for _, d := range strings.Split(network, ",") {
		d = strings.ToLower(strings.TrimSpace(d))
		if !ValidPattern(d) || strings.HasPrefix(d, "*") {
			return "none"
		}
		kept = append(kept, d)
	}
	return strings.Join(kept, ",")
}
