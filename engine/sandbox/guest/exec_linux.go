package guest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"osaurus/engine/sandbox/wire"
)

// Times of commands.
const (
	idlePoll  = 2 * time.Second // how often silence is measured
	killDelay = 3 * time.Second // from SIGTERM to SIGKILL
	waitDelay = time.Second     // for output that is held open after the end
)

// searchPath is where commands look for programs.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// job is one running command: a process group of its own.
type job struct {
	group    int // its id is the pid of the first process
	last     atomic.Int64
	mu       sync.Mutex
	killedBy string
}

func (j *job) signal(sig syscall.Signal, by string) {
	j.mu.Lock()
	if j.killedBy == "" {
		j.killedBy = by
	}
	j.mu.Unlock()
	_ = syscall.Kill(-j.group, sig) // it may have ended
}

// exec starts a command as a user. Output and the end follow as replies.
func (s *session) exec(ctx context.Context, r wire.Request) error {
	cmd, err := s.command(r)
	if err != nil {
		return err
	}
	j := &job{}
	j.last.Store(time.Now().UnixNano())
	cmd.Stdout, cmd.Stderr = &output{s, j, r.ID, 1}, &output{s, j, r.ID, 2}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.jobs) >= maxJobs || s.jobs[r.ID] != nil {
		return errors.New("guest: too many commands at once")
	}
	err = s.reaper.start(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		j.group = cmd.Process.Pid
		return j.group, nil
	})
	if err != nil {
		return err
	}
	s.jobs[r.ID] = j
	ended := make(chan struct{})
	if r.Idle > 0 {
		s.group.Go(func() { j.watch(ctx, ended, time.Duration(r.Idle)*time.Millisecond) })
	}
	s.group.Go(func() { s.wait(cmd, j, r.ID, ended) })
	return nil
}

func (s *session) command(r wire.Request) (*exec.Cmd, error) {
	cmd := &exec.Cmd{Path: program(r.Argv[0]), Args: r.Argv, Dir: r.Dir, WaitDelay: waitDelay, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	cmd.Env = []string{"PATH=" + searchPath, "HOME=/root", "USER=root", "LOGNAME=root", "SHELL=" + shell()}
	if r.User != "" {
		uid, err := s.users.uid(r.User)
		if err != nil {
			return nil, err
		}
		home := s.p.home(r.User)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{}}
		cmd.Env = []string{"PATH=" + searchPath, "HOME=" + home, "USER=" + r.User, "LOGNAME=" + r.User, "SHELL=" + shell()}
		if cmd.Dir == "" {
			cmd.Dir = home
		}
	}
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = append(cmd.Env, r.Env...)
	if len(r.Stdin) > 0 {
		cmd.Stdin = bytes.NewReader(r.Stdin)
	}
	return cmd, nil
}

// program finds a program as a shell would, whatever our own environment is.
func program(name string) string {
	if strings.ContainsRune(name, '/') {
		return name
	}
	for _, dir := range strings.Split(searchPath, ":") {
		if info, err := os.Stat(dir + "/" + name); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return dir + "/" + name
		}
	}
	return "/usr/bin/" + name // it is not there, which Start says
}

// wait answers when the command has ended. What it left in its process group
// is killed.
func (s *session) wait(cmd *exec.Cmd, j *job, id uint64, ended chan struct{}) {
	err := cmd.Wait()
	close(ended)
	s.reaper.done(j.group)
	_ = syscall.Kill(-j.group, syscall.SIGKILL) // mostly there is nobody
	s.mu.Lock()
	delete(s.jobs, id)
	s.mu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	reply := wire.Reply{ID: id, OK: true, KilledBy: j.killedBy}
	if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && st.Signaled() {
		reply.Exit = 128 + int(st.Signal())
	} else {
		reply.Exit = cmd.ProcessState.ExitCode()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		reply.OK, reply.Error = false, err.Error()
	}
	s.reply(reply)
}

// watch ends a command that has been silent for idle.
func (j *job) watch(ctx context.Context, ended <-chan struct{}, idle time.Duration) {
	tick := time.NewTicker(min(idlePoll, idle))
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if time.Since(time.Unix(0, j.last.Load())) >= idle {
			break
		}
	}
	j.signal(syscall.SIGTERM, "idle")
	kill := time.NewTimer(killDelay)
	defer kill.Stop()
	select {
	case <-ended:
	case <-kill.C:
		j.signal(syscall.SIGKILL, "idle")
	case <-ctx.Done():
	}
}

func (s *session) kill(target uint64, sig syscall.Signal) error {
	s.mu.Lock()
	j := s.jobs[target]
	s.mu.Unlock()
	if j == nil {
		return errors.New("guest: no such command runs")
	}
	j.signal(sig, "user")
	return nil
}

func (s *session) killJobs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.jobs {
		j.signal(syscall.SIGKILL, "user")
	}
}

// output sends what a command writes.
type output struct {
	s      *session
	j      *job
	id     uint64
	stream int
}

func (o *output) Write(p []byte) (int, error) {
	o.j.last.Store(time.Now().UnixNano())
	for rest := p; len(rest) > 0; {
		n := min(len(rest), wire.MaxChunk)
		o.s.reply(wire.Reply{ID: o.id, OK: true, Stream: o.stream, Data: rest[:n], More: true})
		rest = rest[n:]
	}
	return len(p), nil
}
