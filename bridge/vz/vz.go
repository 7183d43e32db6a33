// Package vz runs sandboxes as virtual machines of macOS' own
// Virtualization.framework. It holds no decisions: what is booted was verified
// below, and what is said to the guest is said above.
package vz

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/artifact"
	"osaurus/engine/sandbox/image"
)

// Options of a driver.
type Options struct {
	// Artifacts holds kernel and image.
	Artifacts *artifact.Store
	// Platform is that of the guest, "linux/arm64" or "linux/amd64".
	Platform string
	// Programs are the guest programs, which an image of others lacks; nil for
	// none. They are part of the signed application.
	Programs func() ([]image.Entry, error)
	// State is a folder of this driver's own.
	State string
}

// absent tells what was not fetched, or is not pinned for this machine, from
// what differs from its pin: the one is an unavailable driver, the other is
// damage.
func absent(err error) error {
	if errors.Is(err, artifact.ErrAbsent) || errors.Is(err, artifact.ErrPin) {
		return fmt.Errorf("%w: vz: %w. To fetch it:  osaurus artifacts pull", sandbox.ErrUnavailable, err)
	}
	return fmt.Errorf("vz: %w", err)
}

// accepter is what the framework's listener offers. Its Close does not wake a
// pending Accept.
type accepter interface {
	Accept() (net.Conn, error)
	Close() error
}

// listener gives an accepter the manners of a net.Listener: Accept fails once
// it was closed. The goroutine that waits in the framework's Accept stays
// behind until its process ends, one for each sandbox.
type listener struct {
	inner accepter
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	err   error
}

// errClosed says that the sandbox has ended.
var errClosed = errors.New("vz: the sandbox has ended")

func newListener(inner accepter) *listener {
	l := &listener{inner: inner, conns: make(chan net.Conn), done: make(chan struct{})}
	go l.pump()
	return l
}

func (l *listener) pump() {
	for {
		c, err := l.inner.Accept()
		if err != nil {
			_ = l.Close() // Accept says that it is over
			return
		}
		select {
		case l.conns <- c:
		case <-l.done:
			_ = c.Close() // nobody takes it
			return
		}
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, errClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, errClosed
	}
}

// Close implements net.Listener. A second call returns what the first did.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.err = l.inner.Close()
	})
	return l.err
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "vsock" }
func (address) String() string  { return "vsock" }
