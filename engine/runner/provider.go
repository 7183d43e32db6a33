// Package runner runs agents against an OpenAI-compatible model provider:
// streamed runs, dispatched tasks, cancellation and their ownership.
package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// Limits on what a provider may do to us.
const (
	// StallTimeout is how long a provider may be silent within a stream.
	StallTimeout = 120 * time.Second
	// ProbeTimeout is how long a local provider has to answer a probe.
	ProbeTimeout = 2 * time.Second
	// MaxModels bounds the list a provider gives, and maxModelList its bytes.
	MaxModels    = 1000
	maxModelList = 4 << 20
	// MaxEvent bounds one event of a provider's stream in bytes.
	MaxEvent = 4 << 20
)

// Echo is the built-in model for trying the system without a provider. It is
// only used when chosen by name.
const Echo = "echo"

// LocalProviders are probed in this order when none was chosen.
var LocalProviders = []string{"http://127.0.0.1:11434", "http://127.0.0.1:1234", "http://127.0.0.1:8080", "http://127.0.0.1:8000"}

// Endpoint is one OpenAI-compatible server. The zero value is none.
type Endpoint struct {
	BaseURL string // with or without a trailing /v1
	Model   string // "" takes the first the provider lists
	Key     secret.Bytes
	Client  *http.Client
}

// Model is one entry of a provider's list.
type Model struct {
	ID      string `json:"id"`
	Created int64  `json:"created"`
}

func (e Endpoint) url(path string) (string, error) {
	u, err := url.Parse(e.BaseURL)
	if err != nil {
		return "", errors.New("runner: the provider's address does not parse")
	}
	base := u.JoinPath()
	if !strings.HasSuffix(strings.TrimSuffix(base.Path, "/"), "/v1") {
		base = base.JoinPath("v1")
	}
	return base.JoinPath(path).String(), nil
}

// request sends one request. The answer's body fails with errStalled when the
// provider is silent for StallTimeout, as does waiting for the answer.
func (e Endpoint) request(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	target, err := e.url(path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		cancel(nil)
		return nil, errors.New("runner: the provider's address does not parse")
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if !e.Key.IsZero() {
		req.Header.Set("Authorization", "Bearer "+string(e.Key.Expose()))
	}
	w := &watched{ctx: ctx, cancel: cancel}
	w.timer = time.AfterFunc(StallTimeout, func() { cancel(errStalled) })
	resp, err := e.Client.Do(req)
	if err != nil {
		defer w.stop()
		return nil, fault.New(fault.ProviderFailed, w.explain(err))
	}
	w.ReadCloser, resp.Body = resp.Body, w
	return resp, nil
}

// watched is a body whose silence is bounded.
type watched struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.timer.Reset(StallTimeout)
	return n, w.explain(err)
}

func (w *watched) Close() error {
	w.stop()
	return w.ReadCloser.Close()
}

func (w *watched) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// explain names the silence instead of the cancelled read it caused.
func (w *watched) explain(err error) error {
	if err != nil && errors.Is(context.Cause(w.ctx), errStalled) {
		return errStalled
	}
	return err
}

// Models asks for the provider's list.
func (e Endpoint) Models(ctx context.Context) ([]Model, error) {
	resp, err := e.request(ctx, http.MethodGet, "models", nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	var list struct {
		Object string  `json:"object"`
		Data   []Model `json:"data"`
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxModelList))
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(raw, &list) != nil || list.Data == nil {
		return nil, fault.New(fault.ProviderFailed, fmt.Errorf("GET /v1/models answered %d and no OpenAI list", resp.StatusCode))
	}
	return list.Data[:min(len(list.Data), MaxModels)], nil
}

// Probe returns the first local provider that lists models. own is this
// host's port, which is never asked.
func Probe(ctx context.Context, client *http.Client, own int) (Endpoint, []Model, error) {
	for _, base := range LocalProviders {
		u, err := url.Parse(base)
		if err != nil || u.Port() == fmt.Sprint(own) {
			continue
		}
		e := Endpoint{BaseURL: base, Client: client}
		if models, err := probeOne(ctx, e); err == nil {
			return e, models, nil
		}
	}
	return Endpoint{}, nil, fault.NoModelProvider
}

func probeOne(ctx context.Context, e Endpoint) ([]Model, error) {
	ctx, cancel := context.WithTimeout(ctx, ProbeTimeout)
	defer cancel()
	return e.Models(ctx)
}

// model is the one to use for a request that names want.
func (e Endpoint) model(ctx context.Context, want string) (string, error) {
	if want != "" {
		return want, nil
	}
	if e.Model != "" {
		return e.Model, nil
	}
	models, err := e.Models(ctx)
	if err != nil {
		return "", err
	}
	if len(models) == 0 {
		return "", fault.New(fault.NoModelProvider, errors.New("the provider lists no model"))
	}
	return models[0].ID, nil
}
