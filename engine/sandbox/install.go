package sandbox

import (
	"context"
	"strings"
	"sync"
)

// installLocks make installations wait for each other: those of one agent,
// and those of the system's packages in all sandboxes.
type installLocks struct {
	mu sync.Mutex
	by map[string]chan struct{} // by agent, "" is the system
}

func (l *installLocks) lock(name string) (unlock func()) {
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
	c <- struct{}{}
	return func() { <-c }
}

// hold runs f alone among the installations of an agent, and of the system
// when i is Apk.
func (l *installLocks) hold(agentID string, i Installer, f func() error) error {
	defer l.lock(agentID)()
	if i == Apk {
		defer l.lock("")()
	}
	return f()
}

// commands of the installers; the specifiers follow, quoted.
var installCommands = map[Installer]string{Apk: "apk add --no-cache ", Pip: "pip install --user ", Npm: "npm install "}

// InstallPackages installs packages for an agent. apk runs as the guest's
// root, the others as the agent.
func (s *Service) InstallPackages(ctx context.Context, agentID string, i Installer, list []string) (Result, error) {
	idle, err := i.Time()
	if err != nil {
		return Result{}, err
	}
	quoted, err := QuotePackages(list)
	if err != nil {
		return Result{}, err
	}
	if err := s.Provision(ctx, agentID); err != nil {
		return Result{}, err
	}
	e, release, err := s.use(s.keyOf(agentID))
	if err != nil {
		return Result{}, err
	}
	defer release()
	c := Shell(LinuxName(agentID), installCommands[i]+strings.Join(quoted, " "))
	if i == Apk {
		c.User = ""
	}
	c.Idle, c.Env = idle, s.proxyEnv(e)
	var r Result
	err = s.installs.hold(strings.ToUpper(agentID), i, func() error {
		r, err = execute(ctx, e.guest, c, nil)
		return err
	})
	return r, err
}
