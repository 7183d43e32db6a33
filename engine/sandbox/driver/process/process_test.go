//go:build linux

package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sleeper is a process with a word on its command line, and a channel that
// closes when it was reaped.
func sleeper(t *testing.T, word string) (*exec.Cmd, chan struct{}) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "sleep 600 & wait", word)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{})
	go func() { _ = cmd.Wait(); close(reaped) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-reaped })
	return cmd, reaped
}

func TestKillAllKillsWhatMatches(t *testing.T) {
	t.Parallel()
	mine, other := t.Name()+"-mine", t.Name()+"-other"
	_, first := sleeper(t, mine)
	_, second := sleeper(t, mine)
	spared, _ := sleeper(t, other)
	if err := KillAll(t.Context(), func(args []string) bool { return slices.Contains(args, mine) }); err != nil {
		t.Fatal(err)
	}
	<-first
	<-second
	if !slices.Contains(Arguments(spared.Process.Pid), other) {
		t.Error("a stranger was killed")
	}
	// Itself it spares whatever matches.
	if err := KillAll(t.Context(), func(args []string) bool { return len(args) > 0 && args[0] == os.Args[0] }); err != nil {
		t.Fatal(err)
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	cmd, reaped := sleeper(t, t.Name())
	p, err := Hold(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	p.Wait()
	<-reaped
	p.Kill() // of one that has ended and was released
	if _, err := Hold(cmd.Process.Pid); err == nil {
		t.Error("a process that is gone was held")
	}
	if args := Arguments(cmd.Process.Pid); args != nil {
		t.Errorf("it has arguments: %q", args)
	}
}

func TestReleaseEndsWait(t *testing.T) {
	t.Parallel()
	cmd, _ := sleeper(t, t.Name())
	p, err := Hold(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { p.Wait(); close(done) }()
	p.Release()
	<-done
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// One that is killed ends too fast to run into a context; what counts is
	// that nothing hangs.
	if err := KillAll(ctx, func(args []string) bool { return slices.Contains(args, t.Name()) }); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
