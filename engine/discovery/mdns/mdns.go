// Package mdns is the embedded responder and browser (RFC 6762) for systems
// where no other one runs.
package mdns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/brutella/dnssd"

	"osaurus/engine/discovery"
)

// Options tunes New.
type Options struct {
	Interfaces []string // names; none means every multicast interface
	Host       string   // host label; "" means the machine's name
}

// MDNS is a discovery.Advertiser and a discovery.Browser.
type MDNS struct {
	o Options

	mu        sync.Mutex
	stop      context.CancelFunc
	stopped   chan struct{}
	current   map[string]published
	responder dnssd.Responder
}

type published struct {
	instance discovery.Instance
	handle   dnssd.ServiceHandle
}

var (
	_ discovery.Advertiser = (*MDNS)(nil)
	_ discovery.Browser    = (*MDNS)(nil)
)

// New returns a responder that sends nothing until Publish or Browse.
func New(o Options) *MDNS { return &MDNS{o: o, current: map[string]published{}} }

// Publish implements discovery.Advertiser.
func (m *MDNS) Publish(_ context.Context, want []discovery.Instance) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(want) == 0 && m.responder == nil {
		return nil
	}
	if err := m.startLocked(); err != nil {
		return err
	}
	wanted := map[string]bool{}
	var failed error
	for _, i := range want {
		wanted[i.AgentID] = true
		failed = errors.Join(failed, m.applyLocked(i))
	}
	for id, p := range m.current {
		if !wanted[id] {
			m.responder.Remove(p.handle)
			delete(m.current, id)
		}
	}
	return failed
}

func (m *MDNS) applyLocked(i discovery.Instance) error {
	old, ok := m.current[i.AgentID]
	var before *discovery.Instance
	if ok {
		before = &old.instance
	}
	switch discovery.Compare(before, i) {
	case discovery.None:
		return nil
	case discovery.UpdateTXT:
		old.handle.UpdateText(i.TXT(), m.responder)
		m.current[i.AgentID] = published{i, old.handle}
		return nil
	}
	if ok {
		m.responder.Remove(old.handle)
		delete(m.current, i.AgentID)
	}
	s, err := dnssd.NewService(dnssd.Config{Name: i.ServiceName(), Type: discovery.ServiceType, Domain: "local", Host: m.o.Host, Text: i.TXT(), Port: i.Port, Ifaces: m.o.Interfaces})
	if err != nil {
		return fmt.Errorf("describing %s: %w", i.Name, err)
	}
	handle, err := m.responder.Add(s)
	if err != nil {
		return fmt.Errorf("publishing %s: %w", i.Name, err)
	}
	m.current[i.AgentID] = published{i, handle}
	return nil
}

func (m *MDNS) startLocked() error {
	if m.responder != nil {
		return nil
	}
	r, err := dnssd.NewResponder()
	if err != nil {
		return fmt.Errorf("starting the mDNS responder: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.responder, m.stop, m.stopped = r, cancel, make(chan struct{})
	go func() {
		defer close(m.stopped)
		_ = r.Respond(ctx) // returns when stopped
	}()
	return nil
}

// Close implements discovery.Advertiser: goodbyes are sent before it returns.
func (m *MDNS) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.responder == nil {
		return nil
	}
	for id, p := range m.current {
		m.responder.Remove(p.handle)
		delete(m.current, id)
	}
	m.stop()
	<-m.stopped
	m.responder = nil
	return nil
}

// Browse implements discovery.Browser.
func (m *MDNS) Browse(ctx context.Context, f func(discovery.Event)) error {
	event := func(lost bool) func(dnssd.BrowseEntry) {
		return func(e dnssd.BrowseEntry) {
			if len(m.o.Interfaces) > 0 && !slices.Contains(m.o.Interfaces, e.IfaceName) {
				return
			}
			i, ok := discovery.ParseTXT(e.Text)
			if !ok {
				return
			}
			i.Host, i.Port = strings.TrimSuffix(e.Host, "."), e.Port
			for _, ip := range e.IPs {
				if a, ok := netip.AddrFromSlice(ip); ok {
					i.IPs = append(i.IPs, a.Unmap())
				}
			}
			slices.SortStableFunc(i.IPs, func(a, b netip.Addr) int {
				if a.Is4() == b.Is4() {
					return 0
				}
				if a.Is4() {
					return -1
				}
				return 1
			})
			f(discovery.Event{Lost: lost, Instance: i})
		}
	}
	err := dnssd.LookupType(ctx, discovery.ServiceType+"."+discovery.Domain, event(false), event(true))
	if ctx.Err() != nil {
		err = nil // asked to stop
	}
	return err
}
