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
	"strings"
	"time"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/sandbox/wire"
)

// Limits of homes that are carried, where a driver mounts no workspace.
const (
	MaxHome   = 64 << 20         // bytes of a home's compressed archive, what a put takes
	CarryTime = 30 * time.Second // for one home, in or out
	KeepEvery = time.Minute      // a home that commands use is carried out this often
)

// carry is how a guest packs or unpacks a home: as root, since an agent may
// have shut itself out of its own files. The program follows no link and takes
// nothing that is not the agent's; the host never looks into the archive.
func carry(verb, name string) Command { return Command{Argv: []string{wire.GuestPath, verb, name}} }

// Ends of the names of archives; one that was not unpacked whole has both.
const (
	archiveEnd = ".tar.gz"
	beforeEnd  = ".before"
)

// mounts reports whether homes lie on the host. What does not say so carries
// them.
func mounts(d Driver) bool {
	m, ok := d.(interface{ MountsWorkspace() bool })
	return ok && m.MountsWorkspace()
}

// archive is where an agent's home is kept between two sandboxes.
func (e *environment) archive(linuxName string) string {
	return filepath.Join(e.homes, linuxName+archiveEnd)
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
	if err := e.guest.Put(ctx, name, Home(name)+"/"+wire.PackedHome, 0o600, raw); err != nil {
		return fmt.Errorf("sandbox: the home of %s: %w", name, err)
	}
	done, err := execute(ctx, e.guest, carry("unpack", name), nil)
	switch {
	case err == nil && done.ExitCode == wire.ExitPart: // the rest is kept beside
		s.c.Log("sandbox_home_in_part", slog.String("sandbox", e.sandbox.ID()), slog.String("user", name), slog.String("left", strings.TrimSpace(done.Stderr)))
		err = atomicfile.Write(e.archive(name)+beforeEnd, raw)
	case err == nil && done.ExitCode != 0:
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

// keep carries a home out. Entries that cannot be packed stay behind, which is
// no reason to lose the others; an archive that breaks off leaves the last one
// that did not.
func (s *Service) keep(ctx context.Context, e *environment, name string) error {
	if name == DiagnosticUser {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, CarryTime)
	defer cancel()
	var out, said bytes.Buffer
	long := false
	exit, err := e.guest.Exec(ctx, carry("pack", name), func(stream int, data []byte) {
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
	case err == nil && exit.Code == wire.ExitPart:
		s.c.Log("sandbox_home_in_part", slog.String("sandbox", e.sandbox.ID()), slog.String("user", name), slog.String("left", strings.TrimSpace(said.String())))
		err = atomicfile.Write(e.archive(name), out.Bytes())
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
	return s.stateLocked(e).Users
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
	for _, path := range []string{agentID, filepath.Join(sharedKey, name+archiveEnd), filepath.Join(sharedKey, name+archiveEnd+beforeEnd), filepath.Join(sharedKey, "agents", strings.TrimPrefix(name, userStem))} {
		err = errors.Join(err, root.RemoveAll(path))
	}
	return err
}
