package sandbox

import (
	"context"
	"log/slog"
	"strings"
	"sync"

	"osaurus/engine/fault"
)

// installLocks make installations wait for each other: those of one agent,
// and those of the system's packages in all sandboxes.
type installLocks struct {
	mu sync.Mutex
	by map[string]chan struct{} // by agent, "" is the system
}

func (l *installLocks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	if l.by == nil {
		l.by = map[string]chan struct{}{}
	}
	c := l.by[name]
	if c == nil {
		c = make(chan struct{}, 1)
		l.by[name] = c
	}
	l.mu.Unlock()
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hold runs f alone among those of one name.
func (l *installLocks) hold(ctx context.Context, name string, f func() error) error {
	unlock, err := l.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	return f()
}

// pluginDir is where a plugin lies in its agent's home.
func pluginDir(linuxName, plugin string) string { return Home(linuxName) + "/plugins/" + plugin }

// install puts a recipe into the agent's place: its files, the system's
// packages it depends on, what its setup does, its daemon.
func (s *Service) install(ctx context.Context, who Identity, r Recipe) error {
	e, release, err := s.use(s.keyOf(who.AgentID))
	if err != nil {
		return err
	}
	defer release()
	if err := s.addPackages(ctx, e, r); err != nil {
		return err
	}
	dir := pluginDir(who.LinuxName, r.ID)
	if err := e.guest.Put(ctx, who.LinuxName, dir+"/.osaurus", 0o600, nil); err != nil {
		return err
	}
	for name, content := range r.Files {
		if err := e.guest.Put(ctx, who.LinuxName, dir+"/"+name, 0o600, []byte(content)); err != nil {
			return err
		}
	}
	if strings.TrimSpace(r.Setup) == "" {
		return nil
	}
	c := Shell(who.LinuxName, r.Setup)
	c.Dir, c.Idle, c.Env = dir, ScriptPackageTime, append(s.proxyEnv(e), "OSAURUS_PLUGIN="+r.ID)
	done, err := execute(ctx, e.guest, c, nil)
	if err == nil && done.ExitCode != 0 {
		err = fault.WithText(fault.Unsupported, "the setup command failed")
	}
	return err
}

// addPackages installs what a recipe depends on, as the guest's root, from the
// indexes of the guest's own system. What a package's scripts do they do to the
// whole guest, so that no agent brings them into one that it shares.
func (s *Service) addPackages(ctx context.Context, e *environment, r Recipe) error {
	if len(r.Dependencies) == 0 {
		return nil
	}
	if e.agentID == "" {
		return fault.WithText(fault.Unsupported, "packages are installed only where each agent has a sandbox of its own")
	}
	quoted, err := QuotePackages(r.Dependencies)
	if err != nil {
		return err
	}
	c := Shell("", "apk add --no-cache "+strings.Join(quoted, " "))
	c.Idle, c.Env = SystemPackageTime, s.proxyEnv(e)
	return s.installs.hold(ctx, "", func() error {
		done, err := execute(ctx, e.guest, c, nil)
		switch {
		case err != nil:
			return err
		case done.ExitCode == exitNoProgram:
			return fault.WithText(fault.Unsupported, "the image of this sandbox has no apk, which installs packages")
		case done.ExitCode != 0:
			return fault.WithText(fault.Unsupported, "a package could not be installed")
		}
		return nil
	})
}

// exitNoProgram is what a shell says when there is no such program.
const exitNoProgram = 127

// revive brings back what a new guest lacks of an agent's plugins: packages,
// which lay in its memory, and daemons. A plugin that does not come back costs
// no agent its sandbox.
func (s *Service) revive(ctx context.Context, e *environment, who Identity) {
	for _, r := range s.Plugins.List(who.AgentID) {
		if err := s.addPackages(ctx, e, r); err != nil {
			s.note(who, "warn", "plugin "+r.ID+": "+fault.Of(err).Public())
		}
		s.startDaemon(e, who, r)
	}
}

// note writes a line of our own into the log of agents.
func (s *Service) note(who Identity, level, text string) {
	s.Logs.Log(LogEntry{Time: s.c.Now(), Level: level, Source: who.LinuxName, Message: text})
	s.c.Logger.Debug("sandbox", slog.String("note", text))
}
