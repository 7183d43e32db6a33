package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
)

// Limits of homes that are carried, where a driver mounts no workspace.
const (
	MaxHome   = 64 << 20         // bytes of a home's compressed archive, what a put takes
	CarryTime = 30 * time.Second // for one home, in or out
	KeepEvery = time.Minute      // a home that commands use is carried out this often
)

// packed is where a home's archive lies in the guest while it is unpacked.
const packed = ".osaurus-home"

// A user that ends in shared mode leaves an archive under every driver. Both run as the agent's user: what they read and make is the agent's, and a
// link it planted leads to nothing that it could not open by itself. The host
// never looks into the archive.
const (
	packHome   = "exec tar -czf - ."
	unpackHome = "tar -xpzf " + packed + "; code=$?; rm -f " + packed + "; exit $code"
)

// mounts reports whether homes lie on the host. What does not say so carries
// them.
func mounts(d Driver) bool {
	m, ok := d.(interface{ MountsWorkspace() bool })
	return ok && m.MountsWorkspace()
}

// archive is where an agent's home is kept between two sandboxes.
func (e *environment) archive(linuxName string) string {
	return filepath.Join(e.homes, linuxName+".tar.gz")
}

// restore unpacks a kept home into the new one of a user. It comes before the
// user's token, and before anything of the agent runs.
func (s *Service) restore(ctx context.Context, e *environment, name string) error {
	raw, err := os.ReadFile(e.archive(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, CarryTime)
	defer cancel()
	if err := e.guest.Put(ctx, name, Home(name)+"/"+packed, 0o600, raw); err != nil {
		return fmt.Errorf("sandbox: the home of %s: %w", name, err)
	}
	done, err := execute(ctx, e.guest, Shell(name, unpackHome), Collection{})
	if err == nil && done.ExitCode != 0 {
		err = errors.New(done.Stderr)
	}
	if err != nil {
		return fmt.Errorf("sandbox: the home of %s was not unpacked: %w", name, err)
	}
	if e.mounted { // the home is the original now
		return atomicfile.Remove(e.archive(name))
	}
	return nil
}

// keep carries a home out. One that does not come whole leaves the last one
// that did.
func (s *Service) keep(ctx context.Context, e *environment, name string) error {
	if name == DiagnosticUser {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, CarryTime)
	defer cancel()
	var out, said bytes.Buffer
	long := false
	exit, err := e.guest.Exec(ctx, Shell(name, packHome), func(stream int, data []byte) {
		switch {
		case stream == 2:
			said.Write(data[:min(len(data), MaxStderr-said.Len())])
		case out.Len()+len(data) > MaxHome:
			long = true
			cancel()
		default:
			out.Write(data)
		}
	})
	switch {
	case long:
		err = fault.WithText(fault.Unsupported, fmt.Sprintf("The home of %s is larger than %d MiB and was not kept.", name, MaxHome>>20))
	case err == nil && exit.Code != 0:
		err = fmt.Errorf("sandbox: the home of %s was not kept: %s", name, bytes.TrimSpace(said.Bytes()))
	case err == nil:
		err = atomicfile.Write(e.archive(name), out.Bytes())
	}
	if err != nil {
		s.c.Log("sandbox_home_not_kept", slog.String("sandbox", e.sandbox.ID()), slog.String("user", name))
	}
	return err
}

// keepAll carries out every home of an environment whose guest still answers.
func (s *Service) keepAll(ctx context.Context, e *environment) error {
	if e.mounted || e.guest == nil {
		return nil
	}
	var failed error
	for _, name := range s.usersOf(e) {
		select {
		case <-e.guest.Done():
			return failed
		default:
			failed = errors.Join(failed, s.keep(ctx, e, name))
		}
	}
	return failed
}

// keepSometimes carries a home out after a command, so that a host that is
// killed loses a minute and not a day.
func (s *Service) keepSometimes(ctx context.Context, e *environment, name string) {
	s.mu.Lock()
	due := !e.mounted && s.c.Now().Sub(e.kept) >= KeepEvery
	if due {
		e.kept = s.c.Now()
	}
	s.mu.Unlock()
	if !due {
		return
	}
	if err := s.keep(ctx, e, name); err != nil {
		s.c.Logger.Warn("a home was not kept", slog.String("error", err.Error()))
	}
}

func (s *Service) usersOf(e *environment) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.stateLocked().Users
}

// forgetHome deletes what an agent kept on the host, in both modes. Names lead
// nowhere out of the workspace, whatever lies there.
func (s *Service) forgetHome(agentID, name string) (err error) {
	root, err := os.OpenRoot(s.path(workspacePath))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, path := range []string{agentID, filepath.Join(sharedKey, name+".tar.gz"), filepath.Join(sharedKey, "agents", AgentName(agentID))} {
		err = errors.Join(err, root.RemoveAll(path))
	}
	return err
}
