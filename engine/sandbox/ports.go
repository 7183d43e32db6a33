package sandbox

import (
	"context"
	"encoding/json"
	"time"

	"osaurus/engine/secret"
)

// SecretStore is where agents' secrets are.
type SecretStore interface {
	// Secret returns a copy that the caller destroys: the value of the plugin
	// within the agent, else the agent's own. Neither is fault.KeyNotFound.
	Secret(ctx context.Context, agentID, plugin, name string) (secret.Bytes, error)
}

// ConfigStore is where plugins keep settings, for each agent apart.
type ConfigStore interface {
	// Value returns a setting and whether there is one.
	Value(ctx context.Context, agentID, plugin, key string) (string, bool, error)
	// SetValue replaces a setting durably.
	SetValue(ctx context.Context, agentID, plugin, key, value string) error
}

// Message is one turn for Inference.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Inference answers for an agent.
type Inference interface {
	// Chat returns the whole answer. The model "default" is the host's choice.
	Chat(ctx context.Context, agentID, model string, messages []Message) (string, error)
}

// Job is a task that an agent gives itself.
type Job struct {
	AgentID string
	Task    string
	Session string // external_session_key, "" for none
	Source  string // "sandbox:<linux name>"
}

// Dispatcher starts jobs.
type Dispatcher interface {
	// Dispatch returns the task's id, "" when it took nothing.
	Dispatch(ctx context.Context, job Job) (string, error)
}

// Fact is something an agent was told to remember.
type Fact struct {
	Content  string
	Salience float64
	Created  time.Time
}

// Memory is what agents remember.
type Memory interface {
	// Query finds at most limit pinned facts of this agent, and of no other.
	Query(ctx context.Context, agentID, text string, limit int) ([]Fact, error)
	// Store pins a fact for this agent.
	Store(ctx context.Context, agentID, content string, salience float64, tag string) error
}

// EventBus takes what agents announce.
type EventBus interface {
	// Publish gets a name of at most 77 characters and compact JSON.
	Publish(ctx context.Context, name, source string, payload json.RawMessage) error
}

// Plugin is what is known of a recipe once installed.
type Plugin struct {
	ID    string     `json:"plugin_id"`
	Name  string     `json:"plugin_name"`
	Tools []ToolName `json:"tools"`
}

// ToolName is a tool of a plugin.
type ToolName struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// PluginRegistrar keeps and installs recipes.
type PluginRegistrar interface {
	// MayCreate reports whether the agent's switches allow it.
	MayCreate(agentID string) bool
	// Create takes a recipe that an agent wrote. Its errors are *PluginError,
	// anything else counts as a failed execution.
	Create(ctx context.Context, who Identity, recipe Recipe) (Plugin, error)
	// Installed returns a recipe of the agent by plugin id.
	Installed(agentID, plugin string) (Recipe, bool)
}

// LogEntry is one line an agent logged.
type LogEntry struct {
	Time    time.Time `json:"time"`
	Level   string    `json:"level"`
	Source  string    `json:"source"` // linux name
	Message string    `json:"message"`
}

// LogSink takes what agents log.
type LogSink interface{ Log(LogEntry) }
