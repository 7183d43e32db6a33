package engine

import (
	"cmp"
	"context"
	"slices"

	"osaurus/engine/identity"
	"osaurus/engine/keystore"
	"osaurus/engine/runner"
)

// Finding is one thing doctor says.
type Finding struct {
	ID    string `json:"id"`
	Level string `json:"level"` // ok, warning, error
	Title string `json:"title"`
	Text  string `json:"text,omitempty"`
	Next  string `json:"next,omitempty"` // the command to type
}

// Status is what the host knows of itself. It holds no secret.
type Status struct {
	Version      string    `json:"version"`
	Home         string    `json:"home"`
	Serving      bool      `json:"serving"` // a host; not a home that is open for a command
	Port         int       `json:"port"`
	Exposed      bool      `json:"exposed"`
	Identity     string    `json:"identity"`
	Address      string    `json:"address,omitempty"`
	Acknowledged bool      `json:"phrase_acknowledged"`
	Device       string    `json:"device"`
	Keystore     string    `json:"keystore"`
	Unlocked     bool      `json:"agents_unlocked"`
	Agents       int       `json:"agents"`
	Keys         int       `json:"access_keys"`
	Peers        int       `json:"peers"`
	Provider     string    `json:"provider,omitempty"`
	InFlight     int       `json:"in_flight"`
	Approvers    bool      `json:"approvers_attached"`
	LogSeq       uint64    `json:"log_seq"`
	Findings     []Finding `json:"findings"`
}

// Status looks at every part without asking the owner.
func (e *Engine) Status(ctx context.Context) Status {
	id, idErr := e.Account.Status(ctx)
	s := Status{
		Version: e.config.Version, Home: e.config.Home, Serving: e.listening.Load(), Port: e.Server.Port(), Exposed: e.Settings().Expose, Identity: id.State.String(), Acknowledged: id.Acknowledged,
		Device: id.Device.ID, Keystore: e.store.Strength().String(), Unlocked: e.Agents.Unlocked(), Keys: len(e.Keys.List()),
		Provider: e.Provider().BaseURL, InFlight: e.Runner.InFlight(), Approvers: e.Approval.Attached(),
	}
	if peers, err := e.Peers.List(); err == nil { // a finding tells why not
		s.Peers = len(peers)
	}
	if !id.Address.IsZero() {
		s.Address = id.Address.String()
	}
	for _, a := range e.Agents.List() {
		if !a.BuiltIn {
			s.Agents++
		}
	}
	if e.log != nil {
		s.LogSeq = e.log.Head().Seq
	}
	s.Findings = slices.Concat(e.identityFindings(id, idErr), e.keyFindings(), e.storageFindings(ctx), e.serviceFindings(), e.relayFindings())
	return s
}

// Diagnose is Status, and asks the provider whether it answers, which takes up
// to runner.ProbeTimeout.
func (e *Engine) Diagnose(ctx context.Context) Status {
	s := e.Status(ctx)
	if s.Provider == "" {
		return s
	}
	if err := e.probeProvider(ctx); err != nil {
		at := slices.IndexFunc(s.Findings, func(f Finding) bool { return f.ID == "provider" })
		s.Findings[at] = Finding{"provider", "warning", "The model provider at " + s.Provider + " does not answer as one", err.Error(), "osaurus provider probe"}
	}
	return s
}

func (e *Engine) probeProvider(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, runner.ProbeTimeout)
	defer cancel()
	p, err := e.endpoint(ctx)
	if err != nil {
		return err
	}
	_, err = p.Models(ctx)
	return err
}

func (e *Engine) identityFindings(id identity.Status, err error) []Finding {
	var f []Finding
	switch {
	case err != nil:
		f = append(f, Finding{"identity", "error", "The identity's record cannot be read", err.Error(), "osaurus identity restore"})
	case id.State == identity.None:
		f = append(f, Finding{"identity", "warning", "There is no identity yet", "Nothing can be paired without one.", "osaurus identity create"})
	case id.State == identity.Locked:
		f = append(f, Finding{"identity", "error", "The keystore is locked", "The identity is there but cannot be read.", nextUnlocked(e.store.Strength())})
	case id.State == identity.Missing:
		f = append(f, Finding{"identity", "error", "The identity's key is missing from the keystore", "Restore it from the 24-word phrase; nothing is replaced until you do.", "osaurus identity restore"})
	case !id.Acknowledged:
		f = append(f, Finding{"backup", "warning", "The recovery phrase is not confirmed as saved", "Without it a lost disk loses the identity.", "osaurus identity phrase"})
	default:
		f = append(f, Finding{ID: "identity", Level: "ok", Title: "The identity is there and its phrase was saved"})
	}
	if err == nil && id.State == identity.Ready && !e.Agents.Unlocked() {
		f = append(f, Finding{"agents-locked", "error", "The agents' keys are not in memory", "The keystore did not give the master key at the start, so others get no answer. Start the host again when it does.", "osaurus serve"})
	}
	if d := e.Agents.Health().Drift; d.Any() {
		f = append(f, Finding{"drift", "error", "Agents or keys do not belong to this identity", "Restore the phrase they belong to, repair forward, or reset.", "osaurus identity drift"})
	}
	for name, err := range e.Agents.Damaged() {
		f = append(f, Finding{"agent-file", "error", "agents/" + name + " was not loaded", err.Error(), "osaurus agents list"})
	}
	return f
}

// nextUnlocked is how the owner gets at a keystore of a kind.
func nextUnlocked(kind keystore.Strength) string {
	if kind == keystore.Passphrase {
		return "osaurus doctor --passphrase-fd 0"
	}
	return "unlock the keyring or keychain of this login, then: osaurus doctor"
}

func (e *Engine) keyFindings() []Finding {
	var f []Finding
	if locked, ok := e.store.(keystore.Locked); ok { // whatever else is wrong comes of this
		return []Finding{{"keystore", "error", "The keystore does not open", locked.Why().Error(), nextUnlocked(locked.Strength())}}
	}
	switch e.store.Strength() {
	case keystore.Unwrapped:
		f = append(f, Finding{"keystore", "warning", "Secrets are encrypted, but the key lies beside the data", "Whoever copies the home can read them. A passphrase seals the keystore.", "osaurus identity passphrase set"})
	default:
		f = append(f, Finding{ID: "keystore", Level: "ok", Title: "The keystore is sealed by a " + e.store.Strength().String()})
	}
	if r, ok := e.store.(keystore.Remarker); ok {
		if sentence, explanation := r.Remark(); sentence != "" {
			f = append(f, Finding{"keystore-place", "warning", sentence, explanation, "osaurus identity phrase"}) // to move to a build that is entitled
		}
	}
	if err := e.Keys.Problem(); err != nil {
		f = append(f, Finding{"access-keys", "error", "Access keys are limited", err.Error(), "osaurus keys list"})
	}
	if e.logErr != nil {
		f = append(f, Finding{"log", "error", "The security log cannot be written", e.logErr.Error(), "osaurus log verify"})
	}
	return f
}

func (e *Engine) serviceFindings() []Finding {
	var f []Finding
	if p := e.Provider(); p.BaseURL == "" {
		f = append(f, Finding{"provider", "warning", "No model provider is chosen", "Runs need one, except with the model named echo.", "osaurus provider probe"})
	} else {
		f = append(f, Finding{ID: "provider", Level: "ok", Title: "Models run at " + p.BaseURL})
	}
	if len(e.Agents.Addresses()) == 0 {
		f = append(f, Finding{"agents", "warning", "There is no agent that others can reach", "The built-in agent is yours alone.", "osaurus agents create NAME"})
	}
	if e.listening.Load() && len(e.Agents.Addresses()) > 0 && !e.Approval.Attached() {
		f = append(f, Finding{"approvers", "warning", "Nobody can answer requests to pair", "Each is refused at once. The terminal of osaurus serve, the settings page and the command below answer them.", "osaurus approvals watch"})
	}
	if e.Settings().Expose {
		f = append(f, Finding{ID: "exposed", Level: "ok", Title: "The host listens on every interface, so local callers need a key too"})
	}
	return f
}

// health is the long form of GET /health.
func (e *Engine) health(ctx context.Context) map[string]any {
	s := e.Status(ctx)
	connected := map[string]string{}
	for _, r := range e.RelayStatus() {
		connected[r.Address.Lower()] = r.State.String()
	}
	return map[string]any{
		"relay": connected, "identity": s.Identity, "keystore": s.Keystore, "agents": s.Agents, "provider": s.Provider != "", "exposed": s.Exposed,
		"stores": e.storeStates(), "sandbox": e.Sandbox.Health(),
	}
}

// storeStates is the state of each database, or what keeps it closed.
func (e *Engine) storeStates() map[string]string {
	states := map[string]string{}
	s, err := e.Storage.Status()
	if err != nil {
		states["error"] = err.Error()
	}
	for _, st := range s.Stores {
		states[string(st.ID)] = cmp.Or(string(st.Issue), st.State)
	}
	return states
}
