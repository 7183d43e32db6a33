package sandbox

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestInstallLocks: installations of one name follow each other, others
// overlap; an error releases, and who gives up waiting holds nothing.
func TestInstallLocks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		first, second string
		want          time.Duration
	}{{"one agent", agentA, agentA, 2 * time.Second}, {"two agents", agentA, agentB, time.Second}, {"system", "", "", 2 * time.Second}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var l installLocks
				begin, done := time.Now(), make(chan error, 2)
				for _, agent := range []string{c.first, c.second} {
					go func() {
						done <- l.hold(t.Context(), agent, func() error { <-time.After(time.Second); return errors.New("failed") })
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
				gone, cancel := context.WithCancel(t.Context())
				_ = l.hold(t.Context(), "x", func() error {
					cancel()
					if err := l.hold(gone, "x", func() error { return nil }); !errors.Is(err, context.Canceled) {
						t.Errorf("it waits on: %v", err)
					}
					return nil
				})
				if err := l.hold(t.Context(), "x", func() error { return nil }); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
