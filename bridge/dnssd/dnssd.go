// Package dnssd lets the system's own DNS-SD responder advertise and browse:
// mDNSResponder on macOS, Avahi through its compatibility layer elsewhere. The
// library is linked on macOS and looked for at run time elsewhere, so that
// neither building nor starting needs it. Where Available says that nobody
// answers, engine/discovery/mdns takes its place.
//
// A responder that dies is waited for: advertisements come back by themselves,
// and what was browsed is lost only if it stays away longer than its grace.
package dnssd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"osaurus/engine/discovery"
)

// Responder is a discovery.Advertiser and a discovery.Browser.
type Responder struct {
	mu sync.Mutex
	a  *advertiser // nil until something was published
}

var (
	_ discovery.Advertiser = (*Responder)(nil)
	_ discovery.Browser    = (*Responder)(nil)
)

// New returns a responder that does nothing until Publish or Browse.
func New() *Responder { return &Responder{} }

// Available reports whether a responder runs: nil, ErrNoLibrary or what it
// answers.
func Available() error {
	r, err := browse(discovery.ServiceType, func(event) {})
	if err != nil {
		return err
	}
	r.free()
	return nil
}

// publishPatience bounds how long the responder may take to probe for a name.
const publishPatience = 10 * time.Second

// retryDelays are the pauses between tries to reach a responder that went
// away (PROTOCOL.md of discovery, section 2); the last one repeats.
var retryDelays = []time.Duration{1, 2, 4, 8, 16, 30}

func retryDelay(failures int) time.Duration {
	return retryDelays[min(failures, len(retryDelays)-1)] * time.Second
}

// Publish implements discovery.Advertiser. It returns once the responder has
// claimed every name.
func (r *Responder) Publish(ctx context.Context, want []discovery.Instance) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.a == nil {
		if len(want) == 0 {
			return nil
		}
		a, err := newAdvertiser()
		if err != nil {
			return err
		}
		r.a = a
	}
	result := make(chan error, 1)
	a := r.a
	a.loop.do(func() { a.publish(want, result) })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close implements discovery.Advertiser.
func (r *Responder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.a == nil {
		return nil
	}
	defer func() { r.a = nil }()
	return r.a.loop.stop()
}

// advertiser is what is published; all of it belongs to the loop's goroutine.
type advertiser struct {
	loop     *loop
	entries  map[string]*entry // by agent
	round    *round            // the Publish that waits, or nil
	retry    time.Time         // when to try again; zero while all is well
	failures int
}

// entry is one instance.
type entry struct {
	instance discovery.Instance // as it was asked for
	ref      *ref
	tries    int // names that were taken
	claimed  bool
}

// round is one call of Publish.
type round struct {
	result   chan<- error
	waiting  map[*entry]bool
	deadline time.Time
}

func newAdvertiser() (*advertiser, error) {
	a := &advertiser{entries: map[string]*entry{}}
	l, err := newLoop(a.down, a.tick)
	if err != nil {
		return nil, err
	}
	a.loop = l
	return a, nil
}

func (a *advertiser) publish(want []discovery.Instance, result chan<- error) {
	a.end(errors.New("another publication came in between"))
	a.round = &round{result: result, waiting: map[*entry]bool{}, deadline: time.Now().Add(publishPatience)}
	wanted := map[string]bool{}
	for _, i := range want {
		wanted[i.AgentID] = true
	}
	for id, e := range a.entries {
		if !wanted[id] {
			a.loop.drop(e.ref)
			delete(a.entries, id)
		}
	}
	var failed error
	for _, i := range want {
		failed = errors.Join(failed, a.apply(i))
	}
	if failed != nil {
		a.end(failed)
		return
	}
	a.settle()
}

func (a *advertiser) apply(i discovery.Instance) error {
	e := a.entries[i.AgentID]
	if e == nil {
		e = &entry{}
		a.entries[i.AgentID] = e
	} else {
		switch change := discovery.Compare(&e.instance, i); {
		case e.ref == nil: // the responder is away
		case change == discovery.None:
			if !e.claimed {
				a.round.waiting[e] = true
			}
			return nil
		case change == discovery.UpdateTXT:
			txt, err := appendTXT(nil, i.TXT())
			if err != nil {
				return err
			}
			if e.ref.update(txt) == nil {
				e.instance = i
				return nil
			}
		}
		a.loop.drop(e.ref)
	}
	*e = entry{instance: i}
	return a.register(e)
}

// register claims a name for an entry that has none.
func (a *advertiser) register(e *entry) error {
	txt, err := appendTXT(nil, e.instance.TXT())
	if err != nil {
		return err
	}
	claim := func() (*ref, error) {
		name := renamed(e.instance.ServiceName(), e.tries)
		return a.loop.keep(register(name, discovery.ServiceType, uint16(e.instance.Port), txt, func(ev event) { a.registered(e, ev) }))
	}
	// Avahi says at once that a name is taken on its own machine.
	for e.ref, err = claim(); errors.Is(err, NameConflict) && e.tries < maxTries; e.ref, err = claim() {
		e.tries++
	}
	if err != nil {
		e.ref = nil
		a.down(err)
		return fmt.Errorf("publishing %s: %w", e.instance.Name, err)
	}
	if a.round != nil {
		a.round.waiting[e] = true
	}
	return nil
}

// maxTries bounds how many names are tried for one instance.
const maxTries = 9

// renamed is the name to try after so many were taken, as macOS would choose it.
func renamed(name string, tries int) string {
	if tries == 0 {
		return name
	}
	suffix := fmt.Sprintf(" (%d)", tries+1)
	return discovery.Cut(name, discovery.MaxInstance-len(suffix)) + suffix
}

func (a *advertiser) registered(e *entry, ev event) {
	switch {
	case ev.err == nil:
		e.claimed, a.failures = true, 0
		if a.round != nil {
			delete(a.round.waiting, e)
		}
		a.settle()
	case errors.Is(ev.err, NameConflict) && e.tries < maxTries:
		a.loop.drop(e.ref)
		e.tries++
		if err := a.register(e); err != nil {
			a.end(err)
		}
	default:
		a.down(ev.err)
	}
}

// settle ends the round once nothing is waited for.
func (a *advertiser) settle() {
	if a.round != nil && len(a.round.waiting) == 0 {
		a.end(nil)
	}
}

func (a *advertiser) end(err error) {
	if a.round != nil {
		a.round.result <- err
		a.round = nil
	}
}

// down frees what a responder that went away no longer knows, and plans the
// next try.
func (a *advertiser) down(err error) {
	a.loop.dropAll()
	for _, e := range a.entries {
		e.ref, e.claimed, e.tries = nil, false, 0
	}
	a.retry = time.Now().Add(retryDelay(a.failures))
	a.failures++
	a.end(err)
}

// tick tries again when it is time to.
func (a *advertiser) tick(now time.Time) time.Time {
	if a.round != nil && !now.Before(a.round.deadline) {
		a.end(fmt.Errorf("the responder claimed no name within %s", publishPatience))
	}
	if !a.retry.IsZero() && !now.Before(a.retry) {
		a.retry = time.Time{}
		for _, e := range a.entries {
			if e.ref == nil && a.register(e) != nil {
				break // down planned the next try
			}
		}
	}
	next := a.retry
	if a.round != nil && (next.IsZero() || a.round.deadline.Before(next)) {
		next = a.round.deadline
	}
	return next
}
