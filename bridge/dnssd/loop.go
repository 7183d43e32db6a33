package dnssd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// loop is the one goroutine on which every call to the library and every
// callback of its operations happens.
type loop struct {
	wakeRead, wakeWrite *os.File

	mu    sync.Mutex
	queue []func()

	refs []*ref // of the goroutine alone, as is all below
	ends bool
	done chan struct{}
	// failed is told an error of the connection to the responder; tick is
	// called after every event, and says when to call it again (zero: never).
	failed func(error)
	tick   func(time.Time) time.Time
}

func newLoop(failed func(error), tick func(time.Time) time.Time) (*loop, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting DNS-SD: %w", err)
	}
	l := &loop{wakeRead: r, wakeWrite: w, failed: failed, tick: tick, done: make(chan struct{})}
	go l.run()
	return l, nil
}

// do runs f on the goroutine, later. After stop it is dropped.
func (l *loop) do(f func()) {
	l.mu.Lock()
	first := len(l.queue) == 0
	l.queue = append(l.queue, f)
	l.mu.Unlock()
	if first {
		_, _ = l.wakeWrite.Write([]byte{0}) // closed after stop, when nobody listens
	}
}

// stop frees every operation and waits for the goroutine to end.
func (l *loop) stop() error {
	l.do(func() { l.ends = true })
	<-l.done
	return errors.Join(l.wakeWrite.Close(), l.wakeRead.Close())
}

// keep adds an operation that was opened on the goroutine.
func (l *loop) keep(r *ref, err error) (*ref, error) {
	if err == nil {
		l.refs = append(l.refs, r)
	}
	return r, err
}

// drop frees an operation. nil is none.
func (l *loop) drop(r *ref) {
	at := slices.Index(l.refs, r)
	if at < 0 {
		return
	}
	l.refs = slices.Delete(l.refs, at, at+1)
	r.free()
}

func (l *loop) dropAll() {
	for len(l.refs) > 0 {
		l.drop(l.refs[len(l.refs)-1])
	}
}

func (l *loop) run() {
	defer close(l.done)
	defer l.dropAll()
	for !l.ends {
		l.deliver()
		next := l.tick(time.Now())
		ready, woken, err := l.wait(next)
		if err != nil {
			l.failed(err)
			continue
		}
		if woken {
			l.work()
		}
		for _, r := range ready {
			// A callback may have freed it meanwhile.
			if !slices.Contains(l.refs, r) {
				continue
			}
			if err := r.process(); err != nil {
				l.failed(err)
				break
			}
			l.deliver()
		}
	}
}

// deliver passes on what the callbacks were told.
func (l *loop) deliver() {
	for _, r := range slices.Clone(l.refs) {
		events := r.events
		r.events = nil
		for _, e := range events {
			if slices.Contains(l.refs, r) {
				r.seen(e)
			}
		}
	}
}

// wait sleeps until an operation has something, do was called or next came.
func (l *loop) wait(next time.Time) (ready []*ref, woken bool, err error) {
	refs := slices.Clone(l.refs)
	fds := []unix.PollFd{{Fd: int32(l.wakeRead.Fd()), Events: unix.POLLIN}}
	for _, r := range refs {
		fds = append(fds, unix.PollFd{Fd: int32(r.fd()), Events: unix.POLLIN})
	}
	timeout := -1
	if !next.IsZero() {
		timeout = int(max(0, time.Until(next)+time.Millisecond-1) / time.Millisecond)
	}
	if _, err := unix.Poll(fds, timeout); err != nil && !errors.Is(err, unix.EINTR) {
		return nil, false, fmt.Errorf("waiting for the DNS-SD responder: %w", err)
	}
	for i, r := range refs {
		if fds[i+1].Revents != 0 {
			ready = append(ready, r)
		}
	}
	return ready, fds[0].Revents != 0, nil
}

// work runs what do was given.
func (l *loop) work() {
	var drained [16]byte
	_, _ = l.wakeRead.Read(drained[:]) // readable, so it returns
	l.mu.Lock()
	queue := l.queue
	l.queue = nil
	l.mu.Unlock()
	for _, f := range queue {
		f()
	}
}
