package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"time"

	"osaurus/bridge"
	"osaurus/engine"
	"osaurus/engine/control"
	"osaurus/engine/fault"
	"osaurus/engine/pairing"
	"osaurus/engine/secret"
)

// Limits of one host.
const (
	// MaxEvents is how many events wait for somebody to ask; the oldest go.
	MaxEvents = 256
	// attachedFor is how long one who asked for events counts as an approver.
	attachedFor = 2 * time.Minute
	// maxConfig bounds the configuration in bytes.
	maxConfig = 64 << 10
)

// config is what osaurus_start takes.
type config struct {
	Home     string `json:"home"`
	Port     *int   `json:"port"`
	Version  string `json:"version"`
	Portable bool   `json:"portable"`
}

func parseConfig(raw string) (config, error) {
	var c config
	if len(raw) > maxConfig {
		return c, fault.WithText(fault.Usage, fmt.Sprintf("the configuration is longer than %d bytes", maxConfig))
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(raw)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, fault.WithText(fault.Usage, "the configuration is no JSON object of the known keys: "+err.Error())
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return c, fault.WithText(fault.Usage, "the configuration goes on after its object")
	}
	if c.Home == "" {
		return c, fault.WithText(fault.Usage, `the configuration names no "home"`)
	}
	if c.Port != nil && (*c.Port < 0 || *c.Port > 65535) {
		return c, fault.WithText(fault.Usage, `"port" is not in 0 to 65535`)
	}
	return c, nil
}

// host is one running engine.
type host struct {
	engine *engine.Engine
	cancel context.CancelFunc
	done   chan struct{} // closed once the engine left its home

	mu      sync.Mutex
	running bool
	failed  error
	events  []event
	more    chan struct{} // closed and replaced when an event comes
	detach  func()        // nil while nobody asks for events
	expire  *time.Timer
}

// event is what osaurus_next_event returns.
type event struct {
	Event  string          `json:"event"`
	Prompt *pairing.Prompt `json:"prompt,omitempty"`
	ID     string          `json:"id,omitempty"`
	Reason string          `json:"reason,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// start opens the home and serves it.
func start(c config, passphrase secret.Bytes) (_ *host, err error) {
	ports := bridge.Portable()
	if !c.Portable {
		ports = bridge.Default()
	}
	ctx, cancel := context.WithCancel(context.Background())
	e, err := engine.Open(ctx, ports, engine.Config{Home: c.Home, Passphrase: passphrase, Version: c.Version})
	if err != nil {
		cancel()
		return nil, err
	}
	h := &host{engine: e, cancel: cancel, done: make(chan struct{}), running: true, more: make(chan struct{})}
	listeners, socket, err := h.open(ctx, c)
	if err != nil {
		cancel()
		return nil, errors.Join(err, e.Close(context.WithoutCancel(ctx)))
	}
	e.Server.Announce(listeners[0])
	go h.serve(ctx, listeners, socket)
	go h.watch(ctx)
	return h, nil
}

// open prepares what has to stand before anybody is told that the host runs.
func (h *host) open(ctx context.Context, c config) ([]net.Listener, net.Listener, error) {
	if _, err := h.engine.Storage.Converge(ctx, nil); err != nil {
		return nil, nil, err
	}
	// Without the agents' keys the host serves and answers 503; status says so.
	if err := h.engine.Unlock(ctx); err != nil {
		h.add(event{Event: "locked", Error: err.Error()})
	}
	if c.Port != nil {
		h.engine.OverridePort(*c.Port)
	}
	listeners, err := h.engine.Listen(ctx)
	if err != nil {
		return nil, nil, err
	}
	socket, err := control.ListenSocket(ctx, filepath.Join(c.Home, filepath.FromSlash(engine.SocketPath)))
	if err != nil {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		return nil, nil, err
	}
	return listeners, socket, nil
}

// serve runs the engine until it is told to stop, and leaves its home.
func (h *host) serve(ctx context.Context, listeners []net.Listener, socket net.Listener) {
	defer close(h.done)
	var commands sync.WaitGroup
	commands.Go(func() {
		if err := control.NewServer(h.engine, h.cancel).Serve(ctx, socket); err != nil && ctx.Err() == nil {
			h.cancel()
		}
	})
	err := h.engine.Run(ctx, listeners)
	h.cancel()
	commands.Wait()
	err = errors.Join(err, h.engine.Close(context.WithoutCancel(ctx)))
	h.mu.Lock()
	h.running, h.failed = false, err
	h.mu.Unlock()
	last := event{Event: "stopped"}
	if err != nil {
		last.Error = err.Error()
	}
	h.add(last)
}

// watch turns the queue of requests into events.
func (h *host) watch(ctx context.Context) {
	var waiting string
	for {
		current, last, changed := h.engine.Approval.Current()
		id := ""
		if current != nil {
			id = current.ID
		}
		if waiting != "" && waiting != id {
			reason := "withdrawn"
			if last.Prompt.ID == waiting {
				reason = last.Reason
			}
			h.add(event{Event: "approval_ended", ID: waiting, Reason: reason})
		}
		if id != "" && id != waiting {
			h.add(event{Event: "approval", Prompt: current})
		}
		waiting = id
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func (h *host) add(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.events) >= MaxEvents {
		h.events = h.events[1:]
	}
	h.events = append(h.events, e)
	close(h.more)
	h.more = make(chan struct{})
}

// attach counts the caller as an approver for a while.
func (h *host) attach() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.detach != nil {
		h.expire.Reset(attachedFor)
		return
	}
	h.detach = h.engine.Approval.Attach()
	h.expire = time.AfterFunc(attachedFor, h.leave)
}

func (h *host) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.detach != nil {
		h.expire.Stop()
		h.detach()
		h.detach = nil
	}
}

// next waits for the next event; false means that none came in time.
func (h *host) next(wait time.Duration) (event, bool) {
	h.attach()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		h.mu.Lock()
		if len(h.events) > 0 {
			e := h.events[0]
			h.events = h.events[1:]
			h.mu.Unlock()
			return e, true
		}
		more := h.more
		h.mu.Unlock()
		select {
		case <-more:
		case <-timer.C:
			return event{}, false
		}
	}
}

// agentState is an agent as state tells it.
type agentState struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address,omitempty"`
}

// state is what osaurus_state returns.
type state struct {
	Running bool           `json:"running"`
	Port    int            `json:"port"`
	Agents  []agentState   `json:"agents"`
	Status  *engine.Status `json:"status,omitempty"`
}

func (h *host) state() state {
	h.mu.Lock()
	running := h.running
	h.mu.Unlock()
	s := state{Running: running, Agents: []agentState{}}
	if !running {
		return s
	}
	status := h.engine.Status(context.Background())
	s.Status, s.Port = &status, status.Port
	for _, a := range h.engine.Agents.List() {
		one := agentState{ID: a.ID, Name: a.Name}
		if !a.Address.IsZero() {
			one.Address = a.Address.String()
		}
		s.Agents = append(s.Agents, one)
	}
	return s
}

func (h *host) answer(id, validity string) error {
	v, err := pairing.ParseValidity(validity)
	if err != nil {
		return err
	}
	return h.engine.Approval.Answer(id, v)
}

// createIdentity returns JSON that holds the phrase; the caller clears it.
func (h *host) createIdentity() ([]byte, error) {
	created, err := h.engine.CreateIdentity(context.Background())
	defer created.Phrase.Destroy()
	defer created.RecoveryCode.Destroy()
	if err != nil {
		return nil, err
	}
	// Words and codes are plain letters, and a marshaller would keep copies.
	raw := make([]byte, 0, 512)
	raw = append(raw, `{"address":"`+created.Address.String()+`","phrase":"`...)
	raw = append(raw, created.Phrase.Expose()...)
	raw = append(raw, `","recovery_code":"`...)
	raw = append(raw, created.RecoveryCode.Expose()...)
	return append(raw, `"}`...), nil
}

// stop ends the host and waits for it.
func (h *host) stop() error {
	h.leave()
	h.cancel()
	<-h.done
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}
