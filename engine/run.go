package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"osaurus/engine/discovery"
)

// ErrPortInUse says that another program listens where the host should.
var ErrPortInUse = errors.New("the port is in use by another program")

// Listen opens the host's listeners: loopback, or every interface when
// exposed. Port 0 takes a free one.
func (e *Engine) Listen(ctx context.Context) (_ []net.Listener, err error) {
	defer func() { e.listening.Store(err == nil) }()
	s := e.Settings()
	var lc net.ListenConfig
	if s.Expose {
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(s.Port)))
		if err != nil {
			return nil, portError(err, s.Port)
		}
		return []net.Listener{l}, nil
	}
	v4, err := lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)))
	if err != nil {
		return nil, portError(err, s.Port)
	}
	_, port, err := net.SplitHostPort(v4.Addr().String())
	if err != nil {
		return nil, errors.Join(err, v4.Close())
	}
	v6, err := lc.Listen(ctx, "tcp6", net.JoinHostPort("::1", port))
	if err != nil {
		// Machines without IPv6 serve on IPv4 alone.
		return []net.Listener{v4}, nil //nolint:nilerr // see above
	}
	return []net.Listener{v4, v6}, nil
}

// PortError says that the host cannot listen on a port. Err is ErrPortInUse, or
// what the system says.
type PortError struct {
	Port int
	Err  error
}

// Error names the port.
func (e *PortError) Error() string { return fmt.Sprintf("%s: %d", e.Err, e.Port) }

// Unwrap returns the cause.
func (e *PortError) Unwrap() error { return e.Err }

func portError(err error, port int) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		err = ErrPortInUse
	}
	return &PortError{port, err}
}

// Run serves on the listeners until ctx ends, advertises agents, and saves
// the log's head.
func (e *Engine) Run(ctx context.Context, listeners []net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.Event("host_started", slog.String("version", e.config.Version))
	var background sync.WaitGroup
	background.Go(func() { e.advertise(ctx) })
	background.Go(func() { e.keepHead(ctx) })
	background.Go(func() { e.maintain(ctx) })
	background.Go(func() { e.keepTunnel(ctx) })
	err := e.Server.Serve(ctx, listeners...)
	cancel()
	background.Wait()
	e.Event("host_stopped")
	return err
}

func (e *Engine) keepHead(ctx context.Context) {
	tick := time.NewTicker(headInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := e.saveHead(ctx); err != nil {
				e.ports.Logger.Error("log head not saved", slog.String("error", err.Error()))
			}
			e.Channel.Sweep()
		}
	}
}

// retryDelays are the pauses between failed publications (PROTOCOL.md of
// discovery, section 2); the last one repeats.
var retryDelays = []time.Duration{1, 2, 4, 8, 16, 30}

// advertise keeps what is on the network equal to the agents with Bonjour on,
// while the host is exposed.
func (e *Engine) advertise(ctx context.Context) {
	if e.ports.Advertiser == nil {
		return
	}
	defer func() {
		if err := e.ports.Advertiser.Close(); err != nil {
			e.ports.Logger.Warn("goodbye not sent", slog.String("error", err.Error()))
		}
	}()
	failures := 0
	for {
		changed := e.settings.wait()
		var retry <-chan time.Time
		if err := e.ports.Advertiser.Publish(ctx, e.advertised()); err != nil {
			delay := retryDelays[min(failures, len(retryDelays)-1)] * time.Second
			failures++
			e.ports.Logger.Warn("agents are not advertised", slog.String("error", err.Error()), slog.Duration("retryIn", delay))
			retry = time.After(delay)
		} else {
			failures = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-retry:
		}
	}
}

func (e *Engine) advertised() []discovery.Instance {
	if !e.Settings().Expose {
		return nil
	}
	var list []discovery.Instance
	for _, a := range e.Agents.List() {
		if a.BonjourEnabled && !a.BuiltIn {
			list = append(list, discovery.Instance{AgentID: a.ID, Name: a.Name, Description: a.Description, Address: a.Address, PQ: true, Port: e.Server.Port()})
		}
	}
	return list
}

// own reports whether an id is one of our agents, which browsing leaves out.
func (e *Engine) own(agentID string) bool {
	_, ok := e.Agents.Get(agentID)
	return ok
}

// Browse reports agents of other hosts until ctx ends.
func (e *Engine) Browse(ctx context.Context, f func(discovery.Event)) error {
	if e.ports.Browser == nil {
		return errors.New("this system offers no service browser")
	}
	return e.ports.Browser.Browse(ctx, func(ev discovery.Event) {
		if !e.own(ev.Instance.AgentID) {
			f(ev)
		}
	})
}
