package sandbox

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"osaurus/engine/fault"
)

// Bounds of plugins' daemons.
const (
	DaemonRestarts = 5                 // in a DaemonWindow; one more blocks the plugin
	DaemonWindow   = 300 * time.Second // sliding
	DaemonPause    = time.Second       // between an end and the next start
)

// daemonMonitor blocks a plugin whose daemon restarts too often. It is safe
// for concurrent use.
type daemonMonitor struct {
	now func() time.Time

	mu       sync.Mutex
	restarts map[string][]time.Time
	blocked  map[string]bool
}

func newDaemonMonitor(now func() time.Time) *daemonMonitor {
	return &daemonMonitor{now: now, restarts: map[string][]time.Time{}, blocked: map[string]bool{}}
}

// restart counts a restart and reports whether it may happen.
func (m *daemonMonitor) restart(plugin string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blocked[plugin] {
		return false
	}
	var recent []time.Time
	for _, t := range append(m.restarts[plugin], m.now()) {
		if m.now().Sub(t) < DaemonWindow {
			recent = append(recent, t)
		}
	}
	m.restarts[plugin], m.blocked[plugin] = recent, len(recent) > DaemonRestarts
	return !m.blocked[plugin]
}

func (m *daemonMonitor) isBlocked(plugin string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.blocked[plugin]
}

// unblock lets a plugin start again.
func (m *daemonMonitor) unblock(plugin string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blocked, plugin)
	delete(m.restarts, plugin)
}

// daemon is a plugin's command that keeps running in one guest.
type daemon struct {
	linuxName, plugin string
	cancel            context.CancelFunc
	done              chan struct{}
}

// startDaemon runs a plugin's daemon in place of the one that runs, if the
// owner allows the agent background processes. It makes no sandbox busy: one
// that is idle else makes room for another, and its daemons come back with it.
func (s *Service) startDaemon(e *environment, who Identity, r Recipe) {
	same := func(d *daemon) bool { return d.linuxName == who.LinuxName && d.plugin == r.ID }
	s.stopDaemons(e, same)
	if r.Daemon == nil {
		return
	}
	key := pluginKey(who.AgentID, r.ID)
	switch {
	case !s.Switch(who.AgentID).Background:
		s.note(who, "warn", "plugin "+r.ID+": its daemon does not run, since background processes are switched off for this agent")
		return
	case s.daemons.isBlocked(key):
		s.note(who, "warn", "plugin "+r.ID+": its daemon was restarted too often and does not run")
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &daemon{linuxName: who.LinuxName, plugin: r.ID, cancel: cancel, done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	// Whoever came here meanwhile read the same recipes.
	if s.closed || s.running[e.key] != e || slices.ContainsFunc(e.daemons, same) {
		cancel()
		return
	}
	e.daemons = append(e.daemons, d)
	s.group.Go(func() {
		defer close(d.done)
		defer cancel()
		s.keepRunning(ctx, e, who, r)
	})
}

// keepRunning starts a daemon again whenever it ends, until ctx or the guest
// does, or it has ended too often. What it prints is not kept: it may be
// anything, and osaurus-host log is there.
func (s *Service) keepRunning(ctx context.Context, e *environment, who Identity, r Recipe) {
	pause := time.NewTimer(s.pause)
	defer pause.Stop()
	for {
		exit, err := s.runDaemon(ctx, e, who, r)
		if ctx.Err() != nil {
			return
		}
		select {
		case <-e.guest.Done():
			return
		default:
		}
		said := "with exit code " + strconv.Itoa(exit.Code)
		if err != nil {
			said = "before it ran: " + fault.Of(err).Public()
		}
		if !s.daemons.restart(pluginKey(who.AgentID, r.ID)) {
			s.note(who, "error", "plugin "+r.ID+": its daemon ended "+said+", too often: it is not started again until the plugin is installed anew")
			return
		}
		s.note(who, "warn", "plugin "+r.ID+": its daemon ended "+said+" and is started again")
		pause.Reset(s.pause)
		select {
		case <-pause.C:
		case <-e.guest.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *Service) runDaemon(ctx context.Context, e *environment, who Identity, r Recipe) (Exit, error) {
	secrets, err := s.Secrets.Collect(ctx, who.AgentID, r.ID)
	if err != nil {
		return Exit{}, err
	}
	c := Shell(who.LinuxName, r.Daemon.Command)
	c.Dir, c.Env = pluginDir(who.LinuxName, r.ID), append(secrets.Environment(), append(s.proxyEnv(e), "OSAURUS_PLUGIN="+r.ID)...)
	secrets.Destroy()
	return e.guest.Exec(ctx, c, func(int, []byte) {})
}

// endDaemons tells all daemons of a guest that they end with it.
func (s *Service) endDaemons(e *environment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range e.daemons {
		d.cancel()
	}
}

// stopDaemons ends daemons of a guest and returns when they have ended.
func (s *Service) stopDaemons(e *environment, which func(*daemon) bool) {
	s.mu.Lock()
	var rest, gone []*daemon
	for _, d := range e.daemons {
		if which(d) {
			gone = append(gone, d)
		} else {
			rest = append(rest, d)
		}
	}
	e.daemons = rest
	s.mu.Unlock()
	for _, d := range gone {
		d.cancel()
	}
	for _, d := range gone {
		<-d.done
	}
}

// registered starts the daemon of a plugin that was installed just now.
func (s *Service) registered(who Identity, r Recipe) {
	s.daemons.unblock(pluginKey(who.AgentID, r.ID))
	if e, release, err := s.use(s.keyOf(who.AgentID)); err == nil {
		defer release()
		s.startDaemon(e, who, r)
	}
}

// switchDaemons starts or stops an agent's daemons when the owner switched
// background processes. Nothing starts where nothing runs.
func (s *Service) switchDaemons(agentID string) {
	agentID = strings.ToUpper(agentID)
	name, key := LinuxName(agentID), s.keyOf(agentID)
	s.mu.Lock()
	e := s.running[key]
	there := e != nil && e.users[name]
	s.mu.Unlock()
	if !there {
		return
	}
	who := Identity{AgentID: agentID, LinuxName: name, Sandbox: e.sandbox.ID()}
	if !s.Switch(agentID).Background {
		s.stopDaemons(e, func(d *daemon) bool { return d.linuxName == name })
		return
	}
	for _, r := range s.Plugins.List(agentID) {
		if r.Daemon != nil {
			s.startDaemon(e, who, r)
		}
	}
}
