package vz

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
)

// framework is a listener with the manners of the framework's.
type framework struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
}

func newFramework() *framework {
	return &framework{make(chan net.Conn), make(chan error, 1), make(chan struct{}, 8)}
}

func (f *framework) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case err := <-f.errs:
		return nil, err
	}
}

func (f *framework) Close() error { f.closed <- struct{}{}; return nil }

func TestListener(t *testing.T) {
	t.Parallel()
	f := newFramework()
	l := newListener(f)
	ours, theirs := net.Pipe()
	defer ours.Close()
	f.conns <- theirs
	if c, err := l.Accept(); err != nil || c != theirs {
		t.Fatalf("accepted %v, %v", c, err)
	}
	waiting := make(chan error)
	go func() { _, err := l.Accept(); waiting <- err }()
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-waiting; !errors.Is(err, errClosed) {
		t.Errorf("a waiting Accept: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, errClosed) {
		t.Errorf("a later Accept: %v", err)
	}
	if len(f.closed) != 1 {
		t.Errorf("closed %d times", len(f.closed))
	}
	// What comes in after all is closed, and not left to wait.
	late, end := net.Pipe()
	f.conns <- late
	if _, err := end.Read(make([]byte, 1)); err == nil {
		t.Error("a late stream is open")
	}
}

// TestAbsent: what is not here is no damage, and what is damaged is not absent.
func TestAbsent(t *testing.T) {
	t.Parallel()
	for err, unavailable := range map[error]bool{artifact.ErrAbsent: true, artifact.ErrPin: true, artifact.ErrIntegrity: false, errors.New("no space"): false} {
		got := absent(fmt.Errorf("kernel: %w", err))
		if errors.Is(got, sandbox.ErrUnavailable) != unavailable || !errors.Is(got, err) {
			t.Errorf("%v became %v", err, got)
		}
	}
}

func TestListenerEndsWithTheFramework(t *testing.T) {
	t.Parallel()
	f := newFramework()
	l := newListener(f)
	f.errs <- errors.New("gone")
	if _, err := l.Accept(); !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
	if l.Addr().Network() != "vsock" {
		t.Error("no address")
	}
}
