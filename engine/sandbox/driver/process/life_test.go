package process

import (
	"context"
	"errors"
	"strings"
	"testing"
)

var errBySelf = errors.New("it ended by itself")

func TestLifeStopped(t *testing.T) {
	t.Parallel()
	l := NewLife("a", errBySelf)
	if l.Err() != nil {
		t.Error("it has not ended")
	}
	if err := l.End(t.Context(), l.Over); err != nil || l.Err() != nil {
		t.Errorf("%v, then %v", err, l.Err())
	}
	<-l.Done()
}

func TestLifeEndedByItself(t *testing.T) {
	t.Parallel()
	l := NewLife("a", errBySelf)
	l.Over()
	err := l.End(t.Context(), func() { t.Error("killed though it had ended") })
	if err != nil || !errors.Is(l.Err(), errBySelf) {
		t.Errorf("%v, then %v", err, l.Err())
	}
}

// TestLifeHangs: what does not end is said, and can be tried again.
func TestLifeHangs(t *testing.T) {
	t.Parallel()
	l := NewLife("osr-x", errBySelf)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.End(ctx, func() {}); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "osr-x") {
		t.Errorf("got %v", err)
	}
	if err := l.End(t.Context(), l.Over); err != nil || l.Err() != nil {
		t.Errorf("%v, then %v", err, l.Err())
	}
}
