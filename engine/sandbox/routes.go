package sandbox

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"

	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// pluginName is what may stand in X-Osaurus-Plugin: it names a directory.
var pluginName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// eventType is what may follow "SandboxEvent.".
var eventType = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)

// ValidPlugin reports whether name can be a plugin's id.
func ValidPlugin(name string) bool {
	return pluginName.MatchString(name) && !strings.Contains(name, "..")
}

// routeNames are the routes as audit records call them.
var routeNames = []string{
	"secrets", "config", "inference/chat", "agent/dispatch", "agent/memory/query", "agent/memory/store", "events/emit", "plugin/create", "log",
}

// routeName never returns what a guest wrote.
func routeName(path []string) string {
	if len(path) == 0 || path[0] != "api" {
		return "unknown"
	}
	rest := strings.Join(path[1:], "/")
	for _, name := range routeNames {
		if rest == name || strings.HasPrefix(rest, name+"/") {
			return name
		}
	}
	return "unknown"
}

func (c *call) route() (any, error) {
	switch c.path[0] {
	case "secrets":
		return c.secret()
	case "config":
		return c.config()
	case "inference":
		return c.inference()
	case "agent":
		return c.agent()
	case "events":
		return c.emit()
	case "plugin":
		return c.createPlugin()
	case "log":
		return c.log()
	}
	return nil, refuse(http.StatusNotFound, "Unknown service: "+c.path[0])
}

// only reports whether the request is method on exactly the path named.
func (c *call) only(method string, path ...string) bool {
	return c.r.Method == method && len(c.path) == len(path) && strings.Join(c.path, "/") == strings.Join(path, "/")
}

// limit charges a bucket.
func (c *call) limit(bucket, who, text string) error {
	if wait, ok := c.limits.allow(bucket, who); !ok {
		return &failure{status: http.StatusTooManyRequests, text: text, why: tooMany, retry: wait}
	}
	return nil
}

func (c *call) limitHTTP() error {
	return c.limit(bucketHTTP, c.who.LinuxName, "Rate limit exceeded")
}

// plugin returns the caller's word for which plugin it is; missing is the
// text when there is none.
func (c *call) plugin(missing string) (string, error) {
	switch list := c.r.Header.Values("X-Osaurus-Plugin"); {
	case len(list) == 0 || len(list) == 1 && strings.TrimSpace(list[0]) == "":
		return "", refuse(http.StatusBadRequest, missing)
	case len(list) == 1 && ValidPlugin(list[0]):
		return list[0], nil
	}
	return "", refuse(http.StatusBadRequest, "Invalid X-Osaurus-Plugin header")
}

type value struct {
	Value string `json:"value"`
}

func (c *call) secret() (any, error) {
	if c.r.Method != http.MethodGet || len(c.path) != 2 {
		return nil, refuse(http.StatusBadRequest, "GET /api/secrets/{name} expected")
	}
	if err := c.limitHTTP(); err != nil {
		return nil, err
	}
	plugin, err := c.plugin("X-Osaurus-Plugin header required")
	if err != nil {
		return nil, err
	}
	s, err := c.c.Secrets.Secret(c.r.Context(), c.who.AgentID, plugin, c.path[1])
	if errors.Is(err, fault.KeyNotFound) {
		return nil, refuse(http.StatusNotFound, "Secret not found")
	}
	if err != nil {
		return nil, refuse(http.StatusServiceUnavailable, "Secrets are not available")
	}
	defer s.Destroy()
	return value{string(s.Expose())}, nil
}

func (c *call) config() (any, error) {
	if err := c.limitHTTP(); err != nil {
		return nil, err
	}
	const missing = "Plugin and key required"
	plugin, err := c.plugin(missing)
	if err != nil {
		return nil, err
	}
	if len(c.path) != 2 {
		return nil, refuse(http.StatusBadRequest, missing)
	}
	switch c.r.Method {
	case http.MethodGet:
		return c.readConfig(plugin, c.path[1])
	case http.MethodPost:
		return c.writeConfig(plugin, c.path[1])
	}
	return nil, &failure{status: http.StatusMethodNotAllowed, text: "Method not allowed", allow: "GET, POST"}
}

func (c *call) readConfig(plugin, key string) (any, error) {
	v, ok, err := c.c.Settings.Value(c.r.Context(), c.who.AgentID, plugin, key)
	if err != nil {
		return nil, configFailed(err)
	}
	if !ok {
		return nil, refuse(http.StatusNotFound, "Config key not found")
	}
	return value{v}, nil
}

func (c *call) writeConfig(plugin, key string) (any, error) {
	var in struct {
		Value *string `json:"value"`
	}
	if canonjson.Unmarshal(c.body, &in) != nil || in.Value == nil {
		return nil, refuse(http.StatusBadRequest, `Body must contain {"value": "..."}`)
	}
	if err := c.c.Settings.SetValue(c.r.Context(), c.who.AgentID, plugin, key, *in.Value); err != nil {
		return nil, configFailed(err)
	}
	return struct{}{}, nil
}

func configFailed(err error) error {
	if errors.Is(err, errConfigLarge) {
		return refuse(http.StatusBadRequest, "Config is full")
	}
	return refuse(http.StatusInternalServerError, "Config store failed")
}

func (c *call) inference() (any, error) {
	if !c.only(http.MethodPost, "inference", "chat") {
		return nil, refuse(http.StatusBadRequest, "POST /api/inference/chat expected")
	}
	if err := c.limit(bucketInference, c.who.LinuxName, "Rate limit exceeded for inference"); err != nil {
		return nil, err
	}
	if plugin := c.r.Header.Get("X-Osaurus-Plugin"); ValidPlugin(plugin) {
		if recipe, ok := c.c.Plugins.Installed(c.who.AgentID, plugin); ok && !recipe.Permissions.Inference {
			return nil, &failure{status: http.StatusForbidden, text: "Inference is disabled for this plugin", why: switchedOff}
		}
	}
	model, messages, err := chatRequest(c.body)
	if err != nil {
		return nil, err
	}
	content, err := c.c.Inference.Chat(c.r.Context(), c.who.AgentID, model, messages)
	if err != nil {
		return nil, failed("Inference failed: ", err)
	}
	return map[string]string{"content": content}, nil
}

// chatRequest drops entries that lack a role or a content.
func chatRequest(body []byte) (model string, messages []Message, err error) {
	var in map[string]json.RawMessage
	if canonjson.Unmarshal(body, &in) != nil || in == nil {
		return "", nil, refuse(http.StatusBadRequest, "Invalid JSON body")
	}
	var entries []json.RawMessage
	if json.Unmarshal(in["messages"], &entries) != nil {
		return "", nil, refuse(http.StatusBadRequest, "Messages array required")
	}
	for _, raw := range entries {
		var m struct{ Role, Content *string }
		if json.Unmarshal(raw, &m) == nil && m.Role != nil && m.Content != nil {
			messages = append(messages, Message{*m.Role, *m.Content})
		}
	}
	if len(messages) == 0 {
		return "", nil, refuse(http.StatusBadRequest, "Messages array required")
	}
	if json.Unmarshal(in["model"], &model) != nil || model == "" {
		model = "default"
	}
	return model, messages, nil
}

// failed shows the public text of a cause.
func failed(what string, err error) error {
	return refuse(http.StatusInternalServerError, what+fault.Of(err).Public())
}

func (c *call) emit() (any, error) {
	if !c.only(http.MethodPost, "events", "emit") {
		return nil, refuse(http.StatusBadRequest, "POST /api/events/emit expected")
	}
	if err := c.limitHTTP(); err != nil {
		return nil, err
	}
	var in map[string]json.RawMessage
	var kind string
	if canonjson.Unmarshal(c.body, &in) != nil || json.Unmarshal(in["type"], &kind) != nil || kind == "" {
		return nil, refuse(http.StatusBadRequest, "Body must contain type")
	}
	if !eventType.MatchString(kind) {
		return nil, refuse(http.StatusBadRequest, "Invalid event type")
	}
	payload := json.RawMessage(`{}`)
	if raw, ok := in["payload"]; ok {
		var err error
		if payload, err = canonjson.Marshal(raw); err != nil {
			return nil, refuse(http.StatusBadRequest, "Body must contain type")
		}
	}
	if err := c.c.Events.Publish(c.r.Context(), "SandboxEvent."+kind, c.source(), payload); err != nil {
		return nil, failed("Event failed: ", err)
	}
	return struct{}{}, nil
}

func (c *call) source() string { return "sandbox:" + c.who.LinuxName }

func (c *call) log() (any, error) {
	if c.r.Method != http.MethodPost {
		return nil, &failure{status: http.StatusMethodNotAllowed, text: "POST expected", allow: http.MethodPost}
	}
	if err := c.limitHTTP(); err != nil {
		return nil, err
	}
	var in struct {
		Level   *string `json:"level"`
		Message *string `json:"message"`
	}
	if canonjson.Unmarshal(c.body, &in) != nil || in.Level == nil || in.Message == nil {
		return nil, refuse(http.StatusBadRequest, "Body must contain level and message")
	}
	c.c.Logs.Log(LogEntry{Time: c.c.Now(), Level: level(*in.Level), Source: c.who.LinuxName, Message: *in.Message})
	return struct{}{}, nil
}
