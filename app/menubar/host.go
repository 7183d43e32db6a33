//go:build darwin && cgo

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"osaurus/app/cli"
	"osaurus/app/panes"
	"osaurus/bridge"
	"osaurus/engine"
	"osaurus/engine/control"
	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// host is the engine in this process; a panes.Serving. Its control socket is
// how the panes, and the command line, reach it.
type host struct {
	home string
	tell func(panes.ServingState)
	ask  func(ctx context.Context, again bool) (passphrase secret.Bytes, given bool)

	mu   sync.Mutex
	stop context.CancelFunc // nil while none runs
	done chan struct{}
}

// Start implements panes.Serving.
func (h *host) Start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	h.stop, h.done = stop, make(chan struct{})
	h.tell(panes.ServingState{Phase: panes.Starting})
	go h.run(ctx, stop, h.done)
}

// Stop implements panes.Serving.
func (h *host) Stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stop != nil {
		h.stop()
	}
}

// wait returns once no engine runs.
func (h *host) wait() {
	h.mu.Lock()
	done := h.done
	h.mu.Unlock()
	if done != nil {
		<-done
	}
}

func (h *host) run(ctx context.Context, stop context.CancelFunc, done chan struct{}) {
	err := h.serve(ctx, stop)
	h.mu.Lock()
	h.stop = nil
	h.mu.Unlock()
	close(done)
	state := panes.ServingState{Phase: panes.Stopped}
	if err != nil {
		state = panes.FailedState(err)
	}
	h.tell(state)
}

// open opens the home. A sealed keystore file needs its passphrase, which is
// asked for until it fits or the person gives up.
func (h *host) open(ctx context.Context) (*engine.Engine, error) {
	config := engine.Config{Home: h.home, Version: cli.Version}
	e, err := engine.Open(ctx, bridge.Default(), config)
	_, none := os.Lstat(filepath.Join(h.home, bridge.KeystoreFile))
	for again := false; errors.Is(err, fault.KeystoreLocked) && none == nil && ctx.Err() == nil; again = true {
		passphrase, given := h.ask(ctx, again)
		if !given {
			break
		}
		config.Passphrase = passphrase
		e, err = engine.Open(ctx, bridge.Default(), config)
		passphrase.Destroy()
	}
	return e, err
}

// serve opens the home and serves it until ctx ends.
func (h *host) serve(ctx context.Context, stop context.CancelFunc) (err error) {
	e, err := h.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close(context.WithoutCancel(ctx))) }()
	if _, err := e.Storage.Converge(ctx, nil); err != nil {
		return err
	}
	// Without the agents' keys the host still serves, and the panes say so.
	_ = e.Unlock(ctx)
	listeners, err := e.Listen(ctx)
	if err != nil {
		return err
	}
	socket, err := control.ListenSocket(ctx, filepath.Join(h.home, filepath.FromSlash(engine.SocketPath)))
	if err != nil {
		return err
	}
	var commands sync.WaitGroup
	commands.Go(func() {
		if err := control.NewServer(e, stop).Serve(ctx, socket); err != nil && ctx.Err() == nil {
			stop()
		}
	})
	e.Server.Announce(listeners[0])
	h.tell(panes.ServingState{Phase: panes.Running, Port: e.Server.Port()})
	err = e.Run(ctx, listeners)
	stop()
	commands.Wait()
	return err
}
