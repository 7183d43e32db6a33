package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// sharedKey is the environment of shared mode.
const sharedKey = "shared"

// environment is one running sandbox with its channel.
type environment struct {
	key     string
	agentID string  // "" in shared mode
	network Network // as the settings have it; networkOf is what holds
	egress  *Egress // nil without a network
	mounted bool    // homes lie on the host
	homes   string  // where they are kept otherwise
	kept    time.Time
	sandbox Sandbox
	guest   *Guest
	cancel  context.CancelFunc // ends the channel
	served  chan struct{}      // closed when it has ended
	ended   chan struct{}      // closed when nothing is left of the environment
	users   map[string]bool
	daemons []*daemon
	busy    int
	used    time.Time
}

func (s *Service) stateLocked(e *environment) State {
	return State{Sandbox: e.sandbox.ID(), AgentID: e.agentID, Network: s.networkOfLocked(e).String(), Busy: e.busy, Used: e.used, Users: append([]string{}, slices.Sorted(maps.Keys(e.users))...)}
}

// attempt is one start or provisioning that several callers wait for.
type attempt struct {
	done chan struct{}
	err  error
}

// once runs f for key, or waits for the one that already runs. It goes on
// when the caller stops waiting: others may be.
func (s *Service) once(ctx context.Context, key string, f func(ctx context.Context) error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	a := s.attempts[key]
	if a == nil {
		a = &attempt{done: make(chan struct{})}
		s.attempts[key] = a
		s.group.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), StartTimeout)
			defer cancel()
			a.err = f(ctx)
			s.mu.Lock()
			delete(s.attempts, key)
			s.mu.Unlock()
			close(a.done)
		})
	}
	s.mu.Unlock()
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Service) keyOf(agentID string) string {
	if s.Settings().PerAgent {
		return strings.ToUpper(agentID)
	}
	return sharedKey
}

// Running reports whether the agent's sandbox runs.
func (s *Service) Running(agentID string) bool {
	key := s.keyOf(agentID)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[key] != nil
}

// Provision makes ready an agent's place: workspace, sandbox, user and home,
// the map of users, token file, SOUL.md, in this order. It may be called
// again; calls for one agent share one attempt.
func (s *Service) Provision(ctx context.Context, agentID string) error {
	agentID = strings.ToUpper(agentID)
	return s.once(ctx, "agent "+agentID, func(ctx context.Context) error { return s.provision(ctx, agentID) })
}

func (s *Service) provision(ctx context.Context, agentID string) error {
	name, uid, err := s.users.Assign(agentID)
	if err != nil {
		return err
	}
	key := s.keyOf(agentID)
	if err := s.once(ctx, "start "+key, func(ctx context.Context) error { return s.start(ctx, key, agentID) }); err != nil {
		return err
	}
	e, release, err := s.use(key)
	if err != nil {
		return err
	}
	defer release()
	s.mu.Lock()
	fresh := !e.users[name]
	s.mu.Unlock()
	if err := e.guest.AddUser(ctx, name, uid); err != nil {
		return err
	}
	if fresh {
		if err := s.restore(ctx, e, name); err != nil {
			return err
		}
	}
	who := Identity{agentID, name, uid, e.sandbox.ID()}
	_, err = s.tokens.Register(who, func(t secret.Bytes) error { return e.guest.PutToken(ctx, name, t) })
	if err != nil {
		return err
	}
	if fresh {
		s.seed(ctx, e, who)
	}
	s.mu.Lock()
	e.users[name] = true
	s.mu.Unlock()
	if fresh {
		s.recheckNetworks() // one who has none may have come into a shared sandbox
		s.revive(ctx, e, who)
	}
	return nil
}

// soul is what an agent finds in its home the first time: SOUL.md, unless
// anything has that name, be it a link that leads nowhere.
const (
	soul     = "# SOUL\n\nWhat you write here you find again next time.\n"
	seedSoul = "[ -e SOUL.md ] || [ -h SOUL.md ] || { umask 077; set -C; printf '%s' \"$soul\" > SOUL.md; }"
	seedTime = 10 * time.Second
)

// seed writes SOUL.md in a new home, as the agent. A home that does not take it
// costs no agent its sandbox.
func (s *Service) seed(ctx context.Context, e *environment, who Identity) {
	c := Shell(who.LinuxName, seedSoul)
	c.Env, c.Idle = []string{"soul=" + soul}, seedTime
	if done, err := execute(ctx, e.guest, c, nil); err != nil || done.ExitCode != 0 {
		s.note(who, "warn", "SOUL.md could not be written")
	}
}

// start boots the environment of key unless it runs.
func (s *Service) start(ctx context.Context, key, agentID string) error {
	s.mu.Lock()
	there, generation := s.running[key] != nil, s.generation
	s.mu.Unlock()
	if there {
		return nil
	}
	d, err := s.driver(ctx)
	if err != nil {
		return err
	}
	if err := s.makeRoom(ctx, key); err != nil {
		return err
	}
	if key == sharedKey {
		agentID = ""
	}
	e, err := s.boot(ctx, d, key, agentID)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if err := s.outdatedLocked(generation); err != nil {
		s.mu.Unlock()
		return errors.Join(err, s.end(ctx, e))
	}
	s.running[key] = e
	s.mu.Unlock()
	s.c.Log("sandbox_started", slog.String("sandbox", e.sandbox.ID()), slog.String("driver", d.Name()), slog.String("network", s.networkOf(e).String()))
	s.group.Go(func() { s.watch(e) })
	return nil
}

// outdatedLocked says why a sandbox that has just booted may not run.
func (s *Service) outdatedLocked(generation int) error {
	switch {
	case s.closed:
		return ErrClosed
	case s.generation != generation:
		return errReconfigured
	}
	return nil
}

// boot starts the guest and waits for its control stream. A failure leaves no
// guest, no channel and no token.
func (s *Service) boot(ctx context.Context, d Driver, key, agentID string) (*environment, error) {
	dir, err := s.workspace(key)
	if err != nil {
		return nil, err
	}
	spec, mode, err := s.spec(agentID)
	if err != nil {
		return nil, err
	}
	mounted := mounts(d)
	if mounted {
		spec.Workspace = dir
	}
	box, err := d.Start(ctx, spec)
	if errors.Is(err, ErrUnavailable) {
		return nil, driverUnavailable(d.Name(), err)
	}
	if err != nil {
		return nil, err
	}
	e := &environment{key: key, agentID: agentID, network: mode, mounted: mounted, homes: dir, kept: s.c.Now(), sandbox: box, served: make(chan struct{}), ended: make(chan struct{}), users: map[string]bool{}, used: s.c.Now()}
	attached := make(chan *Guest, 1)
	ch := &Channel{Sandbox: spec.ID, AgentID: agentID, Nonce: spec.Boot.Nonce, Listener: box.BridgeListener(), Bridge: s.Bridge, Control: func(c net.Conn) { attached <- NewGuest(c) }}
	if spec.Network == NetworkProxy {
		e.egress = s.egress(e)
		ch.Proxy = e.egress.Serve
	}
	var serve context.Context
	serve, e.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(e.served)
		_ = ch.Serve(serve) // it ends with the sandbox
	}()
	select {
	case e.guest = <-attached:
		return e, nil
	case <-box.Done():
		err = fmt.Errorf("sandbox: the guest ended while it booted: %w%s", errors.Join(box.Err()), said(box))
	case <-ctx.Done():
		err = fmt.Errorf("sandbox: the guest did not answer: %w%s", ctx.Err(), said(box))
	}
	return nil, errors.Join(err, s.end(context.WithoutCancel(ctx), e))
}

// said is what a guest printed while it booted, where the driver keeps it.
func said(box Sandbox) string {
	if o, ok := box.(interface{ Output() string }); ok {
		if text := strings.TrimSpace(o.Output()); text != "" {
			return ": " + text
		}
	}
	return ""
}

// makeRoom stops the least recently used idle environment when there are as
// many as allowed. One whose homes cannot be kept stays.
func (s *Service) makeRoom(ctx context.Context, key string) error {
	if key == sharedKey {
		return nil
	}
	stuck := map[*environment]bool{}
	for {
		limit := s.Settings().MaxEnvironments
		s.mu.Lock()
		var oldest *environment
		for _, e := range s.running {
			if e.busy == 0 && !stuck[e] && (oldest == nil || e.used.Before(oldest.used)) {
				oldest = e
			}
		}
		full := len(s.running) >= limit
		s.mu.Unlock()
		switch {
		case !full:
			return nil
		case oldest == nil:
			return fault.WithText(fault.ServerOverloaded, "As many sandboxes as allowed are busy. Try again shortly.")
		}
		if err := s.keepAll(ctx, oldest); err != nil {
			stuck[oldest] = true
			s.c.Logger.Warn("a sandbox does not make room, since a home in it was not kept", slog.String("error", err.Error()))
			continue
		}
		// What is left of it is no business of the agent that needs the room.
		if err := s.dropIf(ctx, oldest, func() bool { return oldest.busy == 0 }); err != nil {
			s.c.Logger.Error("a sandbox did not end as it should", slog.String("error", err.Error()))
		}
	}
}

// use marks an environment as busy until release.
func (s *Service) use(key string) (e *environment, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e = s.running[key]; e == nil {
		return nil, nil, fault.WithText(fault.Unsupported, "The sandbox is not running.")
	}
	e.busy, e.used = e.busy+1, s.c.Now()
	return e, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		e.busy, e.used = e.busy-1, s.c.Now()
	}, nil
}

// watch ends an environment whose guest ended by itself.
func (s *Service) watch(e *environment) {
	select {
	case <-e.sandbox.Done():
	case <-e.guest.Done():
	}
	if err := s.drop(context.Background(), e); err != nil {
		s.c.Logger.Error("a sandbox did not end", slog.String("error", err.Error()))
	}
}

// drop forgets an environment and ends it. Only the first call does.
func (s *Service) drop(ctx context.Context, e *environment) error {
	return s.dropIf(ctx, e, func() bool { return true })
}

func (s *Service) dropIf(ctx context.Context, e *environment, still func() bool) error {
	s.mu.Lock()
	mine := s.running[e.key] == e && still()
	if mine {
		delete(s.running, e.key)
	}
	s.mu.Unlock()
	if !mine {
		return nil
	}
	s.c.Log("sandbox_stopped", slog.String("sandbox", e.sandbox.ID()))
	return s.end(ctx, e)
}

// end tears down: tokens first, so that nothing is answered any more.
func (s *Service) end(ctx context.Context, e *environment) error {
	defer close(e.ended)
	s.tokens.RevokeSandbox(e.sandbox.ID())
	ctx = context.WithoutCancel(ctx)
	s.endDaemons(e)
	kept := s.keepAll(ctx, e)
	ctx, cancel := context.WithTimeout(ctx, StopTimeout)
	defer cancel()
	if e.guest != nil {
		_ = e.guest.Shutdown(ctx) // the driver kills what does not end
		_ = e.guest.Close()
	}
	err := e.sandbox.Stop(ctx)
	e.cancel()
	<-e.served
	return errors.Join(kept, err)
}
