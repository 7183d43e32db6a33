// Package mdns is the embedded responder and browser (RFC 6762) for systems
// where no other one runs.
package mdns

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

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
	added     time.Time // when the last instance was added
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

// announceTail is how long the library goes on announcing everything after it
// added something. A goodbye sent before that is over would be taken back.
const announceTail = 1200 * time.Millisecond

// Publish implements discovery.Advertiser. Probing for each new name takes
// about a second (RFC 6762 section 8.1).
func (m *MDNS) Publish(ctx context.Context, want []discovery.Instance) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(want) == 0 && m.responder == nil {
		return nil
	}
	if err := m.startLocked(); err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, i := range want {
		wanted[i.AgentID] = true
	}
	for id := range m.current {
		if !wanted[id] {
			m.withdrawLocked(ctx, id)
		}
	}
	var failed error
	for _, i := range want {
		failed = errors.Join(failed, m.applyLocked(ctx, i))
	}
	return failed
}

// withdrawLocked says goodbye to one instance.
func (m *MDNS) withdrawLocked(ctx context.Context, id string) {
	wait := time.NewTimer(time.Until(m.added.Add(announceTail)))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
	m.responder.Remove(m.current[id].handle)
	delete(m.current, id)
}

func (m *MDNS) applyLocked(ctx context.Context, i discovery.Instance) error {
	old, ok := m.current[i.AgentID]
	var before *discovery.Instance
	if ok {
		before = &old.instance
	}
	if discovery.Compare(before, i) == discovery.None {
		return nil
	}
	// The library's UpdateText writes what its responder reads meanwhile, so
	// a new text is told as a goodbye and a new announcement.
	if ok {
		m.withdrawLocked(ctx, i.AgentID)
	}
	s, err := dnssd.NewService(dnssd.Config{Name: i.ServiceName(), Type: discovery.ServiceType, Domain: "local", Host: m.o.Host, Text: escaped(i.TXT()), Port: i.Port, Ifaces: m.o.Interfaces})
	if err != nil {
		return fmt.Errorf("describing %s: %w", i.Name, err)
	}
	handle, err := m.responder.Add(s)
	if err != nil {
		return fmt.Errorf("publishing %s: %w", i.Name, err)
	}
	m.current[i.AgentID], m.added = published{i, handle}, time.Now()
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
	for id := range m.current {
		m.withdrawLocked(context.Background(), id)
	}
	m.stop()
	<-m.stopped
	m.responder = nil
	return nil
}

// escaped doubles the backslashes, which the DNS library reads as escapes.
func escaped(txt map[string]string) map[string]string {
	for key, value := range txt {
		txt[key] = strings.ReplaceAll(value, `\`, `\\`)
	}
	return txt
}
