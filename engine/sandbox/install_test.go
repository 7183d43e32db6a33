package sandbox

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestInstallLocks: one agent's installations follow each other, those of
// different agents overlap, except the system's; an error releases.
func TestInstallLocks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		first, second string
		kind          Installer
		want          time.Duration
	}{{"one agent", agentA, agentA, Pip, 2 * time.Second}, {"two agents", agentA, agentB, Pip, time.Second}, {"system", agentA, agentB, Apk, 2 * time.Second}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var l installLocks
				begin, done := time.Now(), make(chan error, 2)
				for _, agent := range []string{c.first, c.second} {
					go func() {
						done <- l.hold(agent, c.kind, func() error { <-time.After(time.Second); return errors.New("failed") })
					}()
				}
				for range 2 {
					if err := <-done; err == nil {
						t.Error("the error was lost")
					}
				}
				if took := time.Since(begin); took != c.want {
					t.Errorf("took %v, want %v", took, c.want)
				}
			})
		})
	}
}
