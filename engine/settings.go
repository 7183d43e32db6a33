package engine

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	"osaurus/engine/fault"
	"osaurus/engine/runner"
	"osaurus/engine/secret"
	"osaurus/engine/settings"
)

const (
	providerService = "com.osaurus.provider"
	providerAccount = "api-key"
)

// settingsStore holds what the owner chose and tells who waits when it, or
// anything that is advertised, changed.
type settingsStore struct {
	home string

	mu       sync.Mutex
	current  settings.Server
	provider settings.Provider
	wake     chan struct{}
}

func (s *settingsStore) load(home string) (err error) {
	s.home, s.wake = home, make(chan struct{})
	if s.current, err = settings.Adopt(s.file("server"), settings.DefaultServer(), settings.TakeServer); err != nil {
		return err
	}
	s.provider, err = settings.Adopt(s.file("provider"), settings.Provider{}, nil)
	return err
}

func (s *settingsStore) file(concern string) string {
	return filepath.Join(s.home, "config", concern+".json")
}

func (s *settingsStore) server() settings.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *settingsStore) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.wake)
	s.wake = make(chan struct{})
}

func (s *settingsStore) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wake
}

// Settings returns the server's settings.
func (e *Engine) Settings() settings.Server { return e.settings.server() }

// SetSettings saves the server's settings. Listeners change at the next start.
func (e *Engine) SetSettings(next settings.Server) error {
	e.settings.mu.Lock()
	err := settings.Save(e.settings.file("server"), next)
	if err == nil {
		e.settings.current = next
	}
	e.settings.mu.Unlock()
	e.settings.changed()
	return err
}

// Provider returns the confirmed provider; zero when none is.
func (e *Engine) Provider() settings.Provider {
	e.settings.mu.Lock()
	defer e.settings.mu.Unlock()
	return e.settings.provider
}

// UseProvider confirms a provider. A zero key leaves none stored.
func (e *Engine) UseProvider(ctx context.Context, p settings.Provider, key secret.Bytes) error {
	if err := p.Validate(); err != nil {
		return fault.WithText(fault.Usage, err.Error())
	}
	var err error
	if key.IsZero() {
		err = e.store.Delete(ctx, providerService, providerAccount)
	} else {
		err = e.store.Put(ctx, providerService, providerAccount, key)
	}
	if err != nil {
		return err
	}
	e.settings.mu.Lock()
	defer e.settings.mu.Unlock()
	if err := settings.Save(e.settings.file("provider"), p); err != nil {
		return err
	}
	e.settings.provider = p
	return nil
}

// ProbeProviders looks for a local provider. It is only offered; UseProvider
// confirms it (decisions C19).
func (e *Engine) ProbeProviders(ctx context.Context) (runner.Endpoint, []runner.Model, error) {
	return runner.Probe(ctx, e.ports.Client, e.Server.Port())
}

// endpoint is the confirmed provider with its key.
func (e *Engine) endpoint(ctx context.Context) (runner.Endpoint, error) {
	p := e.Provider()
	if p.BaseURL == "" {
		return runner.Endpoint{}, nil
	}
	key, err := e.store.Get(ctx, providerService, providerAccount)
	if err != nil && !errors.Is(err, fault.KeyNotFound) {
		return runner.Endpoint{}, fault.New(fault.ProviderFailed, err)
	}
	return runner.Endpoint{BaseURL: p.BaseURL, Model: p.Model, Key: key, Client: e.ports.Client}, nil
}

// OverridePort listens elsewhere for this run only; the settings stay.
func (e *Engine) OverridePort(port int) {
	e.settings.mu.Lock()
	defer e.settings.mu.Unlock()
	e.settings.current.Port = port
}
