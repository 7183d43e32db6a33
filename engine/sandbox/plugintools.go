package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"osaurus/engine/internal/canonjson"
)

// Bounds of a call of a plugin's tool.
const (
	MaxParameters  = 64 << 10 // bytes of its arguments
	maxParamName   = 64       // bytes
	paramPrefix    = "PARAM_"
	maxToolName    = 64 // bytes, what providers take
	emptyArguments = `{"additionalProperties":false,"properties":{},"type":"object"}`
)

// pluginTool is a tool of an installed recipe.
type pluginTool struct {
	plugin string
	tool   Tool
}

// offeredAs is the name a model knows it by, "" when none would do.
func (t pluginTool) offeredAs() string {
	name := strings.ReplaceAll(t.plugin, ".", "_") + "_" + t.tool.ID
	if len(name) > maxToolName || slices.ContainsFunc(tools, func(b BuiltinTool) bool { return b.Name == name }) {
		return ""
	}
	return name
}

// pluginTools are those of an agent's recipes, by the names they are offered
// under. Of two with one name the first plugin's is offered.
func (s *Service) pluginTools(agentID string) map[string]pluginTool {
	recipes := s.Plugins.List(agentID)
	slices.SortFunc(recipes, func(a, b Recipe) int { return cmp.Compare(a.ID, b.ID) })
	all := map[string]pluginTool{}
	for _, r := range recipes {
		for _, one := range r.Tools {
			t := pluginTool{r.ID, one}
			name := t.offeredAs()
			if _, taken := all[name]; name != "" && !taken {
				all[name] = t
			}
		}
	}
	return all
}

// offerPlugins describes the tools of an agent's plugins for a model.
func (s *Service) offerPlugins(agentID string) []BuiltinTool {
	all := s.pluginTools(agentID)
	var list []BuiltinTool
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t := all[name]
		list = append(list, BuiltinTool{Name: name, Description: cmp.Or(t.tool.Description, t.tool.Name, name), Parameters: objectSchema(t.tool.Parameters)})
	}
	return list
}

// objectSchema is what a recipe says of its tool's arguments, if that can be a
// schema of an object.
func objectSchema(raw json.RawMessage) json.RawMessage {
	var s struct {
		Type string `json:"type"`
	}
	if canonjson.Unmarshal(raw, &s) != nil || s.Type != "object" {
		return json.RawMessage(emptyArguments)
	}
	return raw
}

// callPlugin runs a plugin's tool in its directory. Arguments are the
// environment variables PARAM_<NAME>, texts as they are and anything else as
// JSON.
func (s *Service) callPlugin(ctx context.Context, agentID string, t pluginTool, raw []byte) (any, error) {
	params, err := parameters(raw)
	if err != nil {
		return nil, err
	}
	return s.Exec(ctx, Run{AgentID: agentID, Line: t.tool.Run, Dir: pluginDir(LinuxName(agentID), t.plugin), Plugin: t.plugin, params: params})
}

var paramName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

func parameters(raw []byte) ([]string, error) {
	var in map[string]json.RawMessage
	if len(raw) > MaxParameters {
		return nil, badArgument("", "the arguments have more than 65536 bytes")
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, nil
	}
	if canonjson.Unmarshal(raw, &in) != nil || in == nil {
		return nil, badArgument("", "the arguments are no JSON object")
	}
	env := map[string]string{}
	for name, value := range in {
		if !paramName.MatchString(name) || len(name) > maxParamName {
			return nil, badArgument(strings.ToValidUTF8(name[:min(len(name), maxFieldName)], ""), "a name is letters, digits and underscore, and begins with a letter")
		}
		text := string(value)
		if v, ok := readAs[string](value); ok {
			text, _ = v.(string)
		}
		key := paramPrefix + strings.ToUpper(name)
		if _, twice := env[key]; twice || strings.IndexByte(text, 0) >= 0 {
			return nil, badArgument(name, "the argument is there twice or holds a NUL byte")
		}
		env[key] = text
	}
	var list []string
	for _, key := range slices.Sorted(maps.Keys(env)) {
		list = append(list, key+"="+env[key])
	}
	return list, nil
}
