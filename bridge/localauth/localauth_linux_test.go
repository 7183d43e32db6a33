package localauth

import (
	"context"
	"errors"
	"sync"
	"testing"

	"osaurus/engine/fault"
)

// The fake is one for the process, so these tests take turns.

func TestAnswers(t *testing.T) {
	defer fake(confirmed)
	for answer, want := range map[int]error{
		confirmed: nil, -1: fault.KeystoreDenied, -2: fault.KeystoreDenied, -4: fault.KeystoreDenied, passcodeNotSet: fault.KeystoreDenied,
		notInteractive: fault.KeystoreLocked, noContext: fault.KeystoreLocked,
	} {
		fake(answer)
		if err := (Presence{}).Confirm(t.Context(), "pair"); !errors.Is(err, want) {
			t.Errorf("%d: %v", answer, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	defer fake(confirmed)
	fake(hangs)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Presence{}.Confirm(ctx, "pair") }()
	select {
	case err := <-ended:
		t.Fatalf("answered by itself: %v", err)
	default:
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := (Presence{}).Confirm(ctx, "pair"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestConcurrent(t *testing.T) {
	fake(confirmed)
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if err := (Presence{}).Confirm(context.Background(), "x"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}
