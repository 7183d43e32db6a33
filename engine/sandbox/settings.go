package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"osaurus/engine/atomicfile"
	"osaurus/engine/internal/canonjson"
)

// Bounds of sandbox.json.
const (
	MinCPUs, MaxCPUs, DefaultCPUs       = 1, 8, 2
	MinMemoryGB, MaxMemoryGB, DefaultGB = 1, 8, 2
	DefaultEnvironments                 = 3
	MaxEnvironments                     = 32
	GuestPIDs                           = 4096 // gVisor's own threads count
)

// Settings is config/sandbox.json, in the form older hosts wrote: keys it
// does not know are kept, values out of bounds are brought within. The lastBoot
// stamps and the runtime's format are those of hosts that keep a disk between
// boots and are left as they are: here every boot unpacks what it verified.
type Settings struct {
	CPUs            int       `json:"cpus"`
	MemoryGB        int       `json:"memoryGB"`
	Network         string    `json:"network"`
	AutoStart       bool      `json:"autoStart"`
	SetupComplete   bool      `json:"setupComplete"`
	AllowedDomains  []string  `json:"allowedDomains,omitempty"`
	ProvisionedBy   string    `json:"lastProvisionedAppVersion,omitempty"`
	BootDurations   []float64 `json:"lastBootDurations,omitempty"`
	BootedImage     string    `json:"lastBootedImageDigest,omitempty"`
	RuntimeFormat   string    `json:"lastRuntimeFormatVersion,omitempty"`
	PerAgent        bool      `json:"perAgentEnvironments"`
	MaxEnvironments int       `json:"maxAgentEnvironments"`
	Driver          string    `json:"driver,omitempty"` // "" takes the system's own
	Limits          string    `json:"limits,omitempty"` // "best-effort" starts without cgroups

	extra map[string]json.RawMessage
}

// DefaultSettings are those of a host that has no file. A file without
// setupComplete was written by a host that had set up.
func DefaultSettings() Settings {
	return Settings{CPUs: DefaultCPUs, MemoryGB: DefaultGB, Network: "outbound", PerAgent: true, MaxEnvironments: DefaultEnvironments}
}

// LoadSettings reads path. A missing file is the defaults.
func LoadSettings(path string) (Settings, error) {
	s := DefaultSettings()
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	s.SetupComplete = true
	if canonjson.Unmarshal(raw, &s) != nil || json.Unmarshal(raw, &s.extra) != nil {
		return DefaultSettings(), fmt.Errorf("%s does not parse", path)
	}
	s.heal()
	return s, nil
}

// heal brings numbers within bounds.
func (s *Settings) heal() {
	s.CPUs = min(max(s.CPUs, MinCPUs), MaxCPUs)
	s.MemoryGB = min(max(s.MemoryGB, MinMemoryGB), MaxMemoryGB)
	s.MaxEnvironments = min(max(s.MaxEnvironments, 1), MaxEnvironments)
}

// Domains returns the valid patterns of the owner's list.
func (s Settings) Domains() []string {
	var valid []string
	for _, p := range s.AllowedDomains {
		if ValidPattern(strings.ToLower(strings.TrimSpace(p))) {
			valid = append(valid, p)
		}
	}
	patterns, _ := NormalPatterns(valid)
	return patterns
}

// Mode returns the network that an agent's sandbox gets; allowed is the
// agent's own switch. Off wins over domains. Valid domains select the proxy,
// which needs one sandbox for each agent; a proxy without domains, or any word
// we do not know, is no network at all. "none" is what the switch of an
// earlier boot left and gives way to this one's.
func (s Settings) Mode(allowed bool) Network {
	switch domains := s.Domains(); {
	case !allowed:
		return NetworkNone
	case len(domains) > 0 && s.PerAgent:
		return NetworkProxy
	case len(domains) > 0:
		return NetworkNone
	case s.Network == "outbound" || s.Network == "none":
		return NetworkOutbound
	}
	return NetworkNone
}

// Reconcile returns the settings with an agent's switch copied into them, as
// they are saved at its boot.
func (s Settings) Reconcile(allowed bool) Settings {
	if s.Mode(true) != NetworkNone { // what failed closed stays on record as it is
		s.Network = s.Mode(allowed).String()
	}
	return s
}

// Save replaces path durably, with the keys of other versions.
func (s Settings) Save(path string) error {
	s.heal()
	own, err := json.Marshal(s)
	if err != nil {
		return err
	}
	all := map[string]json.RawMessage{}
	for k, v := range s.extra {
		all[k] = v
	}
	for _, k := range []string{"allowedDomains", "lastProvisionedAppVersion", "lastBootDurations", "lastBootedImageDigest", "lastRuntimeFormatVersion", "driver", "limits"} {
		delete(all, k) // written again unless empty
	}
	if err := json.Unmarshal(own, &all); err != nil {
		return err
	}
	raw, err := canonjson.Marshal(all)
	if err != nil {
		return err
	}
	if err := atomicfile.MkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	return atomicfile.Write(path, raw)
}

// NeedsRestart reports whether the sandbox was set up by another version.
func (s Settings) NeedsRestart(version string) bool {
	return s.SetupComplete && s.ProvisionedBy != version
}
