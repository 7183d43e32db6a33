package dnssd

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"osaurus/engine/discovery"
)

// browser asks the responder what the view lacks; all of it belongs to the
// loop's goroutine.
type browser struct {
	loop     *loop
	view     *view
	places   map[string]place  // by instance, as the view knows it
	resolves map[string]*ref   // by instance
	queries  map[string][]*ref // by host
	retry    time.Time
	failures int
}

// place is how the responder calls an instance.
type place struct{ name, kind, domain string }

// Browse implements discovery.Browser. It fails where there is no responder to
// begin with; one that goes away later is waited for. f is called by one
// goroutine.
func (r *Responder) Browse(ctx context.Context, f func(discovery.Event)) error {
	b := &browser{view: newView(f)}
	b.forget()
	l, err := newLoop(b.down, b.tick)
	if err != nil {
		return err
	}
	b.loop = l
	started := make(chan error, 1)
	l.do(func() { started <- b.start() })
	if err := <-started; err != nil {
		return errors.Join(err, l.stop())
	}
	<-ctx.Done()
	return l.stop()
}

func (b *browser) forget() {
	b.places, b.resolves, b.queries = map[string]place{}, map[string]*ref{}, map[string][]*ref{}
}

func (b *browser) start() error {
	_, err := b.loop.keep(browse(discovery.ServiceType, b.browsed))
	return err
}

func (b *browser) browsed(e event) {
	switch {
	case e.err != nil:
		b.down(e.err)
	case e.add:
		b.failures = 0
		if b.view.sighted(e.name, time.Now()) {
			key := strings.ToLower(e.name)
			b.places[key] = place{e.name, e.kind, e.domain}
			b.resolve(key)
		}
	default:
		b.view.unsighted(e.name, time.Now())
	}
}

// resolve asks where an instance is. The operation stays open, because it
// tells of changed records too.
func (b *browser) resolve(key string) {
	b.loop.drop(b.resolves[key])
	p, ok := b.places[key]
	if !ok {
		return
	}
	r, err := b.loop.keep(resolve(p.name, p.kind, p.domain, func(e event) { b.resolved(key, e) }))
	if err != nil {
		b.down(err)
		return
	}
	b.resolves[key] = r
}

func (b *browser) resolved(key string, e event) {
	if e.err != nil {
		b.loop.drop(b.resolves[key]) // the view asks for another one
		delete(b.resolves, key)
		return
	}
	b.view.resolved(key, e.name, e.port, parseTXT(e.data), time.Now())
	b.query(e.name)
}

// query asks for the addresses of a host, as long as an instance is on it.
func (b *browser) query(host string) {
	key := strings.ToLower(host)
	if len(b.queries[key]) > 0 || len(b.queries) >= discovery.MaxHosts {
		return
	}
	for _, rrtype := range []uint16{typeA, typeAAAA} {
		r, err := b.loop.keep(query(host, rrtype, func(e event) { b.queried(host, e) }))
		if err != nil {
			b.down(err)
			return
		}
		b.queries[key] = append(b.queries[key], r)
	}
}

func (b *browser) queried(host string, e event) {
	a, ok := netip.AddrFromSlice(e.data)
	if e.err != nil || !ok {
		return // no such record; the browse operation tells of a dead responder
	}
	if a = a.Unmap(); a.Is6() && a.IsLinkLocalUnicast() {
		i, err := net.InterfaceByIndex(int(e.iface))
		if err != nil {
			return // of no use without its link
		}
		a = a.WithZone(i.Name)
	}
	b.view.address(host, a, e.add, time.Now())
}

// down frees what a responder that went away no longer knows, and plans the
// next try.
func (b *browser) down(error) {
	b.loop.dropAll()
	b.forget()
	b.view.away(time.Now())
	b.retry = time.Now().Add(retryDelay(b.failures))
	b.failures++
}

func (b *browser) tick(now time.Time) time.Time {
	if !b.retry.IsZero() && !now.Before(b.retry) {
		b.retry = time.Time{}
		if err := b.start(); err != nil {
			b.down(err)
		}
	}
	again, gone, next := b.view.tick(now)
	for _, key := range again {
		b.resolve(key)
	}
	for _, key := range gone {
		b.loop.drop(b.resolves[key])
		delete(b.resolves, key)
		delete(b.places, key)
	}
	if len(gone) > 0 {
		b.dropHosts()
	}
	if !b.retry.IsZero() && (next.IsZero() || b.retry.Before(next)) {
		next = b.retry
	}
	return next
}

func (b *browser) dropHosts() {
	used := b.view.usedHosts()
	for host, refs := range b.queries {
		if !used[host] {
			for _, r := range refs {
				b.loop.drop(r)
			}
			delete(b.queries, host)
		}
	}
}
