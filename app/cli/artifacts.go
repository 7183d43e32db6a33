package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"osaurus/engine/sandbox/artifact"
)

// guestPlatform is that of the guests this machine runs.
const guestPlatform = "linux/" + runtime.GOARCH

// artifactLine is one pinned artifact as it is shown.
type artifactLine struct {
	Name     string         `json:"name"`
	Platform string         `json:"platform"`
	Kind     artifact.Kind  `json:"kind"`
	SHA256   string         `json:"sha256"`
	Source   string         `json:"source"`
	State    artifact.State `json:"state,omitempty"`
	Problem  string         `json:"problem,omitempty"`
}

func (a *app) artifactCommands(root *cobra.Command) {
	list := command("", "list", "List what is pinned, by hash, and where it comes from", "", cobra.NoArgs, func(context.Context, []string) error {
		s, err := a.artifacts()
		if err != nil {
			return err
		}
		var all []artifactLine
		for _, p := range s.Pins {
			all = append(all, lineOf(p))
		}
		return a.result(all, func() {
			for _, l := range all {
				a.out("%-14s %-12s sha256:%s  %s", l.Name, l.Platform, l.SHA256, l.Source)
			}
		})
	})
	verify := command("", "verify", "Hash everything that is here again, and compare", "", cobra.NoArgs, func(ctx context.Context, _ []string) error { return a.verifyArtifacts(ctx) })
	pull := command("", "pull [NAME]...", "Fetch what the sandbox boots on this machine, and verify it", "  osaurus artifacts pull\n  osaurus artifacts pull sandbox-image", cobra.ArbitraryArgs, a.pullArtifacts)
	root.AddCommand(parent("host", "artifacts", "What the sandbox boots: pinned, fetched, verified", list, verify, pull))
}

// artifacts opens the store of the home. It needs no running host: nothing in
// it changes but by a pull.
func (a *app) artifacts() (*artifact.Store, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return artifact.Open(a.home, libexecOf(program))
}

// libexecOf is where what comes with the program lies: where it was built, or
// where packages put it, in libexec/osaurus of the same prefix.
func libexecOf(program string) string {
	if real, err := filepath.EvalSymlinks(program); err == nil {
		program = real
	}
	dir := filepath.Dir(program)
	if installed := filepath.Join(dir, "..", "libexec", "osaurus"); filepath.Base(dir) == "bin" {
		return filepath.Clean(installed)
	}
	return filepath.Join(dir, "libexec")
}

func lineOf(p artifact.Pin) artifactLine {
	l := artifactLine{Name: p.Name, Platform: p.Platform, Kind: p.Kind, SHA256: p.SHA256, Source: p.Reference}
	if p.Kind == artifact.File {
		l.Source = p.URLs[0]
	}
	return l
}

// verifyArtifacts prints one line for each, and fails with 5 when anything is
// not what was pinned. What is not here is no failure.
func (a *app) verifyArtifacts(ctx context.Context) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	s, err := a.artifacts()
	if err != nil {
		return err
	}
	reports, err := s.VerifyAll(ctx)
	if err != nil {
		return err
	}
	all := make([]artifactLine, len(reports))
	for i, r := range reports {
		all[i] = lineOf(r.Pin)
		all[i].State = r.State
		if r.Err != nil && r.State != artifact.Absent {
			all[i].Problem = r.Err.Error()
		}
	}
	if err := a.result(all, func() {
		for _, l := range all {
			a.out("%-14s %-12s %-10s %s", l.Name, l.Platform, l.State, l.Problem)
		}
	}); err != nil {
		return err
	}
	return firstProblem(reports)
}

// firstProblem puts damage before what could not be read.
func firstProblem(reports []artifact.Report) error {
	for _, state := range []artifact.State{artifact.Damaged, artifact.Unread} {
		if i := slices.IndexFunc(reports, func(r artifact.Report) bool { return r.State == state }); i >= 0 {
			return reports[i].Err
		}
	}
	return nil
}

func (a *app) pullArtifacts(ctx context.Context, names []string) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	s, err := a.artifacts()
	if err != nil {
		return err
	}
	wanted := names
	if len(wanted) == 0 {
		wanted = []string{artifact.SandboxImage}
		if kernel, err := s.Pins.Find(artifact.Kernel, guestPlatform); err == nil && !kernel.Built() {
			wanted = append(wanted, artifact.Kernel)
		}
	}
	for _, name := range wanted {
		pin, err := s.Pins.Find(name, guestPlatform)
		if err != nil {
			return usage("osaurus artifacts list", "no %s is pinned for %s", name, guestPlatform)
		}
		a.say("%s: %s", name, lineOf(pin).Source)
		if err := s.Pull(ctx, pin); err != nil {
			return err
		}
		if err := a.result(lineOf(pin), func() { a.out("%s  ok", name) }); err != nil {
			return err
		}
	}
	return nil
}

// classifyArtifact tells what is the matter with an artifact.
func classifyArtifact(err error) (exit int, code, next string) {
	switch {
	case errors.Is(err, artifact.ErrIntegrity):
		return exitIntegrity, "integrity", "osaurus artifacts verify"
	case errors.Is(err, artifact.ErrAbsent):
		return exitFailed, "absent", "make sandbox image, in the source tree"
	}
	return exitOK, "", ""
}
